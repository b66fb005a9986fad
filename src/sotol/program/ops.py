"""The op vocabulary: every op once, as its meaning in NumPy. The tutorial reads this file; backends answer to it.

T tokens, N or M widths, V vocabulary, H query heads, K key-value heads, d head width, C positions, r rotated pairs,
R rows with logits. Activations are float32 (the reference backend may use float64). Weights arrive decoded here.
"""

from typing import Any

import numpy as np

from sotol.program.program import OPS, Array, op
from sotol.program.step import BLOCK_TOKENS, Step

__all__ = [
    "OPS",
    "QUANTIZED",
    "add",
    "add_bias",
    "attention",
    "cached",
    "embed",
    "gelu_tanh",
    "glu",
    "glu_quantize",
    "linear",
    "linear_add",
    "quantize",
    "reshape",
    "rms_norm",
    "rms_norm_add",
    "rms_norm_quantize",
    "rope",
    "rows",
    "scale",
    "silu",
    "soft_cap",
]

GROUP = 32  # activations that share one int8 scale


@op("V N, T -> T N")
def embed(weight: Array, tokens: Array) -> Array:
    """The rows of the embedding matrix that the tokens name."""
    return weight[tokens]


@op("... N, N -> ... N")
def rms_norm(x: Array, weight: Array, *, eps: float) -> Array:
    """x / rms(x) * weight (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


@op("T N -> T N")
def quantize(x: Array) -> Array:
    """x rounded to int8 times a scale per 32 numbers: what a linear with integer weights gets.

    scale = max |x| / 127; the ints are the nearest to x / scale, ties to even. Backends keep ints and scales apart.
    """
    groups = x.reshape(len(x), -1, GROUP)
    most = np.abs(groups).max(axis=-1, keepdims=True)
    inverse = np.divide(127, most, out=np.zeros_like(most), where=most > 0)
    return (np.rint(groups * inverse) * (most / 127)).reshape(x.shape)


@op("T N, M N -> T M")
def linear(x: Array, weight: Array) -> Array:
    """x W'."""
    return x @ weight.T


@op("T M, M -> T M")
def add_bias(x: Array, bias: Array) -> Array:
    """x + bias."""
    return x + bias


@op("... N, ... N -> ... N")
def add(x: Array, y: Array) -> Array:
    """x + y."""
    return x + y


@op("... N -> ... N")
def scale(x: Array, *, factor: float) -> Array:
    """x * factor."""
    return x * np.float32(factor)


@op("... N -> ... N")
def soft_cap(x: Array, *, cap: float) -> Array:
    """cap * tanh(x / cap) (Gemma 2, arXiv 2408.00118, section 2)."""
    return cap * np.tanh(x / cap)


def silu(x: Array) -> Array:
    """x * sigmoid(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    return x / (1 + np.exp(-x))


def gelu_tanh(x: Array) -> Array:
    """GELU in its tanh form (same paper)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {"silu": silu, "gelu_tanh": gelu_tanh}


@op("T N, T N -> T N")
def glu(gate: Array, up: Array, *, act: str) -> Array:
    """act(gate) * up (Shazeer 2020, arXiv 2002.05202)."""
    return ACTIVATIONS[act](gate) * up


@op("T H d, T, C 2 r -> T H d")
def rope(x: Array, positions: Array, table: Array, *, style: str) -> Array:
    """Rotate pairs of channels by angles that grow with the position (Su et al. 2021, arXiv 2104.09864).

    table: [position, (cosine, sine), pair]. style "halves" pairs channel i with r + i, "pairs" 2 i with 2 i + 1;
    channels from 2 r on stay as they are.
    """
    pairs = table.shape[-1]
    cosine, sine = (table[positions, k, None] for k in range(2))  # [T, 1, r]
    first, second = {
        "pairs": (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)),
        "halves": (slice(0, pairs), slice(pairs, 2 * pairs)),
    }[style]
    u, v, out = x[..., first], x[..., second], x.copy()
    out[..., first], out[..., second] = u * cosine - v * sine, v * cosine + u * sine
    return out


