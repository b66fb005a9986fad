"""Ops of mixtures of experts: which ones a token takes, their matrices, and the sum of what they say.

T tokens, N and M widths, E experts, k of them chosen for each token.
"""

import numpy as np

from sotol.arrays import Array
from sotol.program.activations import sigmoid
from sotol.program.program import op

__all__ = [
    "add_expert_bias", "choose_experts", "combine", "expert_linear", "reorder_choices", "scale_choices", "spread",
]  # fmt: skip


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
    each = _each(x, choice)
    out = np.empty((*choice.shape, weight.shape[1]), x.dtype)
    for expert in np.unique(choice):
        here = choice == expert
        out[here] = each[here] @ weight[expert].T
    return out


def _each(x: Array, choice: Array) -> Array:
    """A row for each choice: [T, k, M]."""
    return np.broadcast_to(x[:, None] if x.ndim == 2 else x, (*choice.shape, x.shape[-1]))


@op("... M, T k:i32, E M:i32 -> T k M")
def reorder_choices(x: Array, choice: Array, order: Array) -> Array:
    """For each choice, the numbers of a row in the order of its expert. x: as of `expert_linear`."""
    return np.take_along_axis(_each(x, choice), order[choice], axis=-1)


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
