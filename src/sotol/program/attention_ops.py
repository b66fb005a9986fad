"""Ops of attention: positions, what is remembered of a token in a cache, and what later ones read there.

T tokens, H query heads, K key-value heads, d channels of a key, e of a value, C positions, r rotated pairs.
"""

from typing import Any

import numpy as np

from sotol.arrays import Array
from sotol.program.program import op
from sotol.program.step import Step

__all__ = [
    "attention", "attention_with_sinks", "cached", "head_linear", "remember", "remember_latent", "rope",
    "scale_by_position",
]  # fmt: skip


@op("T H d, T:i32, C 2 r -> T H d")
def rope(x: Array, positions: Array, table: Array, *, style: str) -> Array:
    """Rotate pairs of channels by angles that grow with the position (Su et al. 2021, arXiv 2104.09864).

    table: [position, (cosine, sine), pair]. style "halves" pairs channel i with r + i, "pairs" 2 i with 2 i + 1, and
    "middle" i with d / 2 + i; other channels stay as they are.
    """
    pairs, middle = table.shape[-1], x.shape[-1] // 2
    cosine, sine = (table[positions, k, None] for k in range(2))  # [T, 1, r]
    first, second = {
        "pairs": (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)),
        "halves": (slice(0, pairs), slice(pairs, 2 * pairs)),
        "middle": (slice(0, pairs), slice(middle, middle + pairs)),
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
    tokens a token attends to, itself included (0: all), or which chunk of positions. cap: scores pass through
    cap * tanh(s / cap); 0: unchanged.
    """
    return _attention(q, cache, step, scale, cap, np.full(q.shape[1], -np.inf, q.dtype))


@op("T H d, [K d e], step, H -> T H e")
def attention_with_sinks(
    q: Array, cache: Any, step: Step, sinks: Array, *, scale: float, cap: float = 0.0
) -> Array:  # fmt: skip
    """`attention` whose softmax has one more score for each query head, its sink, which belongs to no key and value.

    So the weights of the keys sum to less than 1 (arXiv 2309.17453; GPT-OSS's learned sinks: arXiv 2508.10925).
    """
    return _attention(q, cache, step, scale, cap, sinks)


def _attention(q: Array, cache: Any, step: Step, scale: float, cap: float, sinks: Array) -> Array:
    """sinks: [H] further scores, -inf for none."""
    layout, sinks = cache.layout, sinks.astype(q.dtype)[:, None, None]
    out, group = np.empty((*q.shape[:2], layout.value), q.dtype), q.shape[1] // layout.heads
    for s, (start, end) in enumerate(zip(step.starts[:-1], step.starts[1:], strict=True)):
        context, keys, values = cache.read(step, s)  # positions [C], [C, K, d], [C, K, e]
        keys, values = (np.repeat(x, group, axis=1).astype(q.dtype) for x in (keys, values))
        scores = np.einsum("thd,chd->htc", q[start:end] * q.dtype.type(scale), keys)  # [H, T of s, C]
        if cap:
            scores = cap * np.tanh(scores / cap)
        positions = step.positions[start:end, None]
        hidden = context > positions
        if layout.chunked:
            hidden = hidden | (context < positions - positions % layout.window)
        elif layout.window:
            hidden = hidden | (context <= positions - layout.window)
        scores = np.where(hidden, -np.inf, scores)
        most = np.maximum(scores.max(axis=-1, keepdims=True), sinks)
        weights = np.exp(scores - most)
        total = weights.sum(axis=-1, keepdims=True) + np.exp(sinks - most)
        out[start:end] = np.einsum("htc,chd->thd", weights / total, values)
    return out


@op("T H d, T:i32, C -> T H d")
def scale_by_position(x: Array, positions: Array, table: Array) -> Array:
    """x * table[position]: a temperature of attention that changes with the position (Llama 4, Ministral 3)."""
    return x * table[positions][:, None, None]


@op("T H n:any, H m n -> T H m")
def head_linear(x: Array, weight: Array) -> Array:
    """Each head's channels times the transpose of its own matrix."""
    return np.einsum("thn,hmn->thm", x, weight)