def cached(k: Array, v: Array, kind: np.finfo[Any]) -> tuple[Array, Array]:
    """Keys and values [T, K, d] as a cache of some floating-point type keeps them: beyond its range as its largest.

    Where a token's key or value in a head is not finite, the key is NaN and the value 0: who sees it gets NaN, and
    nobody else can be spoilt by it, since 0 times its value is 0.
    """
    most = min(float(kind.max), float(np.finfo(k.dtype).max))
    broken = ~(np.isfinite(k).all(axis=-1) & np.isfinite(v).all(axis=-1))  # [T, K]
    keys, values = np.clip(k, -most, most), np.clip(v, -most, most)
    keys[broken], values[broken] = np.nan, 0
    return keys, values


@op("T H d, T K d, T K d, _, _ -> T H d")
def attention(
    q: Array, k: Array, v: Array, cache: Any, step: Step, *, scale: float, window: int = 0, cap: float = 0.0
) -> Array:
    """Put k and v into the cache; softmax(scale * q k') v over each token's past, itself included.

    Each of the K kv heads serves H / K query heads (GQA, arXiv 2305.13245). window: keys a token sees, itself
    included; 0: all. cap: scores pass through cap * tanh(s / cap); 0: as they are. The cache holds `keys` and
    `values`, [slots, K, d], as `cached` makes them; what a token does not see does not enter its result.
    """
    slots = step.slots
    cache.keys[slots], cache.values[slots] = cached(k, v, np.finfo(cache.keys.dtype))
    out, group = np.empty_like(q), q.shape[1] // k.shape[1]
    for s, (start, end) in enumerate(zip(step.starts[:-1], step.starts[1:], strict=True)):
        context = np.arange(step.positions[end - 1] + 1)
        at = step.blocks[s, context // BLOCK_TOKENS] * BLOCK_TOKENS + context % BLOCK_TOKENS
        keys, values = (np.repeat(x[at], group, axis=1).astype(q.dtype) for x in (cache.keys, cache.values))
        scores = np.einsum("thd,chd->htc", q[start:end] * q.dtype.type(scale), keys)  # [H, T of s, C]
        if cap:
            scores = cap * np.tanh(scores / cap)
        age = step.positions[start:end, None] - context[None]
        hidden = (age < 0) | (age >= window) if window else age < 0
        scores = np.where(hidden, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[start:end] = np.einsum("htc,chd->thd", weights / weights.sum(axis=-1, keepdims=True), values)
    return out


@op("T N, R -> R N")
def rows(x: Array, index: Array) -> Array:
    """The rows of x that the index names."""
    return x[index]


@op("... -> shape")
def reshape(x: Array, *, shape: tuple[Any, ...]) -> Array:
    """The same numbers, with rows of another shape."""
    return x.reshape(len(x), *shape[1:])


# ---- ops that are two at once: rewrites (`fuse.py`) put them where one result has one reader


@op("T N, N -> T N")
def rms_norm_quantize(x: Array, weight: Array, *, eps: float) -> Array:
    """A norm that is kept as int8 only."""
    return quantize(rms_norm(x, weight, eps=eps))


@op("... N, N, ... N -> ... N")
def rms_norm_add(x: Array, weight: Array, residual: Array, *, eps: float) -> Array:
    """residual + the norm of x."""
    return residual + rms_norm(x, weight, eps=eps)


@op("T N, T N -> T N")
def glu_quantize(gate: Array, up: Array, *, act: str) -> Array:
    """A gated product that is kept as int8 only."""
    return quantize(glu(gate, up, act=act))


@op("T N, M N, T M -> T M")
def linear_add(x: Array, weight: Array, residual: Array) -> Array:
    """residual + x W'."""
    return residual + linear(x, weight)


QUANTIZED = (quantize, rms_norm_quantize, glu_quantize)  # ops whose result is int8 with scales
