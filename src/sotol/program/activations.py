"""Functions of numbers, in NumPy, that ops apply one by one: activations, and gates."""

from collections.abc import Callable

import numpy as np

from sotol.arrays import Array

__all__ = ["ACTIVATIONS", "CONVOLVED", "GATED", "gelu_tanh", "relu2", "sigmoid", "silu"]


def silu(x: Array) -> Array:
    """x * sigmoid(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    return x / (1 + np.exp(-x))


def gelu_tanh(x: Array) -> Array:
    """GELU in its tanh form (same paper)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e**-x)."""
    return 1 / (1 + np.exp(-x))


def relu2(x: Array) -> Array:
    """max(x, 0) squared (So et al. 2021, arXiv 2109.08668)."""
    positive = np.maximum(x, 0)
    return positive * positive


Function = Callable[[Array], Array]
ACTIVATIONS: dict[str, Function] = {"silu": silu, "gelu_tanh": gelu_tanh, "relu2": relu2, "sigmoid": sigmoid}
CONVOLVED: dict[str, Function] = {"none": lambda x: x, "silu": silu}  # of what a convolution gives


def clamped_swiglu(gate: Array, up: Array) -> Array:
    """min(gate, 7) * sigmoid(1.702 min(gate, 7)) * (clip(up, -7, 7) + 1): GPT-OSS's (arXiv 2508.10925; the constants
    are those of its authors' code).
    """
    gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
    return gate * sigmoid(gate.dtype.type(1.702) * gate) * (up + 1)


GATED: dict[str, Callable[[Array, Array], Array]] = {
    "silu": lambda gate, up: silu(gate) * up,
    "gelu_tanh": lambda gate, up: gelu_tanh(gate) * up,
    "relu2": lambda gate, up: relu2(gate) * up,
    "clamped_swiglu": clamped_swiglu,
    "sigmoid": lambda gate, up: sigmoid(gate) * up,
    "bilinear": lambda gate, up: gate * up,
}
