"""Rewrites of a Program: each a small function to an equal program (or, where said, to another arithmetic)."""

from collections import Counter
from collections.abc import Callable

from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.program import Node, Operand, Program, Tensor

__all__ = ["join_pairs", "quantize_inputs"]

# An op, and the op whose result it alone reads: the op that does both, which takes the second's inputs, then the
# first's other ones.
PAIRS = {
    (ops.quantize, ops.rms_norm): ops.rms_norm_quantize,
    (ops.quantize, ops.glu): ops.glu_quantize,
    (ops.add, ops.linear): ops.linear_add,
    (ops.add, ops.rms_norm): ops.rms_norm_add,
}


def quantize_inputs(program: Program) -> Program:
    """The program with int8 activations: a `quantize` before every linear with integer weights.

    Linears that share an input share its quantisation. This changes the arithmetic: it is the default one, idea 5 of
    the design, and `precision="f32"` leaves it out.
    """
    quantized: dict[int, Tensor] = {}  # by the input's index in the new program

    def rewrite(new: Program, node: Node, inputs: tuple[Operand, ...]) -> Tensor:
        weight, x = inputs[-1], inputs[0]
        if node.op is ops.linear and isinstance(x, Tensor) and isinstance(weight, Weight) and weight.encoding.integer:
            if x.index not in quantized:
                quantized[x.index] = new.add(Node(ops.quantize, (x,), {}, x.shape))
            inputs = (quantized[x.index], weight)
        return new.add(Node(node.op, inputs, node.attributes, node.shape))

    return _rebuild(program, rewrite)


def join_pairs(program: Program) -> Program:
    """The program with the ops of PAIRS joined, where nothing else reads what passes between the two.

    Fewer ops, fewer passes over memory, the same bits.
    """
    nodes = program.nodes
    readers = Counter(x.index for node in nodes for x in node.inputs if isinstance(x, Tensor))
    absorbed: dict[int, int] = {}  # a node -> the node that takes its work over
    for i, node in enumerate(nodes):
        for x in node.inputs:
            if isinstance(x, Tensor) and readers[x.index] == 1 and (node.op, nodes[x.index].op) in PAIRS:
                absorbed[x.index] = i
                break
    parts = {outer: inner for inner, outer in absorbed.items()}
    assert not parts.keys() & absorbed.keys()  # an op of two is no part of another

    new, values = Program(), dict[int, Operand]()
    for i, node in enumerate(nodes):
        if i in absorbed:
            continue
        op, inputs, attributes = node.op, node.inputs, node.attributes
        if i in parts:
            inner = nodes[parts[i]]
            others = [x for x in inputs if not (isinstance(x, Tensor) and x.index == parts[i])]
            op, inputs, attributes = PAIRS[op, inner.op], (*inner.inputs, *others), {**inner.attributes, **attributes}
        moved = tuple(values[x.index] if isinstance(x, Tensor) else x for x in inputs)
        values[i] = new.add(Node(op, moved, attributes, node.shape))
    return new


def _rebuild(program: Program, rewrite: Callable[[Program, Node, tuple[Operand, ...]], Tensor]) -> Program:
    """Walk the nodes in order, giving each to the rewrite with its inputs in the new program."""
    new, values = Program(), list[Tensor]()
    for node in program.nodes:
        inputs = tuple(values[x.index] if isinstance(x, Tensor) else x for x in node.inputs)
        values.append(rewrite(new, node, inputs))
    return new
