"""What ops are called with in tests: numbers, caches of one sequence, states, and steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.support.running import make_step

from sotol.program.memory import Paged, State
from sotol.program.step import BLOCK_TOKENS, Step

__all__ = [
    "Array", "Case", "Pool", "States", "attention_case", "chosen", "mixed_case", "numbers", "one_sequence", "pool",
]  # fmt: skip

Array = npt.NDArray[Any]
Case = tuple[tuple[Any, ...], dict[str, Any]]  # inputs, attributes


@dataclass
class Pool:
    """A cache of one sequence's keys [positions, K, d] and values [positions, K, e], as ops see it."""

    layout: Paged
    keys: Array
    values: Array
    key_type = value_type = np.finfo(np.float64)

    def write(self, step: Step, keys: Array, values: Array) -> None:
        self.keys[step.positions], self.values[step.positions] = keys, values

    def read(self, step: Step, s: int) -> tuple[Array, Array, Array]:
        assert s == 0
        end = step.positions[-1] + 1
        return np.arange(end), self.keys[:end], self.values[:end]


@dataclass
class States:
    """A cache of one array for each sequence, as ops see it."""

    layout: State
    states: Array

    def read(self, step: Step) -> Array:
        return self.states[step.tables[0].blocks[:, 0]]

    def write(self, step: Step, states: Array) -> None:
        self.states[step.tables[0].blocks[:, 0]] = states


def numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def one_sequence(t: int, begin: int = 0) -> Step:
    """t tokens from position `begin` on."""
    return make_step([[0] * t], [begin], [range(-(-(begin + t) // BLOCK_TOKENS))], [0])


def pool(positions: int, k: int, n: int, window: int = 0, *, latent: bool = False) -> Pool:
    """n key channels and n + 1 value channels, or of latent ones as many as can be."""
    value = max(1, n - 1) if latent else n + 1
    keys, values = (np.random.default_rng(i).normal(size=(positions, k, w)) for i, w in enumerate((n, value)))
    return Pool(Paged(k, n, value, window, latent), keys, values)


def attention_case(t: int, k: int, n: int, begin: int = 0, window: int = 0) -> Case:
    """One sequence of t tokens from position `begin` on, 2 query heads for each of k, d = n, e = n + 1."""
    return (numbers(t, 2 * k, n), pool(begin + t, k, n, window), one_sequence(t, begin)), {"scale": n**-0.5}


def chosen(t: int, k: int) -> Array:
    """k of 2 k experts for each of t tokens."""
    return np.stack([np.random.default_rng(i).permutation(2 * k)[:k] for i in range(t)]).astype(np.int32)


def mixed_case(t: int, m: int, n: int) -> tuple[Any, ...]:
    """Of m groups of 2 heads, with n channels of a key and n + 1 of a value: what goes into a scan."""
    state = State((2 * m, n, n + 1))
    channels = 2 * m * (n + 1) + 2 * m * n
    of_heads = numbers(t, 2 * m), numbers(t, 2 * m), numbers(2 * m)
    return (numbers(t, channels), *of_heads, States(state, np.zeros((1, *state.shape))), one_sequence(t))
