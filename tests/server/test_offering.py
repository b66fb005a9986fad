"""What a server is to offer: a folder of models, a TOML file of them, and what becomes of an entry."""

import math
import re
from pathlib import Path

import pytest
from tests.support.tiny_model import tiny_model

from sotol import Sampling
from sotol.errors import FormatError, ModelNotFoundError, SotolError
from sotol.server import Models
from sotol.server.offering import Entry, models_in, offer, read_models

WHOLE = """
[[models]]
name = "small"
path = "smollm2"
aliases = ["gpt-4o-mini", "b"]
keep_alive = "10m"
options = { ctx = 2048, threads = 2 }
sampling = { temperature = 0.2 }

[[models]]
path = "beside/m.gguf"
keep_alive = -1
"""


def test_a_file_of_models(tmp_path: Path) -> None:
    file, beside = tmp_path / "models.toml", tmp_path / "beside" / "m.gguf"
    beside.parent.mkdir()
    beside.touch()
    file.write_text(WHOLE)
    assert read_models(file) == [
        Entry(name="small", path="smollm2", aliases=("gpt-4o-mini", "b"), keep_alive=600.0,
              options={"ctx": 2048, "threads": 2}, sampling={"temperature": 0.2}),
        Entry(name="m", path=str(beside), keep_alive=math.inf),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it must have [[models]], each with name and path, and nothing else"),
        ("models = []", "it must have [[models]]"),
        ("[models]\nname = 'a'", "it must have [[models]]"),
        ("x = 1\n[[models]]\npath = 'a'", "and nothing else"),
        ("models = [5]", "models[0] is no table"),
        ("[[models]]\nname = 'a'", "models[0].path must be a text"),
        ("[[models]]\npath = 'a'\n[[models]]\npath = 5", "models[1].path must be a text"),
        ("[[models]]\npath = 'a'\nname = ''", "models[0].name must be a text"),
        ("[[models]]\npath = 'a'\nalias = 'b'", "models[0] has alias: it may have name, path, aliases"),
        ("[[models]]\npath = 'a'\naliases = 'b'", "models[0].aliases must be a list of texts"),
        ("[[models]]\npath = 'a'\naliases = [5]", "models[0].aliases must be a list of texts"),
        ("[[models]]\npath = 'a'\nkeep_alive = 'soon'", "models[0].keep_alive must be seconds"),
        ("[[models]]\npath = 'a'\nkeep_alive = true", "models[0].keep_alive must be seconds"),
        ("[[models]]\npath = 'a'\noptions = 5", "models[0].options must be a table"),
        ("[[models]", "Expected"),
    ],
)
def test_files_that_are_none(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(text)
    with pytest.raises(FormatError, match=re.escape(said)):
        read_models(file)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(SotolError, match="no such file"):
        read_models(tmp_path / "none")
    (tmp_path / "large").write_text("#" * (1 << 21))
    with pytest.raises(FormatError, match="more than 1 MiB"):
        read_models(tmp_path / "large")
    (tmp_path / "latin").write_bytes(b"x = '\xff'")
    with pytest.raises(FormatError, match="latin"):
        read_models(tmp_path / "latin")


def test_a_folder_of_models(tmp_path: Path) -> None:
    for name in (
        "b.gguf",
        "A.GGUF",
        "s-00001-of-00002.gguf",
        "s-00002-of-00002.gguf",
        "README.md",
        "of-00001.gguf",
        "imatrix.gguf",
        "b.mmproj-f16.gguf",
    ):
        (tmp_path / name).touch()
    for name in ("folder", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "config.json").touch()
    assert models_in(tmp_path) == {
        "A": str(tmp_path / "A.GGUF"), "b": str(tmp_path / "b.gguf"), "folder": str(tmp_path / "folder"),
        "of-00001": str(tmp_path / "of-00001.gguf"), "s": str(tmp_path / "s-00001-of-00002.gguf"),
    }  # fmt: skip
    with pytest.raises(SotolError, match="has no model"):
        models_in(tmp_path / "empty")
    with pytest.raises(SotolError, match="no such file"):
        models_in(tmp_path / "none")


def test_what_becomes_of_an_entry(tmp_path: Path) -> None:
    path = tiny_model(tmp_path)
    entry = Entry(name="m", path=str(path), options={"ctx": 32}, sampling={"temperature": 0.5}, keep_alive=5.0)
    offered = offer(entry, {"threads": 1, "ctx": 64})
    assert (offered.name, offered.path, offered.keep_alive) == ("m", path, 5.0)
    assert offered.sampling == {"temperature": 0.5}
    [seen] = Models([offered])
    assert (seen.sampling, seen.status, seen.path) == (Sampling(temperature=0.5), "unloaded", path)
    assert offered.size() > path.stat().st_size
    with offered.load(lambda *_: None) as llm:
        assert (llm.context, llm.threads, llm.memory) == (32, 1, offered.size())


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        (Entry(name="m", path="no/such.gguf"), ModelNotFoundError, "no model 'no/such.gguf'"),
        (Entry(name="m", path="smollm2", options={"contex": 5}), TypeError, "no option 'contex'"),
        (Entry(name="m", path="smollm2", options={"ctx": "x"}), ValueError, "ctx is 'x'"),
        (Entry(name="m", path="smollm2", sampling={"warmth": 5}), ValueError, "unknown sampling option 'warmth'"),
        (Entry(name=" m", path="smollm2"), ValueError, "can't be a model's name"),
    ],
)
def test_entries_that_can_not_be(entry: Entry, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        offer(entry, {})
