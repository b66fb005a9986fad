"""Packing by native code writes the very bytes of `panels.pack`, its definition."""

import os
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sotol.arrays import UInt8Array
from sotol.backends.cpu import panels
from sotol.backends.cpu.building.library import library_for
from sotol.backends.cpu.running.packing import PIECE_BYTES, Packing, pack_key
from sotol.backends.cpu.target import Target, host_target
from sotol.errors import FormatError, SotolError
from sotol.formats import read_gguf, write_gguf
from sotol.formats.files import copy_bytes, files_of
from sotol.formats.weights import Weight
from sotol.quant import ENCODINGS

RUNNABLE = [name for name, e in ENCODINGS.items() if e.decode is not None]


def matrix(name: str, encoding: str, rows: int, blocks: int) -> Weight:
    """A matrix of random bytes: every pattern of bits must pass."""
    e = ENCODINGS[encoding]
    data = np.random.default_rng(rows * blocks).integers(0, 256, rows * blocks * e.size, np.uint8)
    return Weight.from_bytes(name, e, (rows, blocks * e.values), data)


def packed(weights: list[Weight], target: Target, threads: int) -> list[UInt8Array]:
    """The panels of several matrices, over whatever was in memory."""
    codes = library_for(target).load([pack_key(w) for w in weights])
    outs = [np.full(panels.packed_shape(w), 0xA5, np.uint8) for w in weights]
    work = [(w, out, codes[pack_key(w)]) for w, out in zip(weights, outs, strict=True)]
    Packing(work, threads).wait()
    return outs


def defined(weight: Weight) -> UInt8Array:
    out = np.zeros(panels.packed_shape(weight), np.uint8)
    panels.pack(weight, out)
    return out


@pytest.mark.parametrize("encoding", RUNNABLE)
def test_the_same_bytes(target: Target, encoding: str) -> None:
    """Whole panels, rows beyond the last panel, and fewer rows than a panel has."""
    weights = [matrix("a", encoding, 48, 3), matrix("b", encoding, 37, 1), matrix("c", encoding, 3, 2)]
    for weight, out in zip(weights, packed(weights, target, 2), strict=True):
        np.testing.assert_array_equal(out, defined(weight))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_matrix_of_many_pieces(threads: int) -> None:
    weight = matrix("a", "Q8_0", 4096 + 5, 40)
    assert np.prod(panels.packed_shape(weight)) > 3 * PIECE_BYTES
    (out,) = packed([weight], host_target(), threads)
    np.testing.assert_array_equal(out, defined(weight))


def test_a_part_is_packed_as_its_rows_alone() -> None:
    """Rows that begin in the middle of a panel of the whole, and an expert."""
    experts = matrix("a", "Q4_K", 3 * 40, 2)
    experts = replace(experts, shape=(3, 40, 512))
    weights = [experts.expert(1), experts.expert(2).part(5, 38)]
    alone = [Weight.from_bytes("b", w.encoding, w.shape, w.rows().reshape(-1).copy()) for w in weights]
    for out, weight in zip(packed(weights, host_target(), 2), alone, strict=True):
        np.testing.assert_array_equal(out, defined(weight))


def test_progress_counts_matrices() -> None:
    weights = [matrix(name, "F16", 16, 16) for name in "ab"]
    codes = library_for(host_target()).load([pack_key(w) for w in weights])
    seen: list[tuple[int, int]] = []
    work = [(w, np.empty(panels.packed_shape(w), np.uint8), codes[pack_key(w)]) for w in weights]
    Packing(work, 1).wait(lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def started(path: Path, threads: int = 2) -> tuple[Packing, Weight, UInt8Array]:
    """The packing of a matrix of many pieces in a file."""
    write_gguf(path, {}, [matrix("a", "Q8_0", 8192, 40)])
    os.utime(path, (1, 1))  # so that any write shows
    (weight,) = read_gguf(path).weights.values()
    code = library_for(host_target()).load([pack_key(weight)])[pack_key(weight)]
    out = np.zeros(panels.packed_shape(weight), np.uint8)
    return Packing([(weight, out, code)], threads, files_of([weight])), weight, out


@pytest.mark.parametrize("piece", [0, 1, 5, 10])
def test_a_file_that_is_cut_short_meanwhile(tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any piece of the work: an error for whoever waits, each time a new one."""
    path, copied = tmp_path / "m.gguf", list[int]()

    def cut(data: UInt8Array, out: UInt8Array) -> None:
        copied.append(len(data))
        if len(copied) == piece + 1:
            os.truncate(path, 5000)
        copy_bytes(data, out)

    monkeypatch.setattr("sotol.backends.cpu.running.packing.copy_bytes", cut)
    packing, _, _ = started(path)
    heard = []
    for _ in range(2):
        with pytest.raises(FormatError, match=r"m.gguf: was changed while it was read") as caught:
            packing.wait()
        heard.append(caught.value)
    assert heard[0] is not heard[1]


def test_a_file_that_changes_meanwhile_without_a_trace_in_its_size(tmp_path: Path) -> None:
    """Seen at the end: nothing that was read is used."""
    path = tmp_path / "m.gguf"
    write_gguf(path, {}, [matrix("a", "Q8_0", 48, 40)])
    os.utime(path, (1, 1))
    (weight,) = read_gguf(path).weights.values()
    with path.open("r+b") as file:
        file.write(b"GGUF")
    code = library_for(host_target()).load([pack_key(weight)])[pack_key(weight)]
    packing = Packing([(weight, np.zeros(panels.packed_shape(weight), np.uint8), code)], 1, files_of([weight]))
    with pytest.raises(FormatError, match="was changed while it was read"):
        packing.wait()


def test_files_are_let_go_when_all_is_packed(tmp_path: Path) -> None:
    packing, weight, out = started(tmp_path / "m.gguf")
    expected = defined(weight)
    mapped = weakref.ref(files_of([weight])[0])
    del weight
    packing.wait()
    assert mapped() is None
    np.testing.assert_array_equal(out, expected)


def test_stopping_ends_the_threads_and_who_waits_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()

    def held(data: UInt8Array, out: UInt8Array) -> None:
        entered.set()
        gate.wait(20)
        copy_bytes(data, out)

    monkeypatch.setattr("sotol.backends.cpu.running.packing.copy_bytes", held)
    packing, _, _ = started(tmp_path / "m.gguf")
    assert entered.wait(20)
    stopping = threading.Thread(target=packing.stop)
    stopping.start()
    while packing._job.error is None:
        stopping.join(0.001)
    assert stopping.is_alive()  # it waits for the pieces in progress
    gate.set()
    stopping.join(20)
    assert not any(thread.name.startswith("sotol-packing") for thread in threading.enumerate())
    with pytest.raises(SotolError, match="the model is closed"):
        packing.wait()
