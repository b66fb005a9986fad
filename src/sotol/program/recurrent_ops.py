"""Ops of recurrent layers: each sequence has a state, which its tokens rewrite in order.

A sequence that begins, at position 0, begins with a state of zeros, whatever its place held before. T tokens,
C channels, H heads, d channels of a key, e of a value, n of a state, k taps of a convolution.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sotol.arrays import Array
from sotol.program.activations import CONVOLVED
from sotol.program.program import op
from sotol.program.step import Step

__all__ = ["convolve", "delta_rule", "moving_average", "selective_scan", "time_steps"]


def _sequences(step: Step, states: Array) -> Iterator[tuple[int, int, int]]:
    """(sequence, begin, end) of a step's sequences in turn; the state of one that begins becomes zeros."""
    for s, (begin, end) in enumerate(zip(step.starts[:-1].tolist(), step.starts[1:].tolist(), strict=True)):
        if step.positions[begin] == 0:
            states[s] = 0
        yield s, begin, end


@op("T N, N, [N]!, step -> T N")
def moving_average(x: Array, decay: Array, state: Any, step: Step) -> Array:
    """h = decay * h + (1 - decay) * x, token by token within each sequence, from h = 0 at position 0.

    The simplest recurrent layer: h is the whole state of a sequence.
    """
    h, out = state.read(step), np.empty_like(x)  # [S, N]
    for s, begin, end in _sequences(step, h):
        for t in range(begin, end):
            h[s] = out[t] = decay * h[s] + (1 - decay) * x[t]
    state.write(step, h)
    return out


@op("T C, C k, C, [p C]!, step -> T C")
def convolve(x: Array, weight: Array, bias: Array, state: Any, step: Step, *, act: str) -> Array:
    """act(bias + the sum of each channel's last k inputs, each times its weight): a causal depthwise convolution.

    The weight's last column is that of the token itself. The state are the p = k - 1 inputs before a step's.
    """
    before, out, taps = state.read(step), np.empty_like(x), weight.shape[1]  # [S, k - 1, C]
    for s, begin, end in _sequences(step, before):
        seen = np.concatenate([before[s], x[begin:end]])
        out[begin:end] = bias + sum(seen[j : j + end - begin] * weight[:, j] for j in range(taps))
        before[s] = seen[len(seen) - (taps - 1) :]
    state.write(step, before)
    return CONVOLVED[act](out)


@op("T H, H, H -> T H, T H")
def time_steps(x: Array, bias: Array, rate: Array) -> tuple[Array, Array]:
    """Steps softplus(x + bias), and e**(rate * step), what is left of a state after one: rates are negative.

    So Mamba-2 discretises its differential equation (Dao & Gu 2024, arXiv 2405.21060); gated DeltaNet forgets alike.
    """
    steps = np.logaddexp(0, x + bias).astype(x.dtype)
    return steps, np.exp(rate * steps)


@op("T C, T H, T H, [H d e]!, step -> T H e")
def delta_rule(
    mixed: Array, decay: Array, gain: Array, state: Any, step: Step, *, tiled: bool, eps: float = 1e-6
) -> Array:  # fmt: skip
    """The gated delta rule (Yang et al. 2024, arXiv 2412.06464), token by token, on a matrix [d, e] for each head.

    S = decay S; S += k (gain (v - S' k))'; the result is S' q / sqrt(d). mixed: queries [K, d], keys [K, d] and values
    [H, e] of a token side by side, for K <= H heads of keys: C = 2 K d + H e. Queries and keys are divided by their
    length, to whose square eps is added (Qwen's code and flash-linear-attention have this one). Head h uses the key of
    head h // (H / K), or if tiled, of h modulo K.
    """
    states = state.read(step)  # [S, H, d, e]
    heads, width, value = states.shape[1:]
    shared = (mixed.shape[1] - heads * value) // (2 * width)
    q, k = (mixed[:, i * shared * width : (i + 1) * shared * width].reshape(-1, shared, width) for i in range(2))
    v = mixed[:, 2 * shared * width :].reshape(-1, heads, value)
    uses = np.arange(heads) % shared if tiled else np.arange(heads) // (heads // shared)
    q, k = ((x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps))[:, uses] for x in (q, k))
    q = q * mixed.dtype.type(width**-0.5)
    out = np.empty(v.shape, mixed.dtype)
    for s, begin, end in _sequences(step, states):
        matrix = states[s]
        for t in range(begin, end):
            matrix *= decay[t, :, None, None]
            change = gain[t, :, None] * (v[t] - np.einsum("hde,hd->he", matrix, k[t]))
            matrix += k[t, :, :, None] * change[:, None]
            out[t] = np.einsum("hde,hd->he", matrix, q[t])
    state.write(step, states)
    return out


@op("T C, T H, T H, H, [H n e]!, step -> T H e")
def selective_scan(mixed: Array, steps: Array, decay: Array, skip: Array, state: Any, step: Step) -> Array:
    """Mamba-2's state space layer (Dao & Gu 2024, arXiv 2405.21060), token by token, on [n, e] numbers for each head.

    S = decay S + B (steps x)'; the result is S' C + skip x. mixed: inputs x [H, e], B [G, n] and C [G, n] of a token
    side by side, for G groups of heads, which share B and C: head h is of group h // (H / G).
    """
    states = state.read(step)  # [S, H, n, e]
    heads, size, width = states.shape[1:]
    groups = (mixed.shape[1] - heads * width) // (2 * size)
    x, both = mixed[:, : heads * width].reshape(-1, heads, width), mixed[:, heads * width :]
    b, c = (np.repeat(part.reshape(-1, groups, size), heads // groups, axis=1) for part in np.split(both, 2, axis=1))
    out = np.empty(x.shape, mixed.dtype)
    for s, begin, end in _sequences(step, states):
        matrix = states[s]
        for t in range(begin, end):
            matrix *= decay[t, :, None, None]
            matrix += b[t, :, :, None] * (steps[t, :, None] * x[t])[:, None]
            out[t] = np.einsum("hne,hn->he", matrix, c[t]) + skip[:, None] * x[t]
    state.write(step, states)
    return out
