"""Rewrites of a Program: to int8 activations (another arithmetic), and to fused ops (the same bits, fewer passes).

A fused node replaces several nodes that a backend can compute in one pass over memory. It keeps them as its parts, and
the parts are its meaning: a backend without a kernel for the fused op can still run them one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sotol.errors import ModelError
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.program import INNER, Constant, Node, Op, Operand, Program, Tensor, map_tensors

__all__ = ["PRODUCTS", "RULES", "Rule", "TensorMap", "Uses", "chain", "fuse", "quantize_inputs", "reorder_inputs"]


PRODUCTS = (ops.linear, ops.expert_linear, ops.head_linear)  # activations come first, weights last


def quantize_inputs(program: Program) -> Program:
    """The program with int8 activations: a `quantize` before every product with whole weights (`Encoding.whole`).

    Products with the same input share one `quantize`. This changes the arithmetic, so it is part of the model's
    definition on every backend; `precision="f32"` leaves it out.
    """
    new, moved = Program(), TensorMap()
    quantized: dict[tuple[int, int], Tensor] = {}  # by (node, output) of the input in the new program
    for i, node in enumerate(program.nodes):
        node = map_tensors(node, moved)
        x, weight = node.inputs[0], node.inputs[-1]
        if node.op in PRODUCTS and isinstance(x, Tensor) and isinstance(weight, Weight) and weight.encoding.whole:
            at = x.index, x.output
            if at not in quantized:
                results = ops.quantize.results_of((x,), {})
                quantized[at] = new.add(Node(ops.quantize, (x,), {}, results, node.layer))[0]
            node = node._replace(inputs=(quantized[at], *node.inputs[1:]))
        moved.record(i, new.add(node))
    new.results = {name: moved(x) for name, x in program.results.items()}
    return new


def reorder_inputs(program: Program) -> Program:
    """The program with a `reorder` before every product with a weight whose inputs have an order of their own.

    Of experts, each with its own, it is a `reorder_choices`. It is the same program where no weight has an order.
    Products with the same input and order share what does it. ModelError for another use of such a weight. What is
    replaced loses its nodes, as of `fuse`.
    """
    ordered = [(i, x) for i, node in enumerate(program.nodes) for x in node.inputs if isinstance(x, Weight)]
    if all(x.order is None for _, x in ordered):
        return program
    new, moved = Program(), TensorMap()
    made: dict[tuple[object, ...], Tensor] = {}  # by what was put into an order, in the new program, and the order
    for i, node in enumerate(program.nodes):
        node = map_tensors(node, moved)
        weight = next((x for x in node.inputs if isinstance(x, Weight) and x.order is not None), None)
        if weight is not None and weight.order is not None:
            x = node.inputs[0]
            if node.op not in (ops.linear, ops.expert_linear) or not isinstance(x, Tensor):
                raise ModelError(f"{weight.name} has its inputs in an order of their own: {node.op.name} can't read it")
            choice = node.inputs[1:-1]
            op, order = (ops.reorder_choices if choice else ops.reorder), weight.order
            if choice and order.ndim == 1:
                order = np.tile(order, (weight.shape[0], 1))
            key = x.index, x.output, *(c.index for c in choice if isinstance(c, Tensor)), order.tobytes()
            if key not in made:
                inputs = x, *choice, Constant(f"{weight.name}, order", order)
                made[key] = new.add(Node(op, inputs, {}, op.results_of(inputs, {}), node.layer))[0]
            node = node._replace(inputs=(made[key], *choice, replace(weight, order=None)))
        moved.record(i, new.add(node))
    new.results = {name: moved(x) for name, x in program.results.items()}
    program.nodes.clear()  # as in `fuse`
    program.results.clear()
    return new


class Uses:
    """A program's nodes, and which nodes read each one's results."""

    def __init__(self, program: Program) -> None:
        self.nodes, self.results = program.nodes, program.results
        self._readers: list[list[tuple[int, int]]] = [[] for _ in program.nodes]  # of each node: (reader, output)
        for i, node in enumerate(program.nodes):
            for x in node.inputs:
                if isinstance(x, Tensor):
                    self._readers[x.index].append((i, x.output))
        for x in program.results.values():
            self._readers[x.index].append((len(program.nodes), x.output))

    def only(self, index: int) -> int | None:
        """The only reader of this node, if it has exactly one; None otherwise, or if the program returns a result."""
        readers = self._readers[index]
        return readers[0][0] if len(readers) == 1 and readers[0][0] < len(self.nodes) else None

    def outside(self, index: int, group: Sequence[int]) -> list[tuple[int, int]]:
        """(reader, output) of a node's readers outside the group; results of the program have reader len(nodes)."""
        return [(reader, output) for reader, output in self._readers[index] if reader not in group]


class Rule(NamedTuple):
    """match(uses, i): the nodes to fuse, ascending, ending with node i; None where the rule does not apply."""

    name: str
    match: Callable[[Uses, int], tuple[int, ...] | None]


def chain(name: str, *members: Op) -> Rule:
    """A rule for consecutive ops where each one is the only reader of the one before."""

    def match(uses: Uses, last: int) -> tuple[int, ...] | None:
        if uses.nodes[last].op is not members[-1]:
            return None
        group = [last]
        for op in reversed(members[:-1]):
            reader = group[0]
            inputs = (x.index for x in uses.nodes[reader].inputs if isinstance(x, Tensor))
            found = next((i for i in inputs if uses.nodes[i].op is op and uses.only(i) == reader), None)
            if found is None:
                return None
            group.insert(0, found)
        return tuple(group)

    return Rule(name, match)


