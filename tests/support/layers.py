"""Programs of attention and recurrent layers over any layout of caches, and steps over sequences in any blocks.

Each layer's keys, values and inputs are rows of tables, named by the token; its output is a result of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tests.support.running import blocks_for, make_step, make_table
from tests.support.single_op import Inputs, weight

from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.memory import BLOCK_TOKENS, Cache, Group, Paged, State, group_caches
from sotol.program.program import Program, Tensor
from sotol.program.step import Limits, Step, Table

__all__ = ["Layer", "Mixer", "Plan", "chunked", "mixers_of", "plan_of", "program_of", "step_of"]

VOCABULARY = 40


class Layer(NamedTuple):
    """Attention of some query heads over a cache that this layer or an earlier one (reads) writes."""

    heads: int
    layout: Paged
    reads: int | None = None
    cap: float = 0.0


def program_of(layers: Sequence[Layer], seed: int = 0, *, state: int = 0) -> Program:
    """Layers side by side: all attention is of one phase. state: the width of a recurrent layer besides."""
    inputs, rng = Inputs(), np.random.default_rng(seed)

    def heads(count: int, width: int, name: str) -> Tensor:
        values = rng.normal(size=(VOCABULARY, count * width)).astype(np.float32)
        return inputs.rows(values, name).reshape("T", count, width)

    caches = [Cache(f"kv.{i if x.reads is None else x.reads}", x.layout) for i, x in enumerate(layers)]
    writers = [(i, x.layout) for i, x in enumerate(layers) if x.reads is None]
    q = [heads(x.heads, x.layout.key, f"q{i}") for i, x in enumerate(layers)]
    k = {i: heads(layout.heads, layout.key, f"k{i}") for i, layout in writers}
    v = {i: heads(layout.heads, layout.value, f"v{i}") for i, layout in writers if not layout.latent}
    x = heads(1, max(state, 1), "x").reshape("T", max(state, 1))
    for i, layout in writers:
        if layout.latent:
            ops.remember_latent(k[i], caches[i], inputs.step)
        else:
            ops.remember(k[i], v[i], caches[i], inputs.step)
    out = [
        ops.attention(q[i], caches[i], inputs.step, scale=layer.layout.key**-0.5, cap=layer.cap)
        for i, layer in enumerate(layers)
    ]
    for i, layer in enumerate(layers):
        inputs.program.results[f"out{i}"] = out[i].reshape("T", layer.heads * layer.layout.value)
    if state:
        decay = weight(rng.uniform(0, 1, state).astype(np.float32), name="decay")
        average = ops.moving_average(x, decay, Cache("state.0", State((state,))), inputs.step)
        inputs.program.results["average"] = average
    return inputs.program


class Mixer(NamedTuple):
    """A recurrent layer: a convolution, "silu" or "none"; or "delta", "tiled" or "scan" of matrices [keys, values].

    shared: heads of keys, or groups; heads: how many heads of values each of them has. taps: of a convolution of so
    many channels as `values` says.
    """

    kind: str
    values: int
    keys: int = 1
    shared: int = 1
    heads: int = 1
    taps: int = 2


def mixers_of(mixers: Sequence[Mixer], seed: int = 0) -> Program:
    """Recurrent layers side by side, over inputs of their own."""
    inputs, rng = Inputs(), np.random.default_rng(seed)

    def rows(width: int, name: str, low: float = -2.0, high: float = 2.0) -> Tensor:
        return inputs.rows(rng.uniform(low, high, (VOCABULARY, width)).astype(np.float32), name)

    def vector(*shape: int) -> Weight:
        return weight(rng.normal(size=shape).astype(np.float32))

    for i, (kind, values, keys, shared, each, taps) in enumerate(mixers):
        heads, name = shared * each, f"out{i}"
        if kind in ("silu", "none"):
            cache = Cache(f"state.{i}", State((taps - 1, values)))
            x = rows(values, name)
            out = ops.convolve(x, vector(values, taps), vector(values), cache, inputs.step, act=kind)
        else:
            cache = Cache(f"state.{i}", State((heads, keys, values)))
            mixed = rows(heads * values + 2 * shared * keys, name)
            decay, other = rows(heads, f"decay{i}", 0.5, 1.0), rows(heads, f"other{i}", 0.0, 1.0)
            if kind == "scan":
                out = ops.selective_scan(mixed, other, decay, vector(heads), cache, inputs.step)
            else:
                out = ops.delta_rule(mixed, decay, other, cache, inputs.step, tiled=kind == "tiled", eps=0.25)
            out = out.reshape("T", heads * values)
        inputs.program.results[name] = out
    return inputs.program


class Plan(NamedTuple):
    """Sequences, each in its own places: what steps over them are made of."""

    texts: list[list[int]]
    blocks: list[list[list[int]]]  # of each group, of each sequence
    groups: tuple[Group, ...]
    limits: Limits


def plan_of(program: Program, rng: np.random.Generator, lengths: Sequence[int]) -> Plan:
    """Random texts of these lengths, over shuffled blocks, in each group others. One more block than is needed."""
    groups, pages = group_caches(program.caches()), [-(-n // BLOCK_TOKENS) for n in lengths]
    counts = blocks_for(groups, sum(pages) + 1, len(lengths) + 1)
    blocks = []
    for group, count in zip(groups, counts, strict=True):
        free = rng.permutation(count).tolist()
        blocks.append([[free.pop() for _ in range(1 if group.state else n)] for n in pages])
    texts = [rng.integers(0, VOCABULARY, n).tolist() for n in lengths]
    tokens = sum(lengths)
    return Plan(texts, blocks, groups, Limits(tokens, len(lengths), tokens, max(lengths), counts))


def table_of(plan: Plan, number: int, spans: Sequence[tuple[int, int, int]], slack: int | None) -> Table:
    """slack: blocks that are kept behind a window (None: all); spans: (sequence, begin, end)."""
    group, rows, firsts = plan.groups[number], list[list[int]](), list[int]()
    for s, begin, end in spans:
        first = 0
        if group.window and slack is not None:
            first = max(0, max(0, begin - group.window + 1) // BLOCK_TOKENS - slack)
        rows.append(plan.blocks[number][s][first : -(-end // BLOCK_TOKENS)])
        firsts.append(0 if group.state else first)
    return make_table(rows, firsts)


def step_of(plan: Plan, spans: Sequence[tuple[int, int, int]], slack: int | None = None) -> Step:
    texts = [plan.texts[s][begin:end] for s, begin, end in spans]
    total = sum(map(len, texts))
    step = make_step(texts, [begin for _, begin, _ in spans], [[0]] * len(spans), range(total))
    return step._replace(tables=tuple(table_of(plan, g, spans, slack) for g in range(len(plan.groups))))


def chunked(plan: Plan, chunk: int) -> list[list[tuple[int, int, int]]]:
    """The spans of steps that feed all texts side by side, so many tokens of each at a time."""
    most = max(map(len, plan.texts))
    return [
        [(s, at, min(at + chunk, len(text))) for s, text in enumerate(plan.texts) if len(text) > at]
        for at in range(0, most, chunk)
    ]
