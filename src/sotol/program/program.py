"""Ops, which compute on arrays or record on symbols, and the Program that recording makes.

An op is a NumPy function with a rule about its operands. Called with arrays, it computes its result: that is its
meaning. Called with symbols (`Tensor`), it appends a `Node` to their program and returns new symbols. A dimension is a
number, or the name of one that differs from step to step: "T" tokens, "S" sequences, "R" rows with results.

A rule gives the shapes of operands and results. Equal letters are equal sizes, "..." stands for any leading dimensions,
a letter that no operand has is the value of an attribute, and "n+m" is a sum:

    "... N, N -> ... N"                 two arrays; the result has the shape of the first
    "T N -> T N:int8"                   a result of another kind; "T N:any" accepts operands of any kind
    "T E -> T k:i32, T k"               two results; their width is the attribute k
    "T K d, T K e, [K d e]!, step ->"   writes a cache whose rows are K keys of d and K values of e channels ("[K d e]"
                                        only reads it); takes the whole Step; has no result
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast, overload

from sotol.arrays import Array
from sotol.errors import ModelError
from sotol.formats.weights import Weight
from sotol.program.memory import Cache, State

__all__ = [
    "INNER",
    "OPS",
    "Cache",
    "Constant",
    "Kind",
    "Node",
    "Op",
    "Operand",
    "Program",
    "Result",
    "Shape",
    "StepInput",
    "Tensor",
    "map_tensors",
    "op",
]

Dim = int | str
Shape = tuple[Dim, ...]
Kind = Literal["f32", "int8", "i32"]  # int8: with scales, see `ops.quantize`


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """An array that is known when the program is recorded, such as the table of RoPE: of floats, or of int32."""

    name: str
    value: Array

    @property
    def shape(self) -> Shape:
        return self.value.shape

    @property
    def kind(self) -> Kind:
        return "f32" if self.value.dtype.kind == "f" else "i32"


@dataclass(frozen=True, slots=True, eq=False)
class StepInput:
    """An int32 array of the Step, by the name of its field; "step" is the Step itself."""

    program: "Program"
    name: str
    shape: Shape = ()


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A symbol: one result of a node of the program."""

    program: "Program"
    index: int  # of its node
    shape: Shape
    kind: Kind = "f32"
    output: int = 0  # which of the node's results

    def reshape(self, *shape: Dim) -> "Tensor":
        """The same numbers with rows of another shape; costs nothing."""
        return OPS["reshape"](self, shape=shape)

    def __add__(self, other: "Tensor") -> "Tensor":
        return OPS["add"](self, other)


Operand = Tensor | Weight | Constant | StepInput | Cache


class Result(NamedTuple):
    """The shape of a result and the kind of its numbers."""

    shape: Shape
    kind: Kind = "f32"


class Node(NamedTuple):
    """One use of an op in a program. Inputs that are tensors come from earlier nodes.

    layer: the model's layer that it belongs to, if any. parts: for a fused node, the nodes that it replaces, in order;
    among their inputs, a Tensor of the program INNER is a result of an earlier part. results_from: for a fused node,
    the (part, output) of each of its results.
    """

    op: "Op"
    inputs: tuple[Operand, ...]
    attributes: Mapping[str, Any]
    results: tuple[Result, ...]
    layer: int | None = None
    parts: tuple["Node", ...] = ()
    results_from: tuple[tuple[int, int], ...] = ()

    @property
    def shape(self) -> Shape:
        """The shape of its first result."""
        return self.results[0].shape

    def caches(self, *, written: bool) -> list[Cache]:
        """The caches that it writes, or (written=False) those that it only reads."""
        if self.parts:
            return [cache for part in self.parts for cache in part.caches(written=written)]
        if not any(isinstance(x, Cache) for x in self.inputs):  # most nodes
            return []
        named = zip(self.op.inputs, self.inputs, strict=True)
        return [x for rule, x in named if isinstance(x, Cache) and rule.written is written]

    def __str__(self) -> str:
        names = [_result(x) if isinstance(x, Tensor) else _name(x) for x in self.inputs]
        names += [f"{k}={v}" for k, v in self.attributes.items()]
        shapes = ", ".join(str(list(result.shape)) for result in self.results)
        return f"{self.op.name}({', '.join(names)}) {shapes}".rstrip()


