"""One lowering for each op: which kernel serves it, what goes into its arguments, and what it needs of a node.

T tokens, R rows with logits, N outputs, K inputs. Adding an op means one function here and one row in LOWERINGS.
"""

from sotol.backends.cpu.layout import LANES, PANELS_TOGETHER, QUANT_RECORD, VECTOR_BYTES, WIDEST_HEAD, padded
from sotol.backends.cpu.running.expert_lowerings import EXPERT_LOWERINGS
from sotol.backends.cpu.running.head_lowerings import HEAD_LOWERINGS
from sotol.backends.cpu.running.lower import Call, Lowering, Site, piece_panels, residual_of, width_of
from sotol.backends.cpu.running.recurrent_lowerings import RECURRENT_LOWERINGS
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.memory import Cache, Paged
from sotol.program.program import Constant, Node, Operand, StepInput, Tensor

__all__ = ["LOWERINGS"]

ALL_KEYS = 2**30  # a window larger than any context


def _embed(s: Site) -> list[Call]:
    weight, tokens = s.node.inputs
    assert isinstance(weight, Weight)
    panels, _, size = s.places.panels(weight)
    return [s.call("embed", weight.encoding.kind, rows=s.rows, width=s.width, row=4 * s.stored, tokens=s.at(tokens),
                   panels=panels, panel_bytes=size, out=s.out)]  # fmt: skip


def _rms_norm(s: Site, norm: Node | None = None, residual: int = 0) -> list[Call]:
    x, weight = (norm or s.node).inputs
    width = int((norm or s.node).shape[-1])
    return [s.call("rms_norm", rows=s.rows, each=s.width // width, width=width, row=4 * s.stored,
                   eps=(norm or s.node).attributes["eps"], x=s.at(x), weight=s.places.vector(weight), weight_step=0,
                   residual=residual, out=s.out)]  # fmt: skip


def _grouped_rms_norm(s: Site) -> list[Call]:
    x, weight = s.node.inputs
    groups = int(s.node.attributes["groups"])
    width = s.width // groups
    return [s.call("rms_norm", rows=s.rows, each=groups, width=width, row=4 * s.stored, eps=s.node.attributes["eps"],
                   x=s.at(x), weight=s.places.vector(weight), weight_step=4 * width, residual=0,
                   out=s.out)]  # fmt: skip


def _layer_norm(s: Site) -> list[Call]:
    x, weight = s.node.inputs
    width = int(s.node.shape[-1])
    return [s.call("layer_norm", rows=s.rows, each=s.width // width, width=width, row=4 * s.stored,
                   eps=s.node.attributes["eps"], x=s.at(x), weight=s.places.vector(weight), out=s.out)]  # fmt: skip


def _rms_norm_add(s: Site) -> list[Call]:
    norm, add = s.node.parts
    return _rms_norm(s, norm, s.at(residual_of(add)))


def _rms_norm_quantize(s: Site) -> list[Call]:
    norm, _ = s.node.parts
    x, weight = norm.inputs
    return [s.call("rms_norm_quantize", rows=s.rows, width=s.width, eps=norm.attributes["eps"], x=s.at(x),
                   weight=s.places.vector(weight), out=s.out, quant=s.out + _ints(s))]  # fmt: skip


def _quantize(s: Site) -> list[Call]:
    (x,) = s.node.inputs
    return [s.call("quantize", rows=s.rows, width=s.width, x=s.at(x), out=s.out, quant=s.out + _ints(s))]


def _ints(s: Site) -> int:
    """Bytes of a quantized tensor's int8; the groups' records follow them."""
    return s.places.limit(str(s.node.shape[0])) * s.width


