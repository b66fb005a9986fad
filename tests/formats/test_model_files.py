"""A model's file while it is loaded: other kinds of files are refused, and a change is an error, not a crash."""

import gc
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sotol.errors import FormatError, ModelNotFoundError, SotolError
from sotol.formats import Weight, read_gguf, write_gguf
from sotol.formats.files import ModelFile, copy_bytes, files_of, in_memory

NUMBERS = np.arange(4096, dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    write_gguf(path, {"n": 1}, [Weight.from_values(name, NUMBERS, "F32") for name in ("a", "b")])
    os.utime(path, (1, 1))  # so that any later write changes it
    return path


def open_descriptors(path: Path) -> int:
    """How many times this process has the file open."""
    return [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()].count(path)


# ---- not a regular file


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    said: list[str] = []

    def read() -> None:
        with pytest.raises(FormatError) as caught:
            read_gguf(pipe)
        said.append(str(caught.value))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert said == [f"{pipe}: is not a regular file"]


def test_devices_sockets_and_folders(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.gguf"))
        for path in (Path("/dev/null"), Path("/dev/zero"), tmp_path / "socket.gguf"):
            with pytest.raises(FormatError, match=f"^{path}: is not a regular file$"):
                read_gguf(path)
    with pytest.raises(FormatError, match=f"^{tmp_path}: is a folder"):
        read_gguf(tmp_path)


@pytest.mark.parametrize("name", ["", "a\0b.gguf", "\ud800.gguf", "x" * 5000, "\udc80", "none.gguf", "model.gguf/x"])
def test_names_that_are_none(path: Path, name: str) -> None:
    with pytest.raises(SotolError):
        read_gguf(path.parent / name)


def test_a_file_that_is_missing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no such file") as caught:
        read_gguf(tmp_path / "none.gguf")
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(path: Path) -> None:
    path.chmod(0)
    with pytest.raises(SotolError, match=r"opening .*model.gguf: Permission denied"):
        read_gguf(path)


@pytest.mark.parametrize("kind", ["missing", "a pipe"])
def test_parts_that_are_no_files(tmp_path: Path, kind: str) -> None:
    weights = [Weight.from_values(name, NUMBERS, "F32") for name in "ab"]
    first, second = write_gguf(tmp_path / "m.gguf", {}, weights, part_bytes=1)
    second.unlink()
    if kind == "a pipe":
        os.mkfifo(second)
    with pytest.raises(FormatError, match=rf"{second.name}.* is (missing|not a regular file)"):
        read_gguf(first)


# ---- changed while loading


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"abcd")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, (1, 1))
    other.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "overwritten": overwrite,
    "cut short": lambda path: os.truncate(path, 100),
    "longer": lambda path: os.truncate(path, 1 << 20),
    "replaced": replace,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(path: Path, change: str) -> None:
    (file,) = files_of(read_gguf(path).weights.values())
    file.check()
    CHANGES[change](path)
    with pytest.raises(FormatError, match=r"model.gguf: was changed while it was read"):
        file.check()


def test_a_file_that_is_deleted_is_read_to_its_end(path: Path) -> None:
    weights = read_gguf(path).weights
    path.unlink()
    files_of(weights.values())[0].check()
    np.testing.assert_array_equal(in_memory(weights["b"]).decode(), NUMBERS)


def test_bytes_that_are_gone_are_an_error_and_no_crash(path: Path) -> None:
    weights = read_gguf(path).weights
    os.truncate(path, 10_000)
    with pytest.raises(FormatError, match="was changed while it was read"):
        in_memory(weights["b"])


def test_rows_that_lie_apart(path: Path) -> None:
    """Columns of a matrix, of a file and of memory; if some of them are gone, that is an error."""
    file = ModelFile.open(path)
    whole = np.frombuffer(file, np.uint8)[: 200 * 80].reshape(200, 80)
    part, again = np.empty((200, 7), np.uint8), np.empty((200, 7), np.uint8)
    copy_bytes(whole[:, 30:37], part)
    copy_bytes(part, again)
    np.testing.assert_array_equal(
        part, np.frombuffer(path.read_bytes()[: 200 * 80], np.uint8).reshape(200, 80)[:, 30:37]
    )
    np.testing.assert_array_equal(again, part)
    os.truncate(path, 100 * 80)
    with pytest.raises(FormatError, match="was changed while it was read"):
        copy_bytes(whole[:, 30:37], part)


def test_a_head_that_is_cut_short_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever opened it just before."""
    opened = ModelFile.open

    def open_and_cut(path: Path) -> ModelFile:
        file = opened(path)
        os.truncate(path, 20)
        return file

    monkeypatch.setattr(ModelFile, "open", open_and_cut)
    with pytest.raises(FormatError, match="was changed while it was read"):
        read_gguf(path)


# ---- bytes


def test_bytes_of_files_and_of_memory(path: Path) -> None:
    for weight in (read_gguf(path).weights["b"], Weight.from_values("b", NUMBERS, "F32")):
        out = np.zeros(1000, np.uint8)
        copy_bytes(weight.rows()[0, 7:1007], out)
        np.testing.assert_array_equal(out, NUMBERS.view(np.uint8)[7:1007])
        copy = in_memory(weight)
        assert not np.shares_memory(copy.rows(), weight.rows())
        assert files_of([copy]) == []
        np.testing.assert_array_equal(copy.decode(), NUMBERS)


def test_a_file_is_open_as_long_as_a_view_of_it(path: Path) -> None:
    weights = dict(read_gguf(path).weights)
    assert open_descriptors(path)
    data = weights.pop("a").rows()[0, 5:9]
    del weights
    gc.collect()
    assert open_descriptors(path)
    assert len(files_of([Weight.from_bytes("w", in_memory(read_gguf(path).weights["a"]).encoding, (1,), data)])) == 1
    del data
    gc.collect()
    assert not open_descriptors(path)


def test_a_refused_file_is_closed(path: Path) -> None:
    path.write_bytes(b"not a model" * 100)
    with pytest.raises(FormatError):
        read_gguf(path)
    gc.collect()
    assert not open_descriptors(path)