@dataclass(slots=True, eq=False)
class Program:
    """A computation as a list of nodes (static single assignment), and its results by name."""

    nodes: list[Node] = field(default_factory=list)
    results: dict[str, Tensor] = field(default_factory=dict)
    layer: int | None = None  # of the nodes that are recorded from now on

    def add(self, node: Node) -> tuple[Tensor, ...]:
        """Append a node; returns its results as symbols."""
        self.nodes.append(node)
        index = len(self.nodes) - 1
        return tuple(Tensor(self, index, r.shape, r.kind, output) for output, r in enumerate(node.results))

    def caches(self) -> list[Cache]:
        """The caches that the program uses, each once."""
        return list(dict.fromkeys(x for node in self.nodes for x in node.inputs if isinstance(x, Cache)))

    def weights(self) -> list[Weight]:
        """The weights that the program reads, each once."""
        return list(dict.fromkeys(x for node in self.nodes for x in node.inputs if isinstance(x, Weight)))

    def step_inputs(self) -> list[StepInput]:
        """The arrays of a step that the program reads, each name once."""
        inputs = (x for node in self.nodes for x in node.inputs if isinstance(x, StepInput))
        return list({x.name: x for x in inputs}.values())

    def __str__(self) -> str:
        return "\n".join(f"%{i} = {node}" for i, node in enumerate(self.nodes))


class _Input(NamedTuple):
    """What a rule says of one operand or result."""

    dims: tuple[str, ...]
    kind: str = "f32"  # a Kind, or "any"
    place: Literal["array", "cache", "step"] = "array"
    written: bool = False


