"""Pulling from a Hub that behaves, and from one that does not: whole models or errors, and the standard cache."""

import errno
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hub.conftest import FOUR, left
from tests.support.hub import COMMIT, OTHER_COMMIT, FakeHub, digest_of
from tests.support.serving import until

from sotol.catalog import find_model
from sotol.errors import ModelNotFoundError, NotPulledError, SotolError
from sotol.hub import HubName, available, find_pulled, pull, pulled, transfer


def test_a_model_by_its_encoding(hub: FakeHub, cache: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    said: list[str] = []
    model = pull("org/ggufs", progress=lambda *state: seen.append(state), note=said.append)
    data = hub.files["org/ggufs"][FOUR]
    assert model.path == cache / "models--org--ggufs" / "snapshots" / COMMIT / FOUR
    assert model.path.read_bytes() == data
    assert (model.name, model.bytes, model.commit) == ("org/ggufs:Q4_K_M", len(data), COMMIT)
    assert model.path.readlink() == Path(f"../../blobs/{digest_of(FOUR, data)}")
    assert (cache / "models--org--ggufs" / "refs" / "main").read_text() == COMMIT
    assert seen[-1] == (FOUR, len(data), len(data))
    assert said == ["org/ggufs: Q4_K_M is taken; there are also BF16, Q8_0"]
    assert find_model("org/ggufs") == find_model("hf:org/ggufs:q4_k_m") == model.path
    assert list(left(cache / "models--org--ggufs" / "snapshots")) == [f"{COMMIT}/{FOUR}"]


def test_split_files_and_folders(hub: FakeHub, cache: Path) -> None:
    split = pull("org/ggufs:bf16")
    assert [path.name for path in split.files] == [f"model-BF16-0000{n}-of-00002.gguf" for n in (1, 2)]
    assert split.path == split.files[0]
    tensors = pull("hf.co/org/tensors")
    assert find_model("org/tensors") == tensors.path == cache / "models--org--tensors" / "snapshots" / COMMIT
    assert sorted(path.name for path in tensors.path.iterdir()) == [
        "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "tokenizer.json",
    ]  # fmt: skip
    for path in tensors.files:
        assert path.read_bytes() == hub.files["org/tensors"][path.name]


def test_what_is_there_is_not_fetched_again(hub: FakeHub) -> None:
    pull("org/ggufs:Q4_K_M")
    bodies = hub.bodies
    assert pull("org/ggufs:Q4_K_M") == pull("org/ggufs@v1:Q4_K_M")
    assert hub.bodies == bodies
    assert find_model("org/ggufs@v1").is_file()
    with pytest.raises(NotPulledError):
        find_model("org/ggufs@v2")


def test_a_new_commit(hub: FakeHub, cache: Path) -> None:
    """The unchanged file is linked, the new one fetched; what only the old commit has stays to be found."""
    pull("org/ggufs:Q4_K_M")
    old = pull("org/ggufs:Q8_0")
    hub.commit, hub.files["org/ggufs"][FOUR] = OTHER_COMMIT, b"new"
    new = pull("org/ggufs:Q4_K_M")
    assert (new.path.read_bytes(), new.commit) == (b"new", OTHER_COMMIT)
    assert find_model("org/ggufs") == new.path
    assert find_model("org/ggufs:Q8_0") == old.path
    assert find_model(f"org/ggufs@{COMMIT}:Q4_K_M").read_bytes() == b"four" * 1000
    assert [model.name for model in pulled(cache)] == ["org/ggufs:Q4_K_M", "org/ggufs:Q8_0"]


def test_another_branch(hub: FakeHub) -> None:
    """A name without a revision is the main branch's, also where another was pulled later."""
    main = pull("org/ggufs:Q4_K_M")
    hub.commit = OTHER_COMMIT
    other = pull("org/ggufs@v1:Q4_K_M")
    assert find_model("org/ggufs") == main.path != other.path
    assert find_model("org/ggufs@v1") == other.path


def test_what_there_is_to_pull(hub: FakeHub) -> None:
    listing = available("org/ggufs@v1")
    assert [(choice.label, choice.size) for choice in listing.choices] == [
        ("BF16", 800), ("Q4_K_M", 4000), ("Q8_0", 10000),
    ]  # fmt: skip
    assert (listing.commit, hub.bodies) == (COMMIT, 0)


def test_not_pulled(hub: FakeHub) -> None:
    del hub
    with pytest.raises(NotPulledError, match="`sotol pull org/ggufs` gets it") as error:
        find_model("org/ggufs")
    assert error.value.name == "org/ggufs"
    pull("org/ggufs:Q8_0")
    with pytest.raises(NotPulledError, match=r"has no Q4_K_M: it has Q8_0; `sotol pull org/ggufs:Q4_K_M` gets it"):
        find_model("org/ggufs:Q4_K_M")
    with pytest.raises(ModelNotFoundError, match="org/ggufs has no Q5_K_M: it has BF16, Q4_K_M, Q8_0"):
        pull("org/ggufs:Q5_K_M")
    for name in ("model.gguf", HubName("../../x"), HubName("org/ggufs", "", "../x")):
        with pytest.raises(ValueError, match=r"is no (name of a model|revision)"):
            pull(name)


# ---- who may


def test_private_and_gated(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    with pytest.raises(SotolError, match=r"knows no model org/ggufs: check the name; a private one needs a token"):
        pull("org/ggufs")
    with pytest.raises(SotolError, match="or the token may not see it"):
        pull("org/ggufs", token="hf_other")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert pull("org/ggufs").path.is_file()
    hub.gated.add("org/tensors")
    with pytest.raises(
        SotolError, match=r"org/tensors is gated: ask for access at http://127\.0\.0\.1:\d+/org/tensors,"
    ):
        pull("org/tensors")


def test_the_token_goes_nowhere_else(hub: FakeHub) -> None:
    pull("org/ggufs", token="hf_secret")
    sent = {(path.startswith("/cdn/"), headers.get("authorization")) for _, path, headers in hub.asked}
    assert sent == {(False, "Bearer hf_secret"), (True, None)}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/nothing", "knows no model org/nothing"),
        ("org/ggufs@v9", "org/ggufs@v9: the repository has no such revision"),
    ],
)
def test_what_the_hub_does_not_have(name: str, said: str, hub: FakeHub) -> None:
    del hub
    with pytest.raises(SotolError, match=said):
        pull(name)


