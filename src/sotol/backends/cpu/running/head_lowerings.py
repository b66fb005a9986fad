"""The lowerings of the ops that treat each head alone, and of those that take rows apart (`kernels/heads.py`).

T tokens, H heads, N outputs, K inputs.
"""

from sotol.backends.cpu.layout import PANELS_TOGETHER, QUANT_RECORD, padded
from sotol.backends.cpu.running.lower import Call, Lowering, Site, piece_panels, width_of
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.program import Node, Tensor

__all__ = ["HEAD_LOWERINGS"]


def _head_linear(s: Site) -> list[Call]:
    x, weight = s.node.inputs
    assert isinstance(x, Tensor)
    assert isinstance(weight, Weight)
    panels, count, size = s.places.panels(weight)
    heads, outputs, width = weight.shape
    count //= heads
    kind, x_row, x_head, quant, quant_row, quant_head = "f32", 4 * padded(heads * width), 4 * width, 0, 0, 0
    if x.kind == "int8":
        kind, x_row, x_head = "int8", heads * width, width
        quant = s.at(x) + s.places.limit(str(x.shape[0])) * x_row
        quant_head = width // ops.GROUP * QUANT_RECORD
        quant_row = heads * quant_head
    return [s.call("head_linear", weight.encoding.kind, kind, rows=s.rows, heads=heads, width=width, outputs=outputs,
                   panels=panels, count=count, panel_bytes=size,
                   piece_panels=piece_panels(count, size, PANELS_TOGETHER), x=s.at(x), x_row=x_row, x_head=x_head,
                   quant=quant, quant_row=quant_row, quant_head=quant_head, out=s.out,
                   out_row=4 * s.stored)]  # fmt: skip


def _join(s: Site) -> list[Call]:
    (x, x_width), (y, y_width) = ((x, int(x.shape[2])) for x in s.node.inputs if isinstance(x, Tensor))
    heads = int(s.node.shape[1])
    return [s.call("join", rows=s.rows, heads=heads, x_width=x_width, y_width=y_width, row=4 * s.stored, x=s.at(x),
                   x_row=4 * padded(heads * x_width), y=s.at(y), y_row=4 * padded(heads * y_width),
                   out=s.out)]  # fmt: skip


def _part(s: Site) -> list[Call]:
    (x,) = s.node.inputs
    assert isinstance(x, Tensor)
    return [s.call("part", rows=s.rows, width=s.width, row=4 * s.stored, x=s.at(x) + 4 * s.node.attributes["begin"],
                   x_row=4 * padded(width_of(x.shape)), out=s.out)]  # fmt: skip


# ---- what kernels rely on beyond the op's rule


def _needs_head_linear(node: Node, _context: int) -> str | None:
    x, weight = node.inputs
    assert isinstance(x, Tensor)
    assert isinstance(weight, Weight)
    if x.kind not in ("int8", "f32") or (x.kind == "int8" and weight.encoding.integer is None):
        return f"head_linear can't read {x.kind}: only a product with integer weights reads int8"
    return None


def _needs_part(node: Node, _context: int) -> str | None:
    (x,), begin, count = node.inputs, node.attributes["begin"], node.attributes["n"]
    assert isinstance(x, Tensor)
    if begin >= 0 and count > 0 and begin + count <= width_of(x.shape):
        return None
    return f"part needs numbers that there are: not {count} from {begin} on, of {list(x.shape)}"


HEAD_LOWERINGS: dict[str, Lowering] = {
    "head_linear": Lowering(_head_linear, _needs_head_linear),
    "join": Lowering(_join),
    "part": Lowering(_part, _needs_part),
}