class Op(NamedTuple):
    """An op: its name, rule, meaning, and attributes with their defaults (`...` for a required one)."""

    name: str
    inputs: tuple[_Input, ...]
    outputs: tuple[_Input, ...]
    meaning: Callable[..., Any]
    attributes: Mapping[str, Any] = MappingProxyType({})

    @overload
    def __call__(self, *inputs: Operand, **attributes: Any) -> Tensor: ...
    @overload
    def __call__(self, *inputs: Any, **attributes: Any) -> Any: ...
    def __call__(self, *inputs: Any, **attributes: Any) -> Any:
        """With arrays, the result; with symbols, one Tensor, several, or None, as the rule says.

        ModelError names the op and what does not fit its rule.
        """
        programs = [x.program for x in inputs if isinstance(x, (Tensor, StepInput))]
        if not programs:
            return self.meaning(*inputs, **attributes)
        program = programs[0]
        if any(other is not program for other in programs):
            raise ModelError(f"{self.name} reads a result of another program")
        complete = self.complete(attributes)
        node = Node(self, inputs, complete, self.results_of(inputs, complete), program.layer)
        results = program.add(node)
        return results if len(results) > 1 else results[0] if results else None

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes with defaults filled in; ModelError for an unknown one, or for one that is missing."""
        if unknown := given.keys() - self.attributes.keys():
            raise ModelError(f"{self.name} has no attribute {min(unknown)!r}; it has {sorted(self.attributes)}")
        complete = {**self.attributes, **given}
        if lacking := [name for name, value in complete.items() if value is ...]:
            raise ModelError(f"{self.name} needs the attribute {lacking[0]!r}")
        return complete

    def results_of(self, inputs: Sequence[Operand], attributes: Mapping[str, Any]) -> tuple[Result, ...]:
        """Shapes and kinds of the results; ModelError names the op, the operand, its shape and the one expected."""
        if len(inputs) != len(self.inputs):
            raise ModelError(f"{self.name} takes {len(self.inputs)} inputs, not {len(inputs)}")
        bound: dict[str, Any] = {}
        for rule, value in zip(self.inputs, inputs, strict=True):
            self._check(rule, value, bound)
        if self.outputs and self.outputs[0].dims == ("shape",):
            return (Result(tuple(attributes["shape"])),)
        known = {**attributes, **bound}
        return tuple(
            Result(tuple(d for letter in rule.dims for d in _dims(known, letter)), cast(Kind, rule.kind))
            for rule in self.outputs
        )

    def _check(self, rule: _Input, value: Operand, bound: dict[str, Any]) -> None:
        if rule.place == "step":
            if not (isinstance(value, StepInput) and value.name == "step"):
                raise ModelError(f"{self.name} needs the step, not {_name(value)}")
            return
        if isinstance(value, Cache) != (rule.place == "cache"):
            raise ModelError(f"{self.name} can't take {_name(value)} there")
        kind = value.kind if isinstance(value, Tensor | Constant) else "i32" if isinstance(value, StepInput) else "f32"
        if rule.kind not in (kind, "any"):
            raise ModelError(f"{self.name} can't read {kind}: it reads {rule.kind}")
        shape = _sizes(value) if isinstance(value, Cache) else value.shape
        if not _match(rule.dims, shape, bound):
            known = ", ".join(f"{k} = {v}" for k, v in bound.items())
            wanted = f"[{', '.join(rule.dims)}] with {known}"
            raise ModelError(f"{self.name}: {_name(value)} has shape {list(shape)}, which is not {wanted}")


OPS: dict[str, Op] = {}  # filled by program/ops.py, which is the vocabulary


def op(rule: str, *, register: bool = True) -> Callable[[Callable[..., Any]], Op]:
    """Make a function an op. Its keyword-only parameters become attributes; the module explains the rule."""

    def make(meaning: Callable[..., Any]) -> Op:
        left, _, right = rule.partition("->")
        code, defaults = meaning.__code__, meaning.__kwdefaults__ or {}
        names = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        attributes = MappingProxyType({name: defaults.get(name, ...) for name in names})
        made = Op(meaning.__name__, _parse(left), _parse(right), meaning, attributes)
        if register:
            OPS[made.name] = made
        return made

    return make


def map_tensors(node: Node, move: Callable[[Tensor], Operand]) -> Node:
    """The node with each of its tensors x replaced by move(x), also in its parts."""

    def moved(inputs: Iterable[Operand]) -> tuple[Operand, ...]:
        return tuple(move(x) if isinstance(x, Tensor) and x.program is not INNER else x for x in inputs)

    op, inputs, attributes, results, layer, parts, results_from = node
    parts = tuple(part._replace(inputs=moved(part.inputs)) for part in parts)
    return Node(op, moved(inputs), attributes, results, layer, parts, results_from)


INNER = Program()  # the `program` of tensors that pass between the parts of a fused node


def _parse(side: str) -> tuple[_Input, ...]:
    return tuple(_parse_one(text.strip()) for text in side.split(",") if text.strip())


def _parse_one(text: str) -> _Input:
    if text == "step":
        return _Input((), place="step")
    if text.startswith("["):
        inside, _, after = text[1:].partition("]")
        return _Input(tuple(inside.split()), place="cache", written=after == "!")
    dims, _, kind = text.partition(":")
    return _Input(tuple(dims.split()), kind or "f32")


def _match(rule: tuple[str, ...], shape: Shape, bound: dict[str, Any]) -> bool:
    """Whether the shape fits the rule and the letters bound so far; binds the rule's other letters to its sizes."""
    if rule and rule[0] == "...":
        count = len(shape) - (len(rule) - 1)
        if count < 0 or bound.setdefault("...", shape[:count]) != shape[:count]:
            return False
        rule, shape = rule[1:], shape[count:]
    if len(rule) != len(shape):
        return False
    for letter, dim in zip(rule, shape, strict=True):
        if dim != (int(letter) if letter.isdigit() else bound.setdefault(letter, dim)):
            return False
    return True


def _dims(known: Mapping[str, Any], letter: str) -> Shape:
    if letter == "...":
        return cast("Shape", known[letter])
    return (sum(known[x] for x in letter.split("+")) if "+" in letter else known[letter],)


def _sizes(cache: Cache) -> Shape:
    """The sizes that a rule's letters in [brackets] mean: heads, key and value channels; or the shape of a state."""
    layout = cache.layout
    return layout.shape if isinstance(layout, State) else (layout.heads, layout.key, layout.value)


def _result(x: Tensor) -> str:
    """%4: the first result of node 4; %4.1: its second."""
    return f"%{x.index}.{x.output}" if x.output else f"%{x.index}"


def _name(x: Operand) -> str:
    match x:
        case Tensor():
            return f"the result of {x.program.nodes[x.index].op.name}"
        case Cache():
            return f"cache {x.name}"
        case _:
            return x.name
