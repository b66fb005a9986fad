"""What each op of a Program must cost at least: bytes from memory and operations, from shapes, encodings and positions.

Adding an op is one row in RULES; a fused node costs what its parts do, but for what passes between them. T tokens, R
rows with results, S sequences, H query heads, K key-value heads, d key channels of a head, e value channels.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from types import MappingProxyType

import numpy as np

from sotol.backends.cpu.layout import QUANT_RECORD
from sotol.formats.weights import Weight
from sotol.program.memory import Cache, Paged, State
from sotol.program.ops import GROUP
from sotol.program.program import Node, Result, Tensor
from sotol.program.step import Step

__all__ = ["RULES", "Cost", "Setting", "cost_of"]

EXP, TANH = 21, 35  # vector operations of `simd.exp` and `simd.tanh`
QUANTIZED = 1 + QUANT_RECORD / GROUP  # bytes of a number in int8 groups with their records


@dataclass(frozen=True, slots=True)
class Cost:
    """The least that an op must do.

    memory: bytes that a step meets once, so that no cache holds them: weights, keys and values. cached: bytes of the
    activations that go in and out, each once. int8: multiply-adds of int8. f32: operations on f32 (a multiply-add is
    one; so is a division, though it takes longer).
    """

    memory: int = 0
    cached: int = 0
    int8: int = 0
    f32: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.memory + other.memory, self.cached + other.cached, self.int8 + other.int8, self.f32 + other.f32
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """What besides the node decides its cost. int8: whether integer weights meet int8 activations."""

    step: Step
    int8: bool = True
    cache_bytes: int = 2  # of a number in the cache

    def count(self, shape: tuple[int | str, ...]) -> int:
        """Numbers in a tensor."""
        return math.prod(self.step.count(d) if isinstance(d, str) else d for d in shape)


def cost_of(node: Node, setting: Setting) -> Cost:
    """The cost of a node. LookupError for an op that has no rule."""

    def size(x: Result | Tensor) -> float:
        return setting.count(x.shape) * (QUANTIZED if x.kind == "int8" else 4)

    sources = {(x.index, x.output): x for x in node.inputs if isinstance(x, Tensor)}
    cached = sum(map(size, node.results)) + sum(map(size, sources.values()))
    return reduce(add, (_work(part, setting) for part in node.parts or (node,)), Cost(cached=round(cached)))


def _work(node: Node, setting: Setting) -> Cost:
    """What a node that is not fused does, but for its activations' bytes."""
    name = node.op.name
    if name not in RULES:
        raise LookupError(f"no cost is known for the op {name}: add a row to RULES in {__file__}")
    return RULES[name](node, setting)


def _each(operations: int) -> Callable[[Node, Setting], Cost]:
    """So many f32 operations for each number of the result."""
    return lambda node, setting: Cost(f32=operations * setting.count(node.shape))


ACTIVATIONS = {"silu": EXP + 3, "gelu_tanh": TANH + 7, "relu2": 2, "sigmoid": EXP + 2}  # operations


def _activate(node: Node, setting: Setting) -> Cost:
    return Cost(f32=ACTIVATIONS[node.attributes["act"]] * setting.count(node.shape))


def _glu(node: Node, setting: Setting) -> Cost:
    operations = {act: count + 1 for act, count in ACTIVATIONS.items()}
    operations |= {"clamped_swiglu": EXP + 10, "bilinear": 1}
    return Cost(f32=operations[node.attributes["act"]] * setting.count(node.shape))


def _embed(node: Node, setting: Setting) -> Cost:
    (weight,) = (x for x in node.inputs if isinstance(x, Weight))
    return Cost(memory=len(setting.step.tokens) * weight.row_bytes, f32=2 * setting.count(node.shape))


def _linear(node: Node, setting: Setting) -> Cost:
    """All matrices among the inputs, each read once and multiplied by every row of the result."""
    cost, rows = Cost(), setting.count(node.shape[:1])
    for weight in (x for x in node.inputs if isinstance(x, Weight) and len(x.shape) == 2):
        products = rows * math.prod(weight.shape)
        if setting.int8 and weight.encoding.whole:
            cost += Cost(memory=weight.nbytes, int8=products)
        else:
            cost += Cost(memory=weight.nbytes, f32=products)
    return cost


def _expert_linear(node: Node, setting: Setting) -> Cost:
    """Each choice times one expert's matrix. Of the experts, at least those of one token are read; at most all.

    Which ones tokens share, only their hidden states say: taken as if all chose evenly, independently of each other.
    """
    _, choice, weight = node.inputs
    assert isinstance(weight, Weight)
    experts, (tokens, k) = weight.shape[0], (setting.count((d,)) for d in node.shape[:2])
    assert isinstance(choice, Tensor)
    read = experts * (1 - (1 - k / experts) ** tokens)
    products, memory = tokens * k * math.prod(weight.shape[1:]), round(read * weight.nbytes / experts)
    if setting.int8 and weight.encoding.whole:
        return Cost(memory=memory, int8=products)
    return Cost(memory=memory, f32=products)


