"""What a hostile Hub may say, and what somebody may have put into the cache: refused, and nothing is left."""

from pathlib import Path
from typing import Any

import pytest
from tests.hub.conftest import FOUR, left
from tests.support.hub import COMMIT, FakeHub, digest_of

from sotol.errors import FormatError, SotolError
from sotol.hub import pull


def change(said: dict[str, Any], **fields: object) -> dict[str, Any]:
    """The answer with other fields of the only model's file."""
    for sibling in said["siblings"]:
        if sibling["rfilename"] == FOUR:
            sibling.update(fields)
    return said


@pytest.mark.parametrize(
    "path",
    ["../../../x.Q4_K_M.gguf", "/tmp/x.Q4_K_M.gguf", "a/../../x.Q4_K_M.gguf", "a\\x.Q4_K_M.gguf", "C:x.Q4_K_M.gguf"],
)
def test_names_that_lead_out(path: str, hub: FakeHub, cache: Path, tmp_path: Path) -> None:
    hub.told = lambda said: change(said, rfilename=path)
    before = set(tmp_path.glob("*"))
    with pytest.raises(FormatError, match="which can't be a file of a repository"):
        pull("org/ggufs:Q4_K_M")
    assert left(cache) == {}
    assert set(tmp_path.glob("*")) - before <= {cache}
    assert hub.bodies == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"lfs": {"size": 4000, "sha256": "../../../../x"}},
        {"lfs": {"size": 4000, "sha256": "A" * 64}},
        {"lfs": {"size": 4000}},
        {"lfs": {"size": -1, "sha256": "a" * 64}},
        {"lfs": {"size": "4000", "sha256": "a" * 64}},
        {"lfs": None, "blobId": None},
        {"lfs": 5, "size": None},
    ],
)
def test_facts_that_check_nothing(fields: dict[str, Any], hub: FakeHub, cache: Path) -> None:
    hub.told = lambda said: change(said, **fields)
    with pytest.raises(FormatError, match="no size or hash"):
        pull("org/ggufs:Q4_K_M")
    assert left(cache) == {}


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        {"sha": "../x", "siblings": []},
        {"sha": COMMIT},
        {"sha": COMMIT, "siblings": {}},
        {"sha": COMMIT[1:], "siblings": []},
    ],
)
def test_answers_of_no_hub(said: Any, hub: FakeHub) -> None:
    hub.told = lambda _: said
    with pytest.raises(SotolError, match="does not speak the Hub's API"):
        pull("org/ggufs")


def test_entries_that_are_none(hub: FakeHub) -> None:
    hub.told = lambda said: {**said, "siblings": [None, 5, {}, {"rfilename": 5}, *said["siblings"]]}
    assert pull("org/ggufs").path.is_file()


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://x/y", "http://", "http://[::1", "data:,x", "http://a b/"]
)
def test_redirects_to_no_address(location: str, hub: FakeHub, cache: Path) -> None:
    hub.location = location
    with pytest.raises(SotolError, match=r"no address|leads to 8 addresses|pull it again"):
        pull("org/ggufs")
    assert left(cache) == {}


def test_redirects_without_end(hub: FakeHub) -> None:
    hub.location = f"{hub.endpoint}/org/ggufs/resolve/main/{FOUR}"
    with pytest.raises(SotolError, match="leads to 8 addresses, one after the other"):
        pull("org/ggufs")


def test_a_link_in_the_partial_files_place(hub: FakeHub, cache: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("keep me")
    blobs = cache / "models--org--ggufs" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest_of(FOUR, hub.files['org/ggufs'][FOUR])}.incomplete").symlink_to(mine)
    with pytest.raises(SotolError, match="pulling org/ggufs"):
        pull("org/ggufs:Q4_K_M")
    assert mine.read_text() == "keep me"