def _linear(s: Site, linear: Node | None = None, residual: int = 0) -> list[Call]:
    x, weight = (linear or s.node).inputs
    assert isinstance(x, Tensor)
    assert isinstance(weight, Weight)
    panels, count, size = s.places.panels(weight)
    width = weight.shape[1]
    if x.kind == "int8":
        kind, x_row, quant = "int8", width, s.at(x) + s.places.limit(str(x.shape[0])) * width
        quant_row, piece = width // ops.GROUP * QUANT_RECORD, piece_panels(count, size, PANELS_TOGETHER)
    else:
        kind, x_row, quant, quant_row, piece = "f32", 4 * padded(width), 0, 0, piece_panels(count, size, together=4)
    return [s.call("linear", weight.encoding.kind, kind, rows=s.rows, width=width, panels=panels, count=count,
                   panel_bytes=size, piece_panels=piece, x=s.at(x), x_row=x_row, quant=quant,
                   quant_row=quant_row, residual=residual, out=s.out, out_row=count * VECTOR_BYTES)]  # fmt: skip


def _linear_add(s: Site) -> list[Call]:
    linear, add = s.node.parts
    return _linear(s, linear, s.at(residual_of(add)))


def _rope(s: Site) -> list[Call]:
    x, positions, table = s.node.inputs
    _, heads, width = s.node.shape
    assert isinstance(table, Constant)
    return [s.call("rope", s.node.attributes["style"], rows=s.rows, heads=int(heads), width=int(width),
                   row=4 * s.stored, pairs=int(table.shape[-1]), positions=s.at(positions),
                   table=s.places.vector(table), x=s.at(x), out=s.out)]  # fmt: skip


def _remember(s: Site) -> list[Call]:
    k, v, *_ = s.node.inputs
    cache, layout = _paged(s.node)
    assert isinstance(v, Tensor)
    return _store(s, k, s.places.cache(cache).codecs[1], value_width=layout.value, value_padded=padded(layout.value),
                  v=s.at(v), v_row=4 * padded(width_of(v.shape)), v_head=4 * layout.value)  # fmt: skip


def _remember_latent(s: Site) -> list[Call]:
    """A value is the first channels of its key, which is all that is stored."""
    k, *_ = s.node.inputs
    cache, _ = _paged(s.node)
    return _store(s, k, s.places.cache(cache).codecs[0], value_width=0, value_padded=0, v=0, v_row=0, v_head=0)


def _store(s: Site, k: Operand, value_codec: str, **values: int) -> list[Call]:
    """values: the kernel's arguments that are about V."""
    cache, layout = _paged(s.node)
    place = s.places.cache(cache)
    assert isinstance(k, Tensor)
    return [s.call("store_cache", place.codecs[0], value_codec, rows=s.places.count(str(k.shape[0])),
                   heads=layout.heads, key_width=layout.key, key_padded=padded(layout.key), slots=place.slots,
                   cache=place.address, k=s.at(k), k_row=4 * padded(width_of(k.shape)), k_head=4 * layout.key,
                   **values)]  # fmt: skip


