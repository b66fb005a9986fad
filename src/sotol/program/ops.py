"""The op vocabulary: every op once, as its meaning in NumPy. Kernels of every backend are tested against it.

Those of recurrent layers are in `recurrent_ops.py`.

T tokens, N and M widths, V vocabulary, H query heads, K key-value heads, d channels of a key, e of a value, C
positions, r rotated pairs, R rows with logits, E experts, k of them chosen for each token. Activations are float32
(the reference backend may use float64); weights are already decoded. `program.py` explains the rules.
"""

from typing import Any

import numpy as np

from sotol.arrays import Array
from sotol.program.activations import ACTIVATIONS, GATED, gelu_tanh, relu2, sigmoid, silu
from sotol.program.program import OPS, op
from sotol.program.recurrent_ops import convolve, delta_rule, moving_average, selective_scan, time_steps
from sotol.program.step import Step

__all__ = [
    "GROUP",
    "OPS",
    "activate",
    "add",
    "add_bias",
    "add_expert_bias",
    "attention",
    "attention_with_sinks",
    "cached",
    "choose_experts",
    "combine",
    "convolve",
    "delta_rule",
    "embed",
    "expert_linear",
    "gate_rows",
    "gelu_tanh",
    "glu",
    "grouped_rms_norm",
    "head_linear",
    "join",
    "layer_norm",
    "linear",
    "moving_average",
    "part",
    "quantize",
    "relu2",
    "remember",
    "remember_latent",
    "reorder",
    "reshape",
    "rms_norm",
    "rope",
    "rows",
    "scale",
    "scale_by_position",
    "scale_choices",
    "selective_scan",
    "sigmoid",
    "silu",
    "soft_cap",
    "spread",
    "time_steps",
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


@op("T N, N -> T N")
def grouped_rms_norm(x: Array, weight: Array, *, groups: int, eps: float) -> Array:
    """x / rms(x) * weight, where each of so many equal parts of a row has an rms of its own (Mamba-2's code)."""
    parts = x.reshape(len(x), groups, -1)
    return (parts / np.sqrt(np.mean(parts * parts, axis=-1, keepdims=True) + eps)).reshape(x.shape) * weight


@op("... N, N -> ... N")
def layer_norm(x: Array, weight: Array, *, eps: float) -> Array:
    """(x - mean) / standard deviation * weight (Ba et al. 2016, arXiv 1607.06450); eps is added to the variance."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps) * weight


@op("... N -> ... N:int8")
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


@op("T H n:any, H m n -> T H m")
def head_linear(x: Array, weight: Array) -> Array:
    """Each head's channels times the transpose of its own matrix."""
    return np.einsum("thn,hmn->thm", x, weight)


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


@op("T H n, T H m -> T H n+m")
def join(x: Array, y: Array) -> Array:
    """Each head's channels of x, then those of y."""
    return np.concatenate([x, y], axis=-1)


@op("T N -> T n")
def part(x: Array, *, begin: int, n: int) -> Array:
    """n numbers of each row, from number `begin` on."""
    return x[:, begin : begin + n]


@op("T H d, T:i32, C -> T H d")
def scale_by_position(x: Array, positions: Array, table: Array) -> Array:
    """x * table[position]: a temperature of attention that changes with the position (Llama 4, Ministral 3)."""
    return x * table[positions][:, None, None]


@op("... N -> ... N")
def soft_cap(x: Array, *, cap: float) -> Array:
    """cap * tanh(x / cap) (Gemma 2, arXiv 2408.00118, section 2)."""
    return cap * np.tanh(x / cap)


@op("... N -> ... N")
def activate(x: Array, *, act: str) -> Array:
    """act(x)."""
    return ACTIVATIONS[act](x)


@op("... N, ... N -> ... N")
def glu(gate: Array, up: Array, *, act: str) -> Array:
    """act(gate) * up (Shazeer 2020, arXiv 2002.05202), or another function of the two (`GATED`)."""
    return GATED[act](gate, up)


@op("T N, T 1 -> T N")
def gate_rows(x: Array, gate: Array) -> Array:
    """x * sigmoid(gate): one gate for each row."""
    return x * sigmoid(gate)


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


@op("T E, E -> T k:i32, T k")
def choose_experts(
    logits: Array, bias: Array, *, k: int, scores: str, normalised: bool = False, factor: float = 1.0, groups: int = 1,
    groups_used: int = 1, best: int = 2,
) -> tuple[Array, Array]:  # fmt: skip
    """The k experts of each token, the best first, and their weights (Shazeer et al. 2017, arXiv 1701.06538).

    scores: "softmax" or "sigmoid" of the logits; or the choice is by the logits themselves, and the weights are a
    softmax over the chosen ones ("chosen"), or the sigmoids of these ("chosen_sigmoid": Llama 4). The bias counts for
    the choice alone (arXiv 2408.15664). Of equal ones the lower id is taken. normalised: weights are divided by their
    sum (plus 1e-20, as DeepSeek's code has it); then they are multiplied by `factor`.

    groups: of so many equal groups of experts, only those of the `groups_used` best can be chosen: a group counts as
    much as the sum of its `best` best experts do (DeepSeek-V2, arXiv 2405.04434: 1; DeepSeek-V3, arXiv 2412.19437: 2).
    """
    rated = logits
    if scores == "softmax":
        rated = np.exp(logits - logits.max(axis=-1, keepdims=True))
        rated = rated / rated.sum(axis=-1, keepdims=True)
    elif scores == "sigmoid":
        rated = sigmoid(logits)
    ranked = rated + bias.astype(logits.dtype)
    if groups > 1:
        grouped = ranked.reshape(len(ranked), groups, -1)
        counts = np.sort(grouped, axis=-1)[..., -best:].sum(axis=-1)  # [T, groups]
        left_out = np.argsort(-counts, axis=-1, kind="stable")[:, groups_used:]
        np.put_along_axis(grouped, left_out[..., None], -np.inf, axis=1)
        ranked = grouped.reshape(ranked.shape)
    choice = np.argsort(-ranked, axis=-1, kind="stable")[:, :k]
    weights = np.take_along_axis(rated, choice, axis=-1)
    if scores == "chosen":
        weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
        weights = weights / weights.sum(axis=-1, keepdims=True)
    elif scores == "chosen_sigmoid":
        weights = sigmoid(weights)
    if normalised:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + logits.dtype.type(1e-20))
    return choice.astype(np.int32), weights * logits.dtype.type(factor)