def _head_linear(node: Node, setting: Setting) -> Cost:
    """All heads' matrices, each read once and multiplied by its channels of every row."""
    weight = node.inputs[-1]
    assert isinstance(weight, Weight)
    products = setting.count(node.shape[:1]) * math.prod(weight.shape)
    if setting.int8 and weight.encoding.integer:
        return Cost(memory=weight.nbytes, int8=products)
    return Cost(memory=weight.nbytes, f32=products)


def _choose_experts(node: Node, setting: Setting) -> Cost:
    """A score for each expert, and as many comparisons for each choice."""
    logits = node.inputs[0]
    assert isinstance(logits, Tensor)
    return Cost(f32=setting.count(logits.shape) * (EXP + 3 + int(node.attributes["k"])))


def _combine(node: Node, setting: Setting) -> Cost:
    rows = node.inputs[0]
    assert isinstance(rows, Tensor)
    return Cost(f32=setting.count(rows.shape))


def _row(layout: Paged, setting: Setting) -> int:
    """Bytes of a token's row in a cache; of a latent one's, its key, which has the value."""
    return layout.heads * (layout.key + (0 if layout.latent else layout.value)) * setting.cache_bytes


def _paged(node: Node) -> Paged:
    (layout,) = (x.layout for x in node.inputs if isinstance(x, Cache))
    assert isinstance(layout, Paged)
    return layout


def _remember(node: Node, setting: Setting) -> Cost:
    return Cost(memory=_row(_paged(node), setting) * setting.step.count("T"))


def _attention(node: Node, setting: Setting) -> Cost:
    """Scores and sums of values over the keys that each token sees; every key and value read once a step."""
    layout, heads = _paged(node), setting.count(node.shape[1:2])
    step, window = setting.step, layout.window or 2**30
    oldest = step.positions - (step.positions % window if layout.chunked else np.minimum(step.positions, window - 1))
    keys = int(np.sum(step.positions[step.starts[1:] - 1] + 1 - oldest[step.starts[:-1]]))  # seen by any of a sequence
    seen = int(np.sum(step.positions + 1 - oldest))  # over all tokens
    score = layout.key + layout.value + EXP + 3 + (TANH + 2 if node.attributes["cap"] else 0)
    return Cost(memory=_row(layout, setting) * keys, f32=heads * seen * score)


def _recurrent(node: Node, setting: Setting, operations: int) -> Cost:
    """Every sequence's state is read and written once; operations: of all tokens."""
    return Cost(memory=2 * 4 * _state(node).size * setting.step.count("S"), f32=operations)


def _state(node: Node) -> State:
    (layout,) = (x.layout for x in node.inputs if isinstance(x, Cache))
    assert isinstance(layout, State)
    return layout


def _moving_average(node: Node, setting: Setting) -> Cost:
    return _recurrent(node, setting, 2 * setting.count(node.shape))


def _convolve(node: Node, setting: Setting) -> Cost:
    """A product for each tap, and perhaps a SiLU."""
    active = ACTIVATIONS["silu"] if node.attributes["act"] == "silu" else 0
    return _recurrent(node, setting, (_state(node).shape[0] + 1 + active) * setting.count(node.shape))


def _delta_rule(node: Node, setting: Setting) -> Cost:
    """Of each number of a state: its part of what a key has read, its decay, its change, its part of the result."""
    return _recurrent(node, setting, 4 * _state(node).size * setting.step.count("T"))


def _selective_scan(node: Node, setting: Setting) -> Cost:
    """The same without the reading before."""
    return _recurrent(node, setting, 3 * _state(node).size * setting.step.count("T"))


RULES: Mapping[str, Callable[[Node, Setting], Cost]] = MappingProxyType(
    {
        "activate": _activate,
        "add": _each(1),
        "add_bias": _each(1),
        "add_expert_bias": _each(1),
        "attention": _attention,
        "attention_with_sinks": _attention,
        "combine": _combine,
        "convolve": _convolve,
        "delta_rule": _delta_rule,
        "embed": _embed,
        "expert_linear": _expert_linear,
        "gate_rows": _each(1),
        "glu": _glu,
        "head_linear": _head_linear,
        "join": _each(0),
        "grouped_rms_norm": _each(3),
        "layer_norm": _each(6),
        "linear": _linear,
        "moving_average": _moving_average,
        "part": _each(0),
        "quantize": _each(8),
        "remember": _remember,
        "remember_latent": _remember,
        "reorder": _each(0),
        "reorder_choices": _each(0),
        "reshape": _each(0),
        "rms_norm": _each(3),
        "rope": _each(2),
        "choose_experts": _choose_experts,
        "rows": _each(0),
        "scale": _each(1),
        "scale_by_position": _each(1),
        "scale_choices": _each(1),
        "selective_scan": _selective_scan,
        "soft_cap": _each(TANH + 2),
        "spread": _each(1),
        "time_steps": _each(2 * EXP + 15),
    }
)
