"""Files that are there whole or not at all."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sotol.errors import SotolError
from sotol.formats.whole_file import WholeFile, check_room, whole_folder


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with WholeFile(path) as file:
        file.write(b"after", np.frombuffer(b"wards", np.uint8))
        file.seek(0)
        file.write(b"A")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"Afterwards"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    def interrupted() -> None:
        with WholeFile(tmp_path / "a") as file:
            file.write(b"after")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_no_file_takes_the_place_of_a_device(tmp_path: Path) -> None:
    """Whoever may write to the folder of devices would replace them."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "null"):
        with pytest.raises(SotolError, match=f"{name}: is a device or a pipe: give the path of a file"):
            WholeFile(tmp_path / name)
    with pytest.raises(SotolError, match="is a folder"):
        WholeFile(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "null"}


def test_what_the_system_refuses_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SotolError, match=r"writing .*/none/a: No such file or directory"):
        WholeFile(tmp_path / "none" / "a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_disk_that_becomes_full(tmp_path: Path) -> None:
    (tmp_path / f"a.{os.getpid()}.partial").symlink_to("/dev/full")
    with (
        pytest.raises(SotolError, match=f"writing .*/a: {os.strerror(errno.ENOSPC)}"),
        WholeFile(tmp_path / "a") as file,
    ):
        file.write(bytes(1 << 20))
    assert not list(tmp_path.iterdir())


class Usage(NamedTuple):
    free: int


def test_room_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(3_000_000))
    check_room(tmp_path / "a", [1_000_000, 2_000_000])
    with pytest.raises(SotolError, match="a: would have 4 MB, and its disk has 3 MB free: make room for it"):
        check_room(tmp_path / "a", [1_000_000, 3_000_000])


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "m") as folder:
        (folder / "config.json").write_text("{}")
        assert not (tmp_path / "m").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    with whole_folder(tmp_path / "m", replace=True) as folder:
        (folder / "config.json").write_text("[]")
        assert (tmp_path / "m" / "config.json").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m" / "config.json").read_text() == "[]"


def test_nothing_is_left_of_a_folder_after_an_error(tmp_path: Path) -> None:
    def interrupted() -> None:
        with whole_folder(tmp_path / "m") as folder:
            (folder / "config.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["notes.org", "photos/", ".git/"])
def test_a_folder_with_anything_else_is_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("mine")
    with pytest.raises(SotolError, match="has more than a model's files"), whole_folder(tmp_path, replace=True):
        pass
    with pytest.raises(SotolError, match="is there already"), whole_folder(tmp_path):
        pass
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with whole_folder(tmp_path / "m") as folder:
        (folder / "config.json").write_text("{}")
    assert (tmp_path / "m" / "config.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="processes can't be asked for there")
def test_what_a_killed_run_left_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, other = tmp_path / f"a.{gone.pid}.partial", tmp_path / f"b.{gone.pid}.partial"
    runs, folder = tmp_path / f"a.{os.getppid()}.partial", tmp_path / f"f.{gone.pid}.old"
    for path in (left, other, runs, tmp_path / "a.partial", tmp_path / "a.1x.partial"):
        path.write_bytes(b"")
    folder.mkdir()
    with WholeFile(tmp_path / "a"), whole_folder(tmp_path / "f"):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        f"{left} is left of a run that was killed: it can be removed",
        f"{folder} is what was at {tmp_path / 'f'} before a run that was killed: rename it, or remove it",
    ]
    assert left.exists()
    assert folder.exists()
