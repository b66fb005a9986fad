"""Rewrites of a Program: each a small function to an equal program (or, where said, to another arithmetic)."""

from collections.abc import Callable

from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.trace import Node, Operand, Program, Tensor

__all__ = ["quantize_inputs"]


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


def _rebuild(program: Program, rewrite: Callable[[Program, Node, tuple[Operand, ...]], Tensor]) -> Program:
    """Walk the nodes in order, giving each to the rewrite with its inputs in the new program."""
    new, values = Program(), list[Tensor]()
    for node in program.nodes:
        inputs = tuple(values[x.index] if isinstance(x, Tensor) else x for x in node.inputs)
        values.append(rewrite(new, node, inputs))
    return new