@pytest.mark.parametrize(("status", "said"), [(500, "can't be reached: .*HTTP 500"), (418, "refuses, with HTTP 418")])
def test_a_hub_in_trouble(status: int, said: str, hub: FakeHub) -> None:
    hub.status = status
    with pytest.raises(SotolError, match=said):
        pull("org/ggufs")


def test_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    there = pull("org/ggufs")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.asked)
    assert pull("org/ggufs") == there
    for action in (pull, available):
        with pytest.raises(SotolError, match="HF_HUB_OFFLINE says to stay offline"):
            action("org/tensors")
    assert len(hub.asked) == asked


def test_a_link_that_expires(hub: FakeHub) -> None:
    """Where a file lies says no: asked again, the Hub gives another link."""
    hub.refusals = 2
    assert pull("org/ggufs:Q4_K_M").path.is_file()
    hub.refusals = 99
    with pytest.raises(SotolError, match="HTTP 403; pull it again to go on from 0 bytes"):
        pull("org/ggufs:Q8_0")


def test_nobody_there(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SotolError, match=r"http://127\.0\.0\.1:9 can't be reached"):
        pull("org/ggufs")
    monkeypatch.setenv("HF_ENDPOINT", "mirror")
    with pytest.raises(SotolError, match="HF_ENDPOINT is 'mirror'"):
        pull("org/ggufs")
    assert hub.asked == []