def _attention(s: Site) -> list[Call]:
    q = s.node.inputs[0]
    cache, layout = _paged(s.node)
    place, cap, heads = s.places.cache(cache), s.node.attributes["cap"], int(s.node.shape[1])
    sums, finished = s.places.attention_scratch(s.beside)
    sinks = s.places.vector(s.node.inputs[-1]) if s.node.op is ops.attention_with_sinks else 0
    wide = int(padded(layout.value) % (4 * LANES) == 0)
    return [
        s.call("attend", *place.codecs, wide, int(cap > 0), _rows_at_once(heads // layout.heads),
               **s.places.attention(layout.window, chunked=layout.chunked), tables=place.tables,
               table_width=place.table_width, firsts=place.firsts, positions=s.places.input("positions"), heads=heads,
               kv_heads=layout.heads, key_width=layout.key, key_padded=padded(layout.key), value_width=layout.value,
               value_padded=padded(layout.value), block_stride=place.block, values_at=place.values_at,
               window=layout.window or ALL_KEYS, chunk=layout.window * layout.chunked,
               scale=s.node.attributes["scale"], cap=cap, sinks=sinks, cache=place.address, sums=sums,
               finished=finished, q=s.at(q), q_row=4 * padded(heads * layout.key), out=s.out, out_row=4 * s.stored),
    ]  # fmt: skip


def _rows_at_once(group: int) -> int:
    """Query rows of a register tile for one token: the query heads of a kv head, in equal parts of up to six."""
    return -(-group // -(-group // 6))


def _add(s: Site) -> list[Call]:
    x, y = s.node.inputs
    return [s.call("add", rows=s.rows, width=s.stored, x=s.at(x), y=s.at(y), out=s.out)]


def _add_bias(s: Site) -> list[Call]:
    x, bias = s.node.inputs
    return [s.call("add_bias", rows=s.rows, width=s.stored, x=s.at(x), bias=s.places.vector(bias), out=s.out)]


def _scale(s: Site) -> list[Call]:
    (x,) = s.node.inputs
    return [s.call("scale", rows=s.rows, width=s.stored, factor=s.node.attributes["factor"], x=s.at(x), out=s.out)]


def _scale_by_position(s: Site) -> list[Call]:
    x, positions, table = s.node.inputs
    return [s.call("scale_by_position", rows=s.rows, width=s.stored, positions=s.at(positions),
                   table=s.places.vector(table), x=s.at(x), out=s.out)]  # fmt: skip


def _soft_cap(s: Site) -> list[Call]:
    (x,) = s.node.inputs
    return [s.call("soft_cap", rows=s.rows, width=s.stored, cap=s.node.attributes["cap"], x=s.at(x), out=s.out)]


def _activate(s: Site) -> list[Call]:
    (x,) = s.node.inputs
    return [s.call("activate", s.node.attributes["act"], rows=s.rows, width=s.stored, x=s.at(x), out=s.out)]


def _glu(s: Site) -> list[Call]:
    gate, up = s.node.inputs
    act = s.node.attributes["act"]
    return [s.call("glu", act, rows=s.rows, width=s.stored, gate=s.at(gate), up=s.at(up), out=s.out)]


def _glu_quantize(s: Site) -> list[Call]:
    glu, _ = s.node.parts
    gate, up = glu.inputs
    return [s.call("glu_quantize", glu.attributes["act"], rows=s.rows, width=s.width, gate=s.at(gate), up=s.at(up),
                   out=s.out, quant=s.out + _ints(s))]  # fmt: skip


def _gate_rows(s: Site) -> list[Call]:
    x, gate = s.node.inputs
    return [s.call("gate_rows", rows=s.rows, width=s.stored, x=s.at(x), gate=s.at(gate), out=s.out)]


def _rows(s: Site) -> list[Call]:
    x, index = s.node.inputs
    return [s.call("rows", rows=s.rows, width=s.stored, index=s.at(index), x=s.at(x), out=s.out)]


def _reorder(s: Site) -> list[Call]:
    x, order = s.node.inputs
    return [s.call("reorder", rows=s.rows, width=s.width, row=4 * s.stored, order=s.places.vector(order), x=s.at(x),
                   out=s.out)]  # fmt: skip


# ---- what kernels rely on beyond the op's rule


def _needs_embed(node: Node, context: int) -> str | None:
    """Token ids are checked in each step; what a program computes is its own affair."""
    table, ids = node.inputs
    assert isinstance(table, Weight)
    if not isinstance(ids, StepInput) or ids.name == "tokens":
        return None
    if ids.name != "positions":
        return f"embed looks up tokens or positions: not {ids.name}"
    if table.shape[0] < context:
        return f"embed of positions needs a matrix of {context} rows: not {list(table.shape)}"
    return None


def _needs_rope(node: Node, context: int) -> str | None:
    table, width = node.inputs[2], int(node.shape[-1])
    assert isinstance(table, Constant)
    positions, _, pairs = table.value.shape
    if positions >= context and 2 * pairs <= width:
        return None
    return f"rope needs a table of {context} positions and at most half of {width} pairs: not {list(table.shape)}"


def _needs_scale_by_position(node: Node, context: int) -> str | None:
    table = node.inputs[2]
    assert isinstance(table, Constant)
    if len(table.value) >= context:
        return None
    return f"scale_by_position needs a table of {context} positions: not {list(table.shape)}"


def _needs_reorder(node: Node, _context: int) -> str | None:
    """Indices are read as they are."""
    order, width = node.inputs[1], int(node.shape[-1])
    if isinstance(order, Constant) and order.value.min() >= 0 and order.value.max() < width:
        return None
    return f"reorder needs a constant order of {width} numbers"


def _needs_pages(node: Node, _context: int) -> str | None:
    cache = next(x for x in node.inputs if isinstance(x, Cache))
    layout = cache.layout
    if not isinstance(layout, Paged):
        return f"{node.op.name} needs a cache of rows: not {cache}"
    if max(layout.key, layout.value) > WIDEST_HEAD:
        return f"the CPU backend has heads of up to {WIDEST_HEAD} channels: not {max(layout.key, layout.value)}"
    if layout.latent and layout.value > layout.key:
        return f"a latent cache has values of up to {layout.key} channels: not {layout.value}"
    if layout.latent != (node.op is ops.remember_latent) and node.caches(written=True):
        return f"{node.op.name} can't write {cache}"
    return None


def _needs_attention(node: Node, context: int) -> str | None:
    if said := _needs_pages(node, context):
        return said
    cache, layout = _paged(node)
    if int(node.shape[1]) % layout.heads:
        return f"attention of {list(node.shape)} needs a cache of such heads: not {cache}"
    return None


def _needs_parts(node: Node, _context: int) -> str | None:
    groups, width = node.attributes["groups"], width_of(node.shape)
    return None if groups > 0 and width % groups == 0 else f"{groups} equal parts can't be made of {width} numbers"


def _needs_groups(node: Node, _context: int) -> str | None:
    if width_of(node.shape) % ops.GROUP == 0:
        return None
    return f"{node.op.name} needs rows of a multiple of {ops.GROUP} numbers: not {list(node.shape)}"


def _needs_norm_quantize(node: Node, context: int) -> str | None:
    norm = node.parts[0]
    if len(norm.shape) != 2:
        return f"{node.op.name} needs whole rows: not {list(norm.shape)}"
    return _needs_groups(node, context)


def _needs_linear(node: Node, _context: int) -> str | None:
    x, weight = (node.parts or (node,))[0].inputs
    assert isinstance(x, Tensor)
    assert isinstance(weight, Weight)
    if x.kind == "int8" and not weight.encoding.whole:
        return f"{node.op.name} can't read int8: only a product with whole weights does"
    return None if x.kind in ("int8", "f32") else f"{node.op.name} can't read {x.kind}"


# ---- operands


def _paged(node: Node) -> tuple[Cache, Paged]:
    cache = next(x for x in node.inputs if isinstance(x, Cache))
    assert isinstance(cache.layout, Paged)
    return cache, cache.layout


LOWERINGS: dict[str, Lowering] = {
    "activate": Lowering(_activate),
    "add": Lowering(_add),
    "add_bias": Lowering(_add_bias),
    "attention": Lowering(_attention, _needs_attention),
    "attention_with_sinks": Lowering(_attention, _needs_attention),
    "embed": Lowering(_embed, _needs_embed),
    "gate_rows": Lowering(_gate_rows),
    "glu": Lowering(_glu),
    "glu_quantize": Lowering(_glu_quantize, _needs_groups),
    "grouped_rms_norm": Lowering(_grouped_rms_norm, _needs_parts),
    "layer_norm": Lowering(_layer_norm),
    "linear": Lowering(_linear, _needs_linear),
    "linear_add": Lowering(_linear_add, _needs_linear),
    "quantize": Lowering(_quantize, _needs_groups),
    "remember": Lowering(_remember, _needs_pages),
    "remember_latent": Lowering(_remember_latent, _needs_pages),
    "reorder": Lowering(_reorder, _needs_reorder),
    "rms_norm": Lowering(_rms_norm),
    "rms_norm_add": Lowering(_rms_norm_add),
    "rms_norm_quantize": Lowering(_rms_norm_quantize, _needs_norm_quantize),
    "rope": Lowering(_rope, _needs_rope),
    "rows": Lowering(_rows),
    "scale": Lowering(_scale),
    "scale_by_position": Lowering(_scale_by_position, _needs_scale_by_position),
    "soft_cap": Lowering(_soft_cap),
    **EXPERT_LOWERINGS,
    **HEAD_LOWERINGS,
    **RECURRENT_LOWERINGS,
}
