"""Ops that compute on arrays and record on symbols, and the Program that recording gives.

An op is a NumPy function with a shape rule. Called with arrays it computes: that is its meaning. Called with a symbolic
`Tensor` it appends a `Node` to the tensor's program and returns a new symbol. A dimension is a number, or the name of
one that changes from step to step: "T" tokens, "R" rows with logits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

import numpy.typing as npt

from sotol.errors import ModelError
from sotol.formats.weights import Weight

__all__ = [
    "OPS",
    "Array",
    "Cache",
    "Constant",
    "Node",
    "Op",
    "Operand",
    "Program",
    "Shape",
    "StepInput",
    "Tensor",
    "op",
]

Array = npt.NDArray[Any]
Dim = int | str
Shape = tuple[Dim, ...]


class Cache(NamedTuple):
    """The keys and values that one layer keeps: `layer` numbers them, `heads` kv heads of `width` channels."""

    layer: int
    heads: int
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """An array known when the program is made, as a table of RoPE."""

    name: str
    value: Array

    @property
    def shape(self) -> Shape:
        return self.value.shape


@dataclass(frozen=True, slots=True, eq=False)
class StepInput:
    """An array of the Step, by its field's name; "step" is the Step itself."""

    program: "Program"
    name: str
    shape: Shape = ()


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A symbol: the value that a node of the program computes, float32 of this shape."""

    program: "Program"
    index: int  # of its node
    shape: Shape

    def reshape(self, *shape: Dim) -> "Tensor":
        """The same numbers in rows of another shape; no work."""
        return OPS["reshape"](self, shape=shape)

    def __add__(self, other: "Tensor") -> "Tensor":
        return OPS["add"](self, other)


Operand = Tensor | Weight | Constant | StepInput | Cache


class Node(NamedTuple):
    """One op of a program. Inputs that are tensors come from earlier nodes; each node gives one tensor."""

    op: "Op"
    inputs: tuple[Operand, ...]
    attributes: Mapping[str, Any]
    shape: Shape

    def __str__(self) -> str:
        names = [f"%{x.index}" if isinstance(x, Tensor) else _name(x) for x in self.inputs]
        names += [f"{k}={v}" for k, v in self.attributes.items()]
        return f"{self.op.name}({', '.join(names)}) {list(self.shape)}"


@dataclass(slots=True, eq=False)
class Program:
    """A computation in static single assignment form; the last node is its result."""

    nodes: list[Node] = field(default_factory=list)

    def add(self, node: Node) -> Tensor:
        """Append a node."""
        self.nodes.append(node)
        return Tensor(self, len(self.nodes) - 1, node.shape)

    def caches(self) -> list[Cache]:
        """The caches that the program uses, each once."""
        return list(dict.fromkeys(x for node in self.nodes for x in node.inputs if isinstance(x, Cache)))

    def __str__(self) -> str:
        return "\n".join(f"%{i} = {node}" for i, node in enumerate(self.nodes))


class Op(NamedTuple):
    """An op: its name, its shape rule, its meaning and the names of its attributes."""

    name: str
    inputs: tuple[tuple[str, ...] | None, ...]  # dimension letters of each input; None: not an array
    output: tuple[str, ...]
    meaning: Callable[..., Any]
    attributes: frozenset[str] = frozenset()

    @overload
    def __call__(self, *inputs: "Operand", **attributes: Any) -> Tensor: ...
    @overload
    def __call__(self, *inputs: Any, **attributes: Any) -> Any: ...
    def __call__(self, *inputs: Any, **attributes: Any) -> Any:
        program = next((x.program for x in inputs if isinstance(x, Tensor | StepInput)), None)
        if program is None:
            return self.meaning(*inputs, **attributes)
        return program.add(Node(self, inputs, attributes, self.shape_of(inputs, attributes)))

    def shape_of(self, inputs: tuple[Operand, ...], attributes: Mapping[str, Any]) -> Shape:
        """The result's shape; ModelError that names the op, the operand and both shapes where they do not fit."""
        if len(inputs) != len(self.inputs):
            raise ModelError(f"{self.name} takes {len(self.inputs)} inputs, not {len(inputs)}")
        if unknown := sorted(attributes.keys() - self.attributes):
            raise ModelError(f"{self.name} has no attribute {unknown[0]!r}; it has {sorted(self.attributes)}")
        bound: dict[str, Any] = {}
        for rule, value in zip(self.inputs, inputs, strict=True):
            if rule is None:
                continue
            shape: Shape = value.shape  # type: ignore[union-attr]
            if not _match(rule, shape, bound):
                known = ", ".join(f"{k} = {v}" for k, v in bound.items())
                wanted = f"[{', '.join(rule)}] with {known}"
                raise ModelError(f"{self.name}: {_name(value)} has shape {list(shape)}, which is not {wanted}")
        if self.output == ("shape",):
            return tuple(attributes["shape"])
        return tuple(d for letter in self.output for d in _dims(bound[letter], letter))


OPS: dict[str, Op] = {}  # filled by program/ops.py, which is the vocabulary


def op(rule: str) -> Callable[[Callable[..., Any]], Op]:
    """Make a function an op. The rule is as "... N, N -> ... N": "..." is any leading dimensions, "_" no array."""

    def make(meaning: Callable[..., Any]) -> Op:
        left, _, right = rule.partition("->")
        inputs = tuple(None if part.strip() == "_" else tuple(part.split()) for part in left.split(","))
        code = meaning.__code__
        attributes = frozenset(code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount])
        OPS[meaning.__name__] = Op(meaning.__name__, inputs, tuple(right.split()), meaning, attributes)
        return OPS[meaning.__name__]

    return make


def _match(rule: tuple[str, ...], shape: Shape, bound: dict[str, Any]) -> bool:
    """Bind the rule's letters to the shape, consistently with what is bound."""
    if rule and rule[0] == "...":
        count = len(shape) - (len(rule) - 1)
        if count < 0 or bound.setdefault("...", shape[:count]) != shape[:count]:
            return False
        rule, shape = rule[1:], shape[count:]
    if len(rule) != len(shape):
        return False
    return all(
        int(letter) == dim if letter.isdigit() else bound.setdefault(letter, dim) == dim
        for letter, dim in zip(rule, shape, strict=True)
    )


def _dims(value: Any, letter: str) -> Shape:
    return value if letter == "..." else (value,)


def _name(x: Operand) -> str:
    match x:
        case Tensor():
            return f"the result of {x.program.nodes[x.index].op.name}"
        case Cache():
            return f"cache {x.layer}"
        case _:
            return x.name