# ---- what goes wrong on the way


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 700), max_size=6), ranges=st.booleans(), begun=st.integers(0, 700))
def test_a_connection_that_breaks_at_any_byte(
    cuts: list[int], ranges: bool, begun: int, hub: FakeHub, cache: Path
) -> None:
    """It ends with the whole file, or with an error and nothing that has the file's name; another try ends it."""
    shutil.rmtree(cache, ignore_errors=True)
    data = bytes(range(256)) * 2 + b"end"
    hub.files["org/cut"] = {"m.gguf": data}
    hub.ranges, first = ranges, hub.bodies
    hub.cut = lambda number: dict(enumerate(cuts)).get(number - first)
    blobs = cache / "models--org--cut" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest_of('m.gguf', data)}.incomplete").write_bytes((data + b"too much" * 30)[:begun])
    try:
        model = pull("org/cut")
    except SotolError:
        assert left(cache) == {}
        hub.cut = lambda _: None
        model = pull("org/cut")
    assert model.path.read_bytes() == data
    assert list(blobs.iterdir()) == [blobs / digest_of("m.gguf", data)]


def test_it_goes_on_where_it_was_cut(hub: FakeHub, cache: Path, quick: list[float]) -> None:
    hub.cut = lambda number: 1000 if number < 2 else 0
    with pytest.raises(SotolError, match="pull it again to go on from 2000 bytes"):
        pull("org/ggufs:Q4_K_M")
    assert quick == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert left(cache) == {}
    hub.cut = lambda _: None
    assert pull("org/ggufs:Q4_K_M").path.read_bytes() == hub.files["org/ggufs"][FOUR]
    assert hub.sent_bytes()[-1] == "bytes=2000-"


def test_a_process_that_is_killed(hub: FakeHub, cache: Path) -> None:
    """With what had come by then the next one goes on."""
    hub.hold, hub.before_hold = threading.Event(), 1500
    process = subprocess.Popen([sys.executable, "-m", "sotol", "pull", "org/ggufs:Q4_K_M"], stdout=subprocess.PIPE)
    try:
        partial = cache / "models--org--ggufs" / "blobs" / f"{digest_of(FOUR, hub.files['org/ggufs'][FOUR])}.incomplete"
        until(lambda: partial.exists() and partial.stat().st_size == 1500)
        process.kill()
        assert process.communicate(timeout=60)[0] == b""
    finally:
        process.kill()
        hub.hold.set()
    assert left(cache) == {}
    assert pull("org/ggufs:Q4_K_M").path.read_bytes() == hub.files["org/ggufs"][FOUR]
    assert hub.sent_bytes()[-1] == "bytes=1500-"


@pytest.mark.parametrize("where", [0, 1999, 3999])
def test_other_bytes_than_announced(where: int, hub: FakeHub, cache: Path) -> None:
    hub.spoil = lambda data: data[:where] + b"?" + data[where + 1 :]
    with pytest.raises(SotolError, match="has another hash than the Hub says, and is gone"):
        pull("org/ggufs:Q4_K_M")
    assert left(cache) == {}
    hub.spoil = lambda data: data
    assert pull("org/ggufs:Q4_K_M").path.read_bytes() == hub.files["org/ggufs"][FOUR]


def test_a_file_in_git_is_checked_too(hub: FakeHub, cache: Path) -> None:
    hub.spoil = lambda data: data.replace(b"{}", b"[]")
    with pytest.raises(SotolError, match=r"config\.json: what came has another hash"):
        pull("org/tensors")
    assert left(cache) == {}


def test_a_beginning_that_is_not_the_files(hub: FakeHub, cache: Path) -> None:
    blobs = cache / "models--org--ggufs" / "blobs"
    blobs.mkdir(parents=True)
    partial = blobs / f"{digest_of(FOUR, hub.files['org/ggufs'][FOUR])}.incomplete"
    partial.write_bytes(b"something else")
    with pytest.raises(SotolError, match="another hash"):
        pull("org/ggufs:Q4_K_M")
    assert pull("org/ggufs:Q4_K_M").path.is_file()


def test_a_file_of_another_size_in_its_place(hub: FakeHub, cache: Path) -> None:
    """As what others do to a cache may leave it."""
    model = pull("org/ggufs:Q4_K_M")
    model.path.resolve().write_bytes(b"cut")
    assert pull("org/ggufs:Q4_K_M").path.read_bytes() == hub.files["org/ggufs"][FOUR]
    assert len(left(cache)) == 2


