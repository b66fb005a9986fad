"""Log-probabilities of a model over windows of a text, in a file: what another model's are compared with.

The form is that of llama.cpp's `--kl-divergence-base`: "_logits_", int32 window size, vocabulary and count of windows,
the tokens, and for each scored token a float32 step, a float32 least log-probability, and a uint16 for each token of
the vocabulary, which counts steps. So log-probabilities below the greatest one less 16 are all the same, and others are
rounded to some 0.00025. V vocabulary.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from sotol.arrays import Float32Array, Int32Array
from sotol.errors import FormatError
from sotol.formats.files import ModelFile
from sotol.formats.whole_file import WholeFile, check_room

__all__ = ["Baseline", "BaselineWriter", "scored"]

MAGIC = b"_logits_"
HEAD = struct.Struct("<8siii")
STEPS = np.float32(65535)
DEPTH = np.float32(16)  # below the greatest log-probability: e^-16 is a ten-millionth

Codes = npt.NDArray[np.uint16]


def scored(size: int) -> int:
    """How many tokens of a window are scored: those of its second half that have a next one."""
    return size - 1 - size // 2


def row_words(vocabulary: int) -> int:
    """uint16 of a scored token."""
    return 2 * ((vocabulary + 1) // 2) + 4


class Baseline(NamedTuple):
    """A file of log-probabilities, mapped."""

    file: ModelFile
    windows: Int32Array  # [n, size] tokens
    vocabulary: int

    @classmethod
    def open(cls, path: Path) -> Self:
        """FormatError names the file and what is wrong with it."""
        file = ModelFile.open(path)
        head = np.zeros(HEAD.size, np.uint8)
        file.copy_to(head[: min(HEAD.size, len(file))], 0)
        magic, size, vocabulary, count = HEAD.unpack(head.tobytes())
        if magic != MAGIC:
            raise FormatError(f"{path}: is no file of log-probabilities: make one with --save-logits")
        good = min(size, vocabulary, count) > 0
        needed = HEAD.size + 4 * size * count + 2 * count * scored(size) * row_words(vocabulary) if good else -1
        if len(file) != needed:
            raise FormatError(
                f"{path}: {count} windows of {size} tokens with a vocabulary of {vocabulary} take {needed} bytes, and"
                f" it has {len(file)}: it is cut short or damaged"
            )
        tokens = np.empty(4 * size * count, np.uint8)
        file.copy_to(tokens, HEAD.size)
        return cls(file, tokens.view("<i4").reshape(count, size), vocabulary)

    def rows(self, window: int) -> Float32Array:
        """Log-probabilities of a window's scored tokens: [rows, V]."""
        size, words = self.windows.shape[1], row_words(self.vocabulary)
        each = 2 * scored(size) * words
        data = np.empty(each, np.uint8)
        self.file.copy_to(data, HEAD.size + 4 * self.windows.size + window * each)
        stored = data.view("<u2").reshape(-1, words)
        factors = np.ascontiguousarray(stored[:, :4]).view("<f4")
        return decoded(stored[:, 4 : 4 + self.vocabulary], factors[:, :1], factors[:, 1:])


def decoded(codes: Codes, step: Float32Array, least: Float32Array) -> Float32Array:
    """step * code + least, in float32."""
    values: Float32Array = codes.astype(np.float32)
    values *= step
    values += least
    return values


class BaselineWriter:
    """Writes such a file, window by window. It is there when the block has ended well (`whole_file.py`)."""

    def __init__(self, path: Path, windows: Int32Array, vocabulary: int) -> None:
        count, size = windows.shape
        head = HEAD.pack(MAGIC, size, vocabulary, count)
        tokens = np.ascontiguousarray(windows, "<i4").tobytes()
        check_room(path, [len(head) + len(tokens) + 2 * count * scored(size) * row_words(vocabulary)])
        self._vocabulary = vocabulary
        self._file = WholeFile(path)
        self._file.write(head, tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.__exit__(kind, error, at)

    def add(self, logits: Float32Array, log_sums: Sequence[float] | npt.NDArray[np.float64]) -> None:
        """Rows [n, V] of logits with the logarithms of the sums of their exponentials [n], in order."""
        most = logits.max(axis=1)
        least = np.maximum(logits.min(axis=1), most - DEPTH)
        step = (most - least) / STEPS
        rows = np.zeros((len(logits), row_words(self._vocabulary)), "<u2")
        factors = np.stack([step, (least - np.asarray(log_sums)).astype(np.float32)], axis=1).astype("<f4")
        rows[:, :4] = factors.view("<u2")
        inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
        above = np.maximum(logits - least[:, None], 0) * inverse[:, None]
        rows[:, 4 : 4 + self._vocabulary] = np.minimum(np.rint(above), STEPS).astype(np.uint16)
        self._file.write(rows.reshape(-1).view(np.uint8))
