"""The op vocabulary: every op once, as its meaning in NumPy. Kernels of every backend are tested against it.

T tokens, N and M widths, V vocabulary, H query heads, K key-value heads, d channels of a key, e of a value, C
positions, r rotated pairs, R rows with logits. Activations are float32 (the reference backend may use float64);
weights are already decoded. `program.py` explains the rules.
"""

from typing import Any

import numpy as np

from sotol.arrays import Array
from sotol.program.program import OPS, op
from sotol.program.step import Step

__all__ = [
    "GROUP",
    "OPS",
    "add",
    "add_bias",
    "attention",
    "cached",
    "embed",
    "gelu_tanh",
    "glu",
    "linear",
    "moving_average",
    "quantize",
    "remember",
    "remember_latent",
    "reshape",
    "rms_norm",
    "rope",
    "rows",
    "scale",
    "silu",
    "soft_cap",
]

GROUP = 32  # consecutive activations that share one int8 scale


@op("V N, T:i32 -> T N")
def embed(weight: Array, tokens: Array) -> Array:
    """The row of the embedding matrix for each token."""
    return weight[tokens]


@op("... N, N -> ... N")
def rms_norm(x: Array, weight: Array, *, eps: float) -> Array:
    """x / rms(x) * weight (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


@op("T N -> T N:int8")
def quantize(x: Array) -> Array:
    """x rounded to int8 with one scale per 32 numbers: the input of a linear with integer weights.

    scale = max |x| / 127; the integers are x / scale rounded to nearest, ties to even. The meaning is their product;
    backends store integers and scales separately.
    """
    groups = x.reshape(len(x), -1, GROUP)
    most = np.abs(groups).max(axis=-1, keepdims=True)
    inverse = np.divide(127, most, out=np.zeros_like(most), where=most > 0)
    return (np.rint(groups * inverse) * (most / 127)).reshape(x.shape)


@op("T N:any, M N -> T M")
def linear(x: Array, weight: Array) -> Array:
    """x times the transpose of the weight."""
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


@op("T H d, T:i32, C 2 r -> T H d")
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


def cached(k: Array, v: Array, key_type: np.finfo[Any], value_type: np.finfo[Any]) -> tuple[Array, Array]:
    """Keys [T, K, d] and values [T, K, e] as caches of floating-point types store them: clipped to the type's range.

    Where a token's key or value in a head is not finite, the key becomes NaN and the value 0. Tokens that attend to it
    get NaN; tokens that do not are safe, since their weight for it is 0, and 0 times 0 is 0.
    """
    broken = ~(np.isfinite(k).all(axis=-1) & np.isfinite(v).all(axis=-1))  # [T, K]
    keys, values = (
        np.clip(x, -most, most)
        for x, kind in ((k, key_type), (v, value_type))
        for most in [min(float(kind.max), float(np.finfo(x.dtype).max))]
    )
    keys[broken], values[broken] = np.nan, 0
    return keys, values


@op("T K d, T K e, [K d e]!, step ->")
def remember(k: Array, v: Array, cache: Any, step: Step) -> None:
    """Store each token's keys and values in the cache, at its position in its sequence, as `cached` makes them."""
    cache.write(step, *cached(k, v, cache.key_type, cache.value_type))


@op("T K d, [K d e]!, step ->")
def remember_latent(k: Array, cache: Any, step: Step) -> None:
    """Store each token's keys in the cache; its values are their first e channels (MLA, arXiv 2405.04434)."""
    cache.write(step, *cached(k, k[..., : cache.layout.value], cache.key_type, cache.value_type))


@op("T H d, [K d e], step -> T H e")
def attention(q: Array, cache: Any, step: Step, *, scale: float, cap: float = 0.0) -> Array:
    """softmax(scale * q k') v for each token, over the cached tokens of its sequence up to itself.

    Each of the K key-value heads serves H / K query heads (GQA, arXiv 2305.13245). The layout's window limits how many
    tokens a token attends to, itself included (0: all). cap: scores pass through cap * tanh(s / cap); 0: unchanged.
    """
    layout = cache.layout
    out, group = np.empty((*q.shape[:2], layout.value), q.dtype), q.shape[1] // layout.heads
    for s, (start, end) in enumerate(zip(step.starts[:-1], step.starts[1:], strict=True)):
        context, keys, values = cache.read(step, s)  # positions [C], [C, K, d], [C, K, e]
        keys, values = (np.repeat(x, group, axis=1).astype(q.dtype) for x in (keys, values))
        scores = np.einsum("thd,chd->htc", q[start:end] * q.dtype.type(scale), keys)  # [H, T of s, C]
        if cap:
            scores = cap * np.tanh(scores / cap)
        age = step.positions[start:end, None] - context[None]
        hidden = (age < 0) | (age >= layout.window) if layout.window else age < 0
        scores = np.where(hidden, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[start:end] = np.einsum("htc,chd->thd", weights / weights.sum(axis=-1, keepdims=True), values)
    return out


@op("T N, N, [N]!, step -> T N")
def moving_average(x: Array, decay: Array, state: Any, step: Step) -> Array:
    """h = decay * h + (1 - decay) * x, token by token within each sequence, from h = 0 at position 0.

    The simplest recurrent layer: h is the whole state of a sequence.
    """
    h, out = state.read(step), np.empty_like(x)  # [S, N]
    for s, (start, end) in enumerate(zip(step.starts[:-1], step.starts[1:], strict=True)):
        if step.positions[start] == 0:
            h[s] = 0
        for t in range(start, end):
            h[s] = out[t] = decay * h[s] + (1 - decay) * x[t]
    state.write(step, h)
    return out


@op("T N, R:i32 -> R N")
def rows(x: Array, index: Array) -> Array:
    """x[index]: the rows whose results are wanted."""
    return x[index]


@op("... -> shape")
def reshape(x: Array, *, shape: tuple[Any, ...]) -> Array:
    """The same numbers, with rows of another shape."""
    return x.reshape(len(x), *shape[1:])
