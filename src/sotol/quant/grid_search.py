"""Which runs of a grid come nearest to weights, and with which scale: what the encoders of IQ encodings search."""

import numpy as np
import numpy.typing as npt

from sotol.quant.layout import Float32Array
from sotol.quant.search import over

__all__ = ["fit_runs", "nearest_runs"]

PIECE = 1 << 22  # distances that are compared at once: bounds the search's memory to some tens of MB
GUESSES = (1.15, 1.05, 0.95, 0.85, 0.75, 0.65)  # of the scale, by the group's largest number over the grid's


def nearest_runs(x: Float32Array, grid: Float32Array, weight: Float32Array | None = None) -> npt.NDArray[np.int64]:
    """The index of the run of least squared distance, the first one of several: x [n, L], grid [G, L] -> [n].

    weight: [n, L], how much each number counts.
    """
    squares = grid * grid
    norms = squares.sum(-1)  # of |g|^2 - 2 x g, which is least where |g - x|^2 is
    index, count = np.empty(len(x), np.int64), max(1, PIECE // len(grid))
    for start in range(0, len(x), count):
        some = np.s_[start : start + count]
        if weight is None:
            index[some] = (norms - 2 * (x[some] @ grid.T)).argmin(-1)
        else:
            index[some] = (weight[some] @ squares.T - 2 * ((weight[some] * x[some]) @ grid.T)).argmin(-1)
    return index


def fit_runs(
    x: Float32Array,
    grid: Float32Array,
    top: float,
    scale: Float32Array | None = None,
    weight: Float32Array | None = None,
) -> tuple[Float32Array, npt.NDArray[np.int64]]:
    """The scale of each group, and the runs that best fit x [B, groups, width] by scale * run.

    grid: [G, L] numbers; top: its largest. Without a given scale [B, groups], several first guesses are made, and each
    gets the best scale for its runs, by least squares. Gives [B, groups] and [B, groups, width / L]. weight: as x, how
    much each number counts.
    """
    length, shape = grid.shape[1], x.shape
    runs, counts = x.reshape(-1, length), None if weight is None else weight.reshape(-1, length)
    weighted = x if weight is None else weight * x

    def found(scale: Float32Array) -> npt.NDArray[np.int64]:
        steps = np.repeat(over(np.float32(1), scale).reshape(-1), shape[2] // length)
        return nearest_runs(runs * steps[:, None], grid, counts).reshape(*shape[:2], -1)

    if scale is not None:
        return scale, found(scale)
    largest = np.abs(x).max(-1)
    best_scale, best_gain = np.zeros(shape[:2], np.float32), np.zeros(shape[:2], np.float32)
    best = np.zeros((*shape[:2], shape[2] // length), np.int64)
    for guess in GUESSES:
        index = found(largest * np.float32(guess / top))
        numbers = grid[index].reshape(shape)
        each = numbers if weight is None else weight * numbers
        sum_qx, sum_qq = (numbers * weighted).sum(-1), (each * numbers).sum(-1)
        fitted = over(sum_qx, sum_qq)
        better = (fitted * sum_qx > best_gain) & (fitted > 0)
        best_gain = np.where(better, fitted * sum_qx, best_gain)
        best_scale = np.where(better, fitted, best_scale)
        best = np.where(better[..., None], index, best)
    return best_scale, best