@op("... M:any, T k:i32, E N M -> T k N")
def expert_linear(x: Array, choice: Array, weight: Array) -> Array:
    """x times the transposes of the chosen experts' matrices. x: [T, M], the same for all choices, or [T, k, M]."""
    each = np.broadcast_to(x[:, None] if x.ndim == 2 else x, (*choice.shape, x.shape[-1]))
    out = np.empty((*choice.shape, weight.shape[1]), x.dtype)
    for expert in np.unique(choice):
        here = choice == expert
        out[here] = each[here] @ weight[expert].T
    return out


@op("T k N, T k:i32, E N -> T k N")
def add_expert_bias(x: Array, choice: Array, bias: Array) -> Array:
    """x + the biases of the chosen experts."""
    return x + bias[choice]


@op("T k, T k:i32, E -> T k")
def scale_choices(weights: Array, choice: Array, table: Array) -> Array:
    """Each weight times its expert's number in the table."""
    return weights * table[choice]


@op("T k N, T k -> T N")
def combine(x: Array, weights: Array, *, weighted: bool = True) -> Array:
    """The sum of a token's k rows, each times its weight (weighted=False: as they are), in the order of the choices."""
    out = np.zeros((len(x), x.shape[-1]), x.dtype)
    for i in range(x.shape[1]):
        out += x[:, i] * weights[:, i, None] if weighted else x[:, i]
    return out


@op("T N, T k -> T k N")
def spread(x: Array, weights: Array) -> Array:
    """A row for each choice: x times its weight. So Llama 4 weighs what goes into experts, not what comes out."""
    return x[:, None] * weights[..., None]


@op("T N, R:i32 -> R N")
def rows(x: Array, index: Array) -> Array:
    """x[index]: the rows whose results are wanted."""
    return x[index]


@op("T N, N:i32 -> T N")
def reorder(x: Array, order: Array) -> Array:
    """x[:, order]: the numbers of each row in another order."""
    return x[:, order]


@op("... -> shape")
def reshape(x: Array, *, shape: tuple[Any, ...]) -> Array:
    """The same numbers, with rows of another shape."""
    return x.reshape(len(x), *shape[1:])
