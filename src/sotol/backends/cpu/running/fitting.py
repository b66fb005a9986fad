"""Encoding by native code: the searches of `quant/search.py`, to the same bits, as fast as this CPU makes them."""

from collections.abc import Iterable
from functools import partial

import numpy as np

from sotol.arrays import Float32Array, UInt8Array
from sotol.backends.cpu.building.library import Key, library_for
from sotol.backends.cpu.layout import LANES
from sotol.backends.cpu.running.threads import NativeFunction, native_function
from sotol.backends.cpu.target import Target, host_target
from sotol.progress import Progress
from sotol.quant import (
    FITS,
    GRID_FITS,
    WEIGHTED,
    Encoding,
    Fit,
    Found,
    FoundRuns,
    GridFit,
    encode_fitted,
    encode_runs,
)
from sotol.quant.encoding import as_blocks, require_range

__all__ = ["Encoder"]

ROUNDED = (
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "MXFP4",
    "NVFP4",
    "TQ1_0",
    "TQ2_0",
    "Q2_0",
)  # without a search: `kernels/rounding.py`


class Encoder:
    """Encodes rows of numbers. Any number of threads may use one: it lets go of the interpreter's lock meanwhile."""

    def __init__(
        self, wanted: Iterable[tuple[Encoding, bool]], *, target: Target | None = None, progress: Progress | None = None
    ) -> None:
        """wanted: encodings, each with whether columns have importance.

        Raises SotolError where native code can't be made.
        """
        keys = [key for encoding, weighted in wanted if (key := _key(encoding, weighted)) is not None]
        told = None if progress is None else partial(progress, "compiling kernels")
        codes = library_for(target or host_target()).load(list(dict.fromkeys(keys)), told) if keys else {}
        self._functions = {key: native_function(code) for key, code in codes.items()}

    def encode(self, encoding: Encoding, x: Float32Array, importance: Float32Array | None = None) -> UInt8Array:
        """Rows [..., B * values] -> [..., B * size].

        importance: [B * values], how much each column counts; encodings without a search do not know it. ValueError for
        numbers that the encoding can't hold, or an encoding that nobody encodes.
        """
        if encoding.encode is None:
            raise ValueError(f"{encoding.name} has no encoder")
        key = _key(encoding, importance is not None)
        if key is None:
            weighted = WEIGHTED.get(encoding.name)
            return encoding.encode(x) if importance is None or weighted is None else weighted(x, importance)
        if key[0] == "round":
            return _rounded(self._functions[key], encoding, x)
        if key[0] == "grid":
            return encode_runs(GRID_FITS[encoding.name], x, importance, partial(_find_runs, self._functions[key]))
        return encode_fitted(FITS[encoding.name], x, importance, partial(_find, self._functions[key]))


def _key(encoding: Encoding, weighted: bool) -> Key | None:
    """Of the native function for an encoding; None where there is none."""
    if encoding.name in FITS and (weighted or FITS[encoding.name].plain):
        return "fit", encoding.name, int(weighted)
    if encoding.name in GRID_FITS:
        return "grid", encoding.name
    return ("round", encoding.name) if encoding.name in ROUNDED else None


def _rounded(function: NativeFunction, encoding: Encoding, x: Float32Array) -> UInt8Array:
    """The bytes of `encoding.encode`, which says what is wrong with numbers that blocks can't hold."""
    assert encoding.encode is not None
    blocks = as_blocks(np.ascontiguousarray(x, np.float32), encoding.values)
    require_range(blocks)
    out = np.empty((*blocks.shape[:-1], encoding.size), np.uint8)
    if function(blocks.ctypes.data, out.ctypes.data, blocks.size // encoding.values, 0, 0):
        return encoding.encode(x)
    return out.reshape(*x.shape[:-1], -1)


def _find(function: NativeFunction, fit: Fit, blocks: Float32Array, importance: Float32Array | None) -> Found:
    """`search.find` by the native function of this fit."""
    count, layout = len(blocks), fit.layout
    lanes = -(-count // LANES) * LANES
    x, counts = (None if given is None else _whole(given, lanes) for given in (blocks, importance))
    found = Found(
        np.empty((lanes, layout.values), np.uint8),
        np.empty(lanes, np.float32),
        np.empty(lanes, np.float32),
        np.zeros((lanes, layout.groups), np.uint8),
        np.zeros((lanes, layout.groups), np.uint8),
    )
    places = np.array([0 if a is None else a.ctypes.data for a in (x, counts, *found)], np.int64)
    function(places.ctypes.data, lanes, 0, 0, 0)
    q, d, m, scales, minimums = found
    return Found(q[:count], d[:count], m[:count], scales[:count], minimums[:count])


def _find_runs(function: NativeFunction, fit: GridFit, blocks: Float32Array, weight: Float32Array) -> FoundRuns:
    """`grid_search.find_runs` by the native function of this fit."""
    count, values = blocks.shape
    lanes = -(-count // LANES) * LANES
    runs = values // fit.length
    found = FoundRuns(
        np.empty((lanes, runs, 2), np.uint8),
        np.empty((lanes, runs), np.uint8),
        np.empty((lanes, fit.groups), np.uint8),
        np.empty(lanes, np.float32),
    )
    x, counts = _whole(blocks, lanes), _whole(weight, lanes)
    places = np.array([a.ctypes.data for a in (x, counts, *found)], np.int64)
    function(places.ctypes.data, lanes, 0, 0, 0)
    halves, lowered, scales, d = found
    return FoundRuns(halves[:count], lowered[:count], scales[:count], d[:count])


def _whole(blocks: Float32Array, lanes: int) -> Float32Array:
    """The same with blocks of zeros behind them, up to `lanes`, contiguous."""
    if len(blocks) == lanes:
        return np.ascontiguousarray(blocks, np.float32)
    padded = np.zeros((lanes, blocks.shape[1]), np.float32)
    padded[: len(blocks)] = blocks
    return padded
