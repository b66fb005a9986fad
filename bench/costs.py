"""What each op of a Program must cost at least: bytes from memory and operations, from shapes, encodings and positions.

Adding an op is one row in RULES. T tokens, R rows with logits, H query heads, K key-value heads, d head width.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from sotol.backends.cpu.layout import QUANT_RECORD
from sotol.formats.weights import Weight
from sotol.program.ops import GROUP
from sotol.program.program import Cache, Node, Tensor
from sotol.program.step import Step

__all__ = ["RULES", "Cost", "Rule", "Setting", "cost_of"]

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
        dims: Mapping[str, int] = {"T": len(self.step.tokens), "R": len(self.step.logit_rows)}
        return math.prod(dims[d] if isinstance(d, str) else d for d in shape)


@dataclass(frozen=True, slots=True)
class Rule:
    """An op's work but for its activations' bytes, and how many bytes a number of its result has."""

    work: Callable[[Node, Setting], Cost]
    result: float = 4


def cost_of(node: Node, setting: Setting) -> Cost:
    """The cost of a node. LookupError for an op that has no rule."""

    def size(producer: Node) -> float:
        return setting.count(producer.shape) * _rule(producer).result

    sources = {x.index: x.program.nodes[x.index] for x in node.inputs if isinstance(x, Tensor)}
    cached = size(node) + sum(map(size, sources.values()))
    return _rule(node).work(node, setting) + Cost(cached=round(cached))


def _rule(node: Node) -> Rule:
    name = node.op.name
    if name not in RULES:
        raise LookupError(f"no cost is known for the op {name}: add a row to RULES in {__file__}")
    return RULES[name]


def _each(operations: int) -> Callable[[Node, Setting], Cost]:
    """So many f32 operations for each number of the result."""
    return lambda node, setting: Cost(f32=operations * setting.count(node.shape))


def _glu(node: Node, setting: Setting) -> Cost:
    operations = {"silu": EXP + 4, "gelu_tanh": TANH + 8}[node.attributes["act"]]
    return Cost(f32=operations * setting.count(node.shape))


def _embed(node: Node, setting: Setting) -> Cost:
    (weight,) = (x for x in node.inputs if isinstance(x, Weight))
    return Cost(memory=len(setting.step.tokens) * weight.rows().shape[1], f32=2 * setting.count(node.shape))


def _linear(node: Node, setting: Setting) -> Cost:
    """All matrices among the inputs, each read once and multiplied by every row of the result."""
    cost, rows = Cost(), setting.count(node.shape[:1])
    for weight in (x for x in node.inputs if isinstance(x, Weight) and len(x.shape) == 2):
        products = rows * math.prod(weight.shape)
        if setting.int8 and weight.encoding.integer:
            cost += Cost(memory=weight.data.size, int8=products)
        else:
            cost += Cost(memory=weight.data.size, f32=products)
    return cost


def _attention(node: Node, setting: Setting) -> Cost:
    """Scores and sums of values over the keys that each token sees; every key and value read once a step."""
    (cache,) = (x for x in node.inputs if isinstance(x, Cache))
    _, heads, width = (setting.count((d,)) for d in node.shape)
    step, window = setting.step, node.attributes.get("window") or 2**30
    first, last = step.positions[step.starts[:-1]], step.positions[step.starts[1:] - 1]
    keys = int(np.sum(last + 1 - np.maximum(first + 1 - window, 0)))  # that any token of its sequence sees
    seen = int(np.sum(np.minimum(step.positions + 1, window)))  # over all tokens
    score = 2 * width + EXP + 3 + (TANH + 2 if node.attributes.get("cap") else 0)
    row = 2 * cache.heads * cache.width * setting.cache_bytes
    return Cost(memory=row * (keys + len(step.tokens)), f32=heads * seen * score)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "add": Rule(_each(1)),
        "add_bias": Rule(_each(1)),
        "attention": Rule(_attention),
        "embed": Rule(_embed),
        "glu": Rule(_glu),
        "glu_quantize": Rule(lambda node, setting: _glu(node, setting) + _each(8)(node, setting), result=QUANTIZED),
        "linear": Rule(_linear),
        "linear_add": Rule(lambda node, setting: _linear(node, setting) + _each(1)(node, setting)),
        "quantize": Rule(_each(8), result=QUANTIZED),
        "reshape": Rule(_each(0)),
        "rms_norm": Rule(_each(3)),
        "rms_norm_add": Rule(_each(4)),
        "rms_norm_quantize": Rule(_each(11), result=QUANTIZED),
        "rope": Rule(_each(2)),
        "rows": Rule(_each(0)),
        "scale": Rule(_each(1)),
        "soft_cap": Rule(_each(TANH + 2)),
    }
)
