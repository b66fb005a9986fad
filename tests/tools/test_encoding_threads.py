"""Weights encoded by several threads: the same bytes as in one piece, experts read once, counted, and let go of."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tests.support.folders import tiny_folder
from tests.support.tiny_model import with_vocabulary

from sotol.arrays import UInt8Array
from sotol.backends.cpu.running.fitting import Encoder
from sotol.errors import ModelError, SotolError
from sotol.formats.weights import Source, Weight
from sotol.quant import ENCODINGS
from sotol.tools import encoding_threads
from sotol.tools.converting import convert
from sotol.tools.encoding import Planned
from sotol.tools.encoding_threads import EncodingThreads


def weight(*shape: int, encoding: str = "BF16") -> Weight:
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return Weight.from_values("w", values, encoding)


@pytest.mark.parametrize("encoding", ["F32", "F16", "Q8_0", "Q4_K", "BF16"])
@pytest.mark.parametrize("shape", [(40, 256), (3, 20, 512), (2048,)])
@pytest.mark.parametrize("threads", [1, 3])
def test_bytes_are_those_of_one_piece(
    encoding: str, shape: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_threads, "PIECE_VALUES", 1100)
    monkeypatch.setattr(encoding_threads, "EXPERT_VALUES", 6000)
    given, new, told = weight(*shape), ENCODINGS[encoding], list[int]()
    with EncodingThreads(Encoder([(new, False)]), threads, told.append) as encoders:
        made = np.concatenate([piece.reshape(-1) for piece in encoders.rows(Planned(given, new))])
    again = Weight.from_values("w", given.decode(), encoding)
    np.testing.assert_array_equal(made, again.rows().reshape(-1))
    assert sum(told) == again.nbytes
    assert len(told) > 1 or encoding == "BF16" or len(shape) == 1


class Counted(NamedTuple):
    """A source that notes what is asked for."""

    source: Source
    asked: list[tuple[int, int]]

    @property
    def shape(self) -> tuple[int, int]:
        return self.source.shape

    @property
    def arrays(self) -> Sequence[UInt8Array]:
        return self.source.arrays

    def rows(self, first: int, end: int) -> UInt8Array:
        self.asked.append((first, end))
        return self.source.rows(first, end)


def test_an_expert_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources of transposed experts read a whole one for any of its rows."""
    monkeypatch.setattr(encoding_threads, "PIECE_VALUES", 1000)
    stored, asked = weight(3, 20, 512), list[tuple[int, int]]()
    given = replace(stored, source=Counted(stored.source, asked))
    with EncodingThreads(Encoder(()), 2) as encoders:
        list(encoders.rows(Planned(given, ENCODINGS["F16"])))
    assert sorted(asked) == [(0, 20), (20, 40), (40, 60)]


def test_rows_that_can_not_be_encoded_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding_threads, "PIECE_VALUES", 512)
    values = weight(20, 256).decode().copy()
    values[13, 5] = np.nan
    plan = Planned(Weight.from_values("w", values, "F32"), ENCODINGS["Q8_0"])
    with (
        EncodingThreads(Encoder([(plan.encoding, False)]), 2) as encoders,
        pytest.raises(ModelError, match="weight w, rows 12 to 13, can't be Q8_0: integer encodings hold"),
    ):
        list(encoders.rows(plan))


def test_threads_end_also_where_nobody_takes_what_they_make() -> None:
    before = threading.active_count()
    with EncodingThreads(Encoder(()), 3) as encoders:
        rows = encoders.rows(Planned(weight(4000, 512), ENCODINGS["F16"]))
        next(rows)
    assert threading.active_count() == before


def folder_in_floats(tmp_path: Path) -> Path:
    return with_vocabulary(tiny_folder(tmp_path / "model"))


def test_a_conversion_is_the_same_for_any_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_in_floats(tmp_path)
    convert(folder, tmp_path / "a.gguf", "Q8_0", threads=1)
    monkeypatch.setattr(encoding_threads, "PIECE_VALUES", 100)
    convert(folder, tmp_path / "b.gguf", "Q8_0", threads=4)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_ctrl_c_leaves_nothing_of_a_file(tmp_path: Path) -> None:
    folder, before = folder_in_floats(tmp_path), threading.active_count()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, tmp_path / "out.gguf", "Q8_0", progress=stop)
    assert list(tmp_path.iterdir()) == [folder]
    assert threading.active_count() == before


@pytest.mark.parametrize("back", [False, True])
def test_a_source_that_changes_while_it_is_converted(tmp_path: Path, back: bool) -> None:
    folder = folder_in_floats(tmp_path)
    convert(folder, tmp_path / "m.gguf")
    model, source = (tmp_path / "m.gguf",) * 2 if back else (folder, folder / "model.safetensors")

    def progress(*_: object) -> None:
        source.write_bytes(source.read_bytes() + b"more")

    out = tmp_path / ("again" if back else "again.gguf")
    with pytest.raises(SotolError, match="was changed while it was read"):
        convert(model, out, progress=progress)
    assert not out.exists()