RULES = (
    chain("rms_norm_quantize", ops.rms_norm, ops.quantize),
    chain("glu_quantize", ops.glu, ops.quantize),
    chain("linear_add", ops.linear, ops.add),
    chain("rms_norm_add", ops.rms_norm, ops.add),
    chain("combine_add", ops.combine, ops.add),
)


def fuse(program: Program, rules: Sequence[Rule] = RULES) -> Program:
    """A new program with groups of nodes fused, until no rule applies: fewer passes over memory, the same bits."""
    uses = Uses(program)
    fused = _fused(uses, _matches(uses, rules))
    while groups := _matches(uses := Uses(fused), rules):
        before, fused = fused, _fused(uses, groups)
        before.nodes.clear()  # nodes and program reference each other in a cycle that would keep the weights alive
    return fused


def _matches(uses: Uses, rules: Sequence[Rule]) -> dict[int, tuple[str, tuple[int, ...]]]:
    """Disjoint groups to fuse: last node -> (name of the fused op, nodes)."""
    taken, groups = set[int](), dict[int, tuple[str, tuple[int, ...]]]()
    for i in range(len(uses.nodes)):
        for rule in rules:
            group = rule.match(uses, i)
            if group and taken.isdisjoint(group) and _movable(uses, group):
                groups[i] = rule.name, group
                taken.update(group)
                break
    return groups


def _movable(uses: Uses, group: Sequence[int]) -> bool:
    """Whether all the nodes can be delayed to where the last one runs: nothing needs their results or caches before."""
    last = group[-1]
    if any(reader < last for i in group for reader, _ in uses.outside(i, group)):
        return False
    between = [uses.nodes[i] for i in range(group[0], last) if i not in group]
    inside = [uses.nodes[i] for i in group]
    return not (_conflict(inside, between) or _conflict(between, inside))


def _conflict(writers: Sequence[Node], others: Sequence[Node]) -> bool:
    written = {cache for node in writers for cache in node.caches(written=True)}
    touched = {cache for node in others for w in (True, False) for cache in node.caches(written=w)}
    return not written.isdisjoint(touched)


def _fused(uses: Uses, groups: Mapping[int, tuple[str, tuple[int, ...]]]) -> Program:
    new, moved = Program(), TensorMap()
    inner = {i for _, group in groups.values() for i in group[:-1]}
    for i, node in enumerate(uses.nodes):
        if i in groups:
            fused, sources = _fused_node(uses, *groups[i])
            results = new.add(map_tensors(fused, moved))
            for source, result in zip(sources, results, strict=True):
                moved.tensors[source] = result
        elif i not in inner:
            moved.record(i, new.add(map_tensors(node, moved)))
    new.results = {name: moved(x) for name, x in uses.results.items()}
    return new


def _fused_node(uses: Uses, name: str, group: tuple[int, ...]) -> tuple[Node, list[tuple[int, int]]]:
    """The fused node of a group, with inputs of the old program; and the (node, output) that each result replaces."""
    parts: list[Node] = []
    given: dict[tuple[int, int], tuple[int, int]] = {}  # (node, output) in the group -> (part, output)
    for i in group:
        node, first = uses.nodes[i], len(parts)
        for part in node.parts or (node,):
            moved = tuple(_inside(x, given, first, nested=bool(node.parts)) for x in part.inputs)
            parts.append(part._replace(inputs=moved))
        results_from = node.results_from or tuple((0, output) for output in range(len(node.results)))
        given |= {(i, output): (first + part, which) for output, (part, which) in enumerate(results_from)}
    inputs = (x for part in parts for x in part.inputs)
    outer = dict.fromkeys(x for x in inputs if not (isinstance(x, Tensor) and x.program is INNER))
    seen = {(i, output) for i in group for _, output in uses.outside(i, group)}
    wanted = [at for at in given if at[0] == group[-1] or at in seen]
    results = tuple(uses.nodes[i].results[output] for i, output in wanted)
    op, results_from = Op(name, (), (), _parts_only), tuple(given[at] for at in wanted)
    return Node(op, tuple(outer), {}, results, uses.nodes[group[-1]].layer, tuple(parts), results_from), wanted


def _inside(x: Operand, given: Mapping[tuple[int, int], tuple[int, int]], first: int, *, nested: bool) -> Operand:
    """A part's input: a result of the group becomes a reference to an earlier part."""
    if not isinstance(x, Tensor):
        return x
    if nested and x.program is INNER:  # the node was fused in an earlier pass
        return Tensor(INNER, first + x.index, x.shape, x.kind, x.output)
    if (x.index, x.output) in given:
        part, output = given[x.index, x.output]
        return Tensor(INNER, part, x.shape, x.kind, output)
    return x


def _parts_only(*_: object) -> None:
    raise TypeError("a fused op has no meaning of its own: run its parts")


class TensorMap:
    """Maps tensors of a program to those of its rewritten form, as rewriting goes on."""

    def __init__(self) -> None:
        self.tensors: dict[tuple[int, int], Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        return self.tensors[x.index, x.output]

    def record(self, index: int, results: Sequence[Tensor]) -> None:
        """Record the new tensors of a node's results."""
        for output, result in enumerate(results):
            self.tensors[index, output] = result
