"""The cache: what is in it, and removing models from it."""

import os
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir
from tests.support.hub import COMMIT, OTHER_COMMIT, FakeHub, digest_of

from sotol.hub import HubName, Pulled, find_pulled, pull, pulled, remove
from sotol.hub.places import HUB, places


def blobs(cache: Path, repo: str) -> set[str]:
    return {path.name for path in (cache / f"models--org--{repo}" / "blobs").glob("*")}


def only(cache: Path, name: str) -> Pulled:
    [model] = [model for model in pulled(cache) if model.name == name]
    return model


def test_what_is_there(hub: FakeHub, cache: Path) -> None:
    assert pulled(cache) == []
    for name in ("org/ggufs:bf16", "org/ggufs", "org/tensors"):
        pull(name)
    found = pulled(cache)
    assert [(model.name, model.label, model.bytes) for model in found] == [
        ("org/ggufs:BF16", "BF16", 800),
        ("org/ggufs:Q4_K_M", "Q4_K_M", 4000),
        ("org/tensors", "safetensors", 600 + 2 + 2 + 13),
    ]
    os.utime(found[1].path, (1e9, 1e9))
    assert only(cache, "org/ggufs:Q4_K_M").used == 1e9
    (cache / "datasets--org--x" / "snapshots").mkdir(parents=True)
    (cache / "models--org--empty").mkdir()
    assert len(pulled(cache)) == len(found)
    assert hub.files  # nothing was asked of it


def test_what_is_not_whole(hub: FakeHub, cache: Path) -> None:
    """A part of a split model, weights without a file, a link to nothing."""
    model = pull("org/ggufs:bf16")
    model.files[1].unlink()
    assert find_pulled(cache, HubName("org/ggufs")) is None
    pull("org/tensors")
    data = hub.files["org/tensors"]["model-00002-of-00002.safetensors"]
    (cache / "models--org--tensors" / "blobs" / digest_of("x.safetensors", data)).unlink()
    assert pulled(cache) == []
    assert pull("org/ggufs:bf16").files[1].is_file()
    assert pull("org/tensors").path.is_dir()


def test_removing(hub: FakeHub, cache: Path) -> None:
    for name in ("org/ggufs:bf16", "org/ggufs", "org/tensors"):
        pull(name)
    assert remove(cache, only(cache, "org/ggufs:BF16")) == 800
    assert [model.name for model in pulled(cache)] == ["org/ggufs:Q4_K_M", "org/tensors"]
    assert blobs(cache, "ggufs") == {digest_of("x.gguf", b"four" * 1000)}
    assert not (cache / "models--org--ggufs" / "snapshots" / COMMIT / "big").exists()
    assert not scan_cache_dir(cache).warnings
    assert remove(cache, only(cache, "org/ggufs:Q4_K_M")) == 4000
    assert not (cache / "models--org--ggufs").exists()
    assert not (cache / ".locks" / "models--org--ggufs").exists()
    assert hub.files


def test_removing_from_all_snapshots(hub: FakeHub, cache: Path) -> None:
    """A file that another name needs stays, and a reference to a commit that is gone goes."""
    same = hub.files["org/ggufs"]["model.Q8_0.gguf"]
    pull("org/ggufs@v1:Q8_0")
    hub.commit = OTHER_COMMIT
    hub.files["org/ggufs"]["copy.Q6_K.gguf"] = same
    pull("org/ggufs:Q8_0")
    pull("org/ggufs:Q6_K")
    assert remove(cache, only(cache, "org/ggufs:Q8_0")) == 0
    assert [model.name for model in pulled(cache)] == ["org/ggufs:Q6_K"]
    assert [path.name for path in (cache / "models--org--ggufs" / "refs").iterdir()] == ["main"]
    assert not scan_cache_dir(cache).warnings
    assert remove(cache, only(cache, "org/ggufs:Q6_K")) == len(same)


def test_what_others_put_there_stays(hub: FakeHub, cache: Path) -> None:
    model = pull("org/ggufs")
    (model.path.parent / "README.md").write_text("mine")
    remove(cache, model)
    assert (model.path.parent / "README.md").read_text() == "mine"
    assert not scan_cache_dir(cache).warnings
    assert hub.files


def test_files_without_links(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that have none: the snapshot has copies."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    model = pull("org/ggufs")
    assert not model.path.is_symlink()
    assert model.path.read_bytes() == hub.files["org/ggufs"][model.path.name]
    remove(cache, model)
    assert not (cache / "models--org--ggufs").exists()


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE",
                 "TRANSFORMERS_OFFLINE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert places() == (Path("/home/me/.cache/huggingface/hub"), HUB, False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert places().cache == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "~/h")
    assert places().cache == Path("/home/me/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "$HF_HOME/c")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror/")
    monkeypatch.setenv("HF_HUB_OFFLINE", "True")
    assert places() == (Path("/home/me/h/c"), "https://mirror", True)
