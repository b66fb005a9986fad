"""Nothing outside of a model's folder is read, but for the blobs of the Hub's cache."""

import os
from pathlib import Path

import pytest

from sotol.errors import FormatError
from sotol.formats.folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"a": 1}')
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    return tmp_path / "model"


def test_files_of_the_folder(folder: Path) -> None:
    (folder / "link.json").symlink_to("config.json")
    opened = Folder(folder)
    assert opened.json("config.json") == opened.json("link.json") == {"a": 1}
    assert (opened.json("other.json"), opened.text("other.jinja"), opened.find("x")) == (None, None, None)
    assert opened.named("*.json") == ["config.json", "link.json"]


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(folder)
    assert Folder(tmp_path / "alias").json("config.json") == {"a": 1}


@pytest.mark.parametrize("target", ["../secret.json", "{tmp}/secret.json", "../model/../secret.json"])
def test_a_link_that_leads_out(folder: Path, tmp_path: Path, target: str) -> None:
    (folder / "tokenizer.json").symlink_to(target.format(tmp=tmp_path))
    with pytest.raises(FormatError, match=r"tokenizer\.json: is a link to a file outside of the folder"):
        Folder(folder).json("tokenizer.json")


def test_a_link_by_way_of_a_linked_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "sub").symlink_to(tmp_path)
    (folder / "tokenizer.json").symlink_to("sub/secret.json")
    with pytest.raises(FormatError, match="outside of the folder"):
        Folder(folder).json("tokenizer.json")


def test_links_in_a_circle_and_to_nothing(folder: Path) -> None:
    (folder / "a.json").symlink_to("b.json")
    (folder / "b.json").symlink_to("a.json")
    (folder / "c.json").symlink_to("gone.json")
    with pytest.raises(FormatError, match=r"a\.json: is a link that leads (back to itself|nowhere)"):
        Folder(folder).json("a.json")
    with pytest.raises(FormatError, match=r"c\.json: is a link to a file that is not there"):
        Folder(folder).json("c.json")


def test_a_snapshot_of_the_hubs_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    (tmp_path / "models--a--b" / "blobs" / "beef").write_text('{"a": 2}')
    (tmp_path / "models--a--b" / "refs").write_text('{"a": 3}')
    (snapshot / "config.json").symlink_to("../../blobs/beef")
    (snapshot / "tokenizer.json").symlink_to("../../refs")
    assert Folder(snapshot).json("config.json") == {"a": 2}
    with pytest.raises(FormatError, match="outside of the folder"):
        Folder(snapshot).json("tokenizer.json")


def test_a_cache_whose_repositories_share_files(tmp_path: Path) -> None:
    """As huggingface_hub 2 has it: a blob of a repository is a link to one of all."""
    snapshot, shared = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "blobs" / "be"
    snapshot.mkdir(parents=True)
    shared.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    (shared / "beef").write_text('{"a": 2}')
    (tmp_path / "models--a--b" / "blobs" / "cafe").symlink_to("../../blobs/be/beef")
    (snapshot / "config.json").symlink_to("../../blobs/cafe")
    assert Folder(snapshot).json("config.json") == {"a": 2}
    other = tmp_path / "mine" / "snapshots" / "0123"  # no repository of a cache
    other.mkdir(parents=True)
    (other / "config.json").symlink_to("../../../blobs/be/beef")
    with pytest.raises(FormatError, match="outside of the folder"):
        Folder(other).json("config.json")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../secret.json", "/etc/passwd", "a/b", "a\\b", "a\0b", "c:x", "x" * 300]
)
def test_names_that_are_no_file_of_the_folder(folder: Path, name: str) -> None:
    with pytest.raises(FormatError, match="can't be a file of this folder") as error:
        Folder(folder).find(name)
    assert len(str(error.value)) < 400


def test_what_is_no_folder_and_no_text(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"a\xff")
    (folder / "list.json").write_text("[]")
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(FormatError, match="is not a folder"):
        Folder(folder / "config.json")
    with pytest.raises(FormatError, match=r"chat_template\.jinja: is not UTF-8 at byte 1"):
        Folder(folder).text("chat_template.jinja")
    with pytest.raises(FormatError, match=r"list\.json: is list in JSON, not an object"):
        Folder(folder).json("list.json")
    with pytest.raises(FormatError, match=r"pipe\.json: is not a regular file"):
        Folder(folder).json("pipe.json")


def test_a_file_that_is_too_large(folder: Path) -> None:
    with (folder / "chat_template.jinja").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(FormatError, match="has 1073741824 bytes, and sotol reads at most"):
        Folder(folder).text("chat_template.jinja")
