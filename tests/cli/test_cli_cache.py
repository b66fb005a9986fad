"""`sotol cache`: what is kept, how large it is, and that it goes."""

import json
import os
from pathlib import Path

import platformdirs
import pytest
from tests.cli.conftest import Sotol

from sotol.backends.cpu.building.sources import source_digest
from sotol.catalog import find_model


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of kernels that this version uses, and of others."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    folder = tmp_path / "sotol" / "kernels"
    for sources, level, sizes in ((source_digest(), "avx2", (1000, 500)), ("0123", "generic", (7,))):
        (folder / sources / level).mkdir(parents=True)
        for i, size in enumerate(sizes):
            (folder / sources / level / f"{i}.o").write_bytes(bytes(size))
    return folder


def test_json(kernels: Path, sotol: Sotol) -> None:
    record = json.loads(sotol("cache", "--json").stdout)
    assert record["kernels"] == [
        {"path": str(kernels / source_digest() / "avx2"), "sources": source_digest(), "level": "avx2", "files": 2,
         "bytes": 1500, "current": True},
        {"path": str(kernels / "0123" / "generic"), "sources": "0123", "level": "generic", "files": 1, "bytes": 7,
         "current": False},
    ]  # fmt: skip
    model = find_model("smollm2")
    assert record["models"] == [{"name": "smollm2", "path": str(model), "bytes": model.stat().st_size}]


def test_table(kernels: Path, sotol: Sotol) -> None:
    lines = [line.split() for line in sotol("cache").stdout.splitlines()]
    assert lines[1] == ["avx2", "1.5", "kB", "2", "in", "use", str(kernels / source_digest() / "avx2")]
    assert lines[2][:3] == ["generic", "7", "B"]
    assert lines[-1] == ["smollm2", "98.36", "MB", str(find_model("smollm2"))]


def test_other_versions_take_a_line(kernels: Path, sotol: Sotol) -> None:
    """However many there were; --json has each."""
    for sources in ("4567", "89ab"):
        (kernels / sources / "vnni").mkdir(parents=True)
        (kernels / sources / "vnni" / "0.o").write_bytes(bytes(10))
    lines = [line.split() for line in sotol("cache").stdout.splitlines()]
    assert lines[1][0] == "avx2"
    assert lines[2] == ["3", "more", "27", "B", "3", "of", "other", "versions", str(kernels)]
    assert len(json.loads(sotol("cache", "--json").stdout)["kernels"]) == 4


def test_clearing(kernels: Path, sotol: Sotol) -> None:
    keep = kernels.parent / "something else"
    keep.touch()
    assert sotol("cache", "clear").stdout == "removed 3 kernels, 1.507 kB\n"
    assert list(kernels.parent.iterdir()) == [keep]
    assert sotol("cache", "clear").stdout == "removed 0 kernels, 0 B\n"
    assert json.loads(sotol("cache", "--json").stdout)["kernels"] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_cache_that_is_not_ours(kernels: Path, sotol: Sotol) -> None:
    kernels.chmod(0)
    try:
        for action in ("show", "clear"):
            result = sotol("cache", action)
            assert (result.exit_code, result.stdout) == (1, "")
            assert result.stderr.startswith("sotol: the folder of compiled kernels can't be ")
    finally:
        kernels.chmod(0o700)