@pytest.mark.parametrize("more", [b"more", b""])
def test_more_or_less_than_announced(more: bytes, hub: FakeHub, cache: Path) -> None:
    hub.spoil = lambda data: data + more if more else data[:-1]
    with pytest.raises(
        SotolError, match="sends more than the 4000 bytes" if more else "the Hub says 4000 bytes, and has 3999"
    ):
        pull("org/ggufs:Q4_K_M")
    assert left(cache) == {}


@pytest.mark.parametrize("after", [0, 1, 1500])
def test_a_full_disk(after: int, hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quota ends within a write; what was written of it counts for nothing, what came before stays."""
    written = 0

    def write(out: FileIO, data: bytes) -> None:
        nonlocal written
        room = after - written
        written += out.write(data[: max(room, 0)]) or 0
        if room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "write_all", write)
        with pytest.raises(SotolError, match="the disk is full: free 4000 bytes, and pull it again"):
            pull("org/ggufs:Q4_K_M")
    assert left(cache) == {}
    assert pull("org/ggufs:Q4_K_M").path.read_bytes() == hub.files["org/ggufs"][FOUR]


def test_too_little_room_is_known_before(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 5000, 5000))
    with pytest.raises(SotolError, match=r"8096 bytes are to come, and the disk of .* has 5000 free"):
        pull("org/ggufs:Q4_K_M")
    assert hub.bodies == 0


def test_two_at_once(hub: FakeHub, cache: Path) -> None:
    """One fetches, the other waits and finds it."""
    hub.hold = threading.Event()
    said: list[str] = []
    found: list[Path] = []

    def one() -> None:
        found.append(pull("org/ggufs:Q4_K_M", note=said.append).path)
        assert found[-1].read_bytes() == hub.files["org/ggufs"][FOUR]

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not said:
        threads[0].join(0.01)
    hub.hold.set()
    for thread in threads:
        thread.join(30)
    assert len(set(found)) == 1
    assert len(found) == 2
    assert said == [f"{FOUR}: another process is pulling it: waiting"]
    assert (hub.bodies, list(left(cache / "models--org--ggufs" / "blobs"))) == (1, [digest_of(FOUR, b"four" * 1000)])


# ---- huggingface_hub's cache


@pytest.fixture
def same_hub(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What huggingface_hub takes, which has read its environment when it was imported."""
    del monkeypatch
    with mock.patch("huggingface_hub.constants.HF_HUB_CACHE", str(cache)):
        yield {"cache_dir": cache, "endpoint": hub.endpoint}


def test_huggingface_hub_finds_what_was_pulled(hub: FakeHub, cache: Path, same_hub: dict[str, Any]) -> None:
    model = pull("org/ggufs:Q4_K_M")
    pull("org/ggufs@v1:bf16")
    bodies = hub.bodies
    assert try_to_load_from_cache("org/ggufs", FOUR, cache_dir=cache) == str(model.path)
    assert hf_hub_download("org/ggufs", FOUR, **same_hub) == str(model.path)
    assert hub.bodies == bodies
    info = scan_cache_dir(cache)
    assert not info.warnings
    [repo] = info.repos
    assert (repo.repo_id, repo.nb_files) == ("org/ggufs", 3)
    assert {ref for revision in repo.revisions for ref in revision.refs} == {"main", "v1"}


def test_what_huggingface_hub_pulled_is_found(hub: FakeHub, cache: Path, same_hub: dict[str, Any]) -> None:
    path = hf_hub_download("org/ggufs", FOUR, **same_hub)
    assert str(find_model("org/ggufs:Q4_K_M")) == path
    bodies = hub.bodies
    assert str(pull("org/ggufs:Q4_K_M").path) == path
    assert hub.bodies == bodies
    found = find_pulled(cache, HubName("org/ggufs"))
    assert found is not None
    assert found.name == "org/ggufs:Q4_K_M"


def test_a_failed_pull_leaves_a_cache_in_order(hub: FakeHub, cache: Path) -> None:
    hub.cut = lambda _: 10
    hub.ranges = False
    with pytest.raises(SotolError):
        pull("org/ggufs:Q4_K_M")
    info = scan_cache_dir(cache)
    assert not info.warnings
    assert pulled(cache) == []
