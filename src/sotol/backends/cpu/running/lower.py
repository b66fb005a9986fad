"""From a Program to calls of CPU kernels: which kernel serves each node, and what goes into its arguments.

T tokens, R rows with logits, N outputs, K inputs. Adding an op means one function here and one row in LOWERINGS.
"""

from collections.abc import Callable, Mapping
from itertools import groupby, zip_longest
from typing import NamedTuple, Protocol

from sotol.backends.cpu.building.library import Key
from sotol.backends.cpu.layout import LANES, QUANT_RECORD, WIDEST_HEAD, padded
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.plan import phases
from sotol.program.program import Cache, Constant, Node, Operand, Program, StepInput, Tensor

__all__ = ["Call", "Places", "lower", "missing", "result_bytes"]

PIECE_BYTES = 98304  # of weights in one piece of a linear, at least: a run that memory can stream
ALL_KEYS = 2**30  # a window that hides nothing
FLOATS = {"F32", "F16", "BF16"}
STEP_INPUTS = {"embed": "tokens", "rope": "positions", "attention": "step", "rows": "logit_rows"}  # that kernels read


class Call(NamedTuple):
    """One kernel on the tape."""

    key: Key
    arguments: Mapping[str, int | float]
    node: int  # of the program, for profiles
    last: bool = False  # of its phase: what follows waits until the whole phase is done


class Places(Protocol):
    """Where things are in memory, as addresses."""

    codec: str  # of the cache

    def limit(self, dim: str) -> int: ...  # the largest T or R
    def result(self, node: int) -> int: ...
    def input(self, name: str) -> int: ...  # a step's array; "T", "R", "parts": the address of the count
    def panels(self, weight: Weight) -> tuple[int, int, int]: ...  # address, panels, bytes of each
    def vector(self, x: Operand) -> int: ...  # float32 numbers: a vector weight or a constant
    def cache(self, cache: Cache) -> int: ...
    @property
    def table_width(self) -> int: ...
    @property
    def span_sums(self) -> int: ...  # where attention keeps sums over spans
    @property
    def finished_parts(self) -> int: ...  # and counts a tile's parts, from 0


class _Site(NamedTuple):
    """A node being lowered."""

    node: Node
    number: int
    places: Places

    @property
    def out(self) -> int:
        return self.places.result(self.number)

    @property
    def rows(self) -> int:
        """The address of the number of rows."""
        return self.places.input(str(self.node.shape[0]))

    @property
    def width(self) -> int:
        """Numbers in a row of the result."""
        return _width(self.node.shape)

    @property
    def stored(self) -> int:
        """The same in memory: whole vectors. What lies behind the row's own numbers is undefined."""
        return padded(self.width)

    def at(self, i: int) -> int:
        """The address of input i, a tensor."""
        return self.places.result(_tensor(self.node, i).index)

    def call(self, *key: str | int, **arguments: int | float) -> Call:
        return Call(key, arguments, self.number)


def lower(program: Program, places: Places) -> list[Call]:
    """The calls that run a program that lacks nothing (see `missing`), in order.

    The nodes of a phase go side by side: their first calls, then their second ones.
    """
    calls: list[Call] = []
    working = [i for i, node in enumerate(program.nodes) if node.op is not ops.reshape]
    for _, members in groupby(working, key=phases(program).__getitem__):
        sites = [_Site(program.nodes[i], i, places) for i in members]
        tracks = [LOWERINGS[site.node.op.name](site) for site in sites]
        for side_by_side in zip_longest(*tracks):
            group = [call for call in side_by_side if call is not None]
            calls += [*group[:-1], group[-1]._replace(last=True)]
    return calls


def missing(program: Program, context: int = 1) -> list[str]:
    """What the CPU backend lacks for a program over sequences of up to `context` tokens; one sentence each.

    That is also what kernels, which check nothing, would take for something else.
    """
    problems, matrices = list[str](), dict[str, Weight]()
    for node in program.nodes:
        name = node.op.name
        if name not in LOWERINGS and name != "reshape":
            problems.append(f"the CPU backend has no kernel for {name}")
        for x in node.inputs:
            if isinstance(x, Weight):
                problems += _check_weight(name, x, matrices)
            elif isinstance(x, StepInput) and x.name != STEP_INPUTS.get(name):
                problems.append(f"the CPU backend's {name} reads the step's {STEP_INPUTS.get(name)}: not {x.name}")
            elif isinstance(x, Tensor):
                problems += _check_tensor(program, node, x)
        if name in CHECKS:
            problems += CHECKS[name](node, context)
    if program.nodes and program.nodes[-1].op in ops.QUANTIZED:
        problems.append(f"a program can't end in {program.nodes[-1].op.name}: its result is not float32")
    return list(dict.fromkeys(problems))


def _check_weight(name: str, x: Weight, matrices: dict[str, Weight]) -> list[str]:
    """matrices: those met so far, by name."""
    problems = []
    if not (x.encoding.integer or x.encoding.name in FLOATS):
        problems.append(f"the CPU backend can't run {x.encoding.name} ({name} of {x.name})")
    if len(x.shape) == 2 and matrices.setdefault(x.name, x) is not x:
        problems.append(f"two matrices are named {x.name}: the CPU backend keeps them by name")
    return problems


def _check_tensor(program: Program, node: Node, x: Tensor) -> list[str]:
    if x.program is not program:
        return [f"{node.op.name} reads a result of another program"]
    if program.nodes[x.index].op in ops.QUANTIZED and not (x is node.inputs[0] and _takes_int8(node)):
        return [f"{node.op.name} can't read int8: only a product with integer weights does"]
    return []


def _takes_int8(node: Node) -> bool:
    return node.op in (ops.linear, ops.linear_add) and _weight(node, 1).encoding.integer is not None


# What an op's shape rule leaves open and its kernel relies on.


def _check_reshape(node: Node, _context: int) -> list[str]:
    given, wanted = list(_tensor(node, 0).shape), list(node.shape)
    fits = given[0] == wanted[0] and _width(tuple(given)) == _width(node.shape)
    return [] if fits else [f"reshape can't make {wanted} of {given}"]


def _check_rope(node: Node, context: int) -> list[str]:
    table, width = node.inputs[2], int(node.shape[-1])
    assert isinstance(table, Constant)
    positions, _, pairs = table.value.shape
    if positions >= context and 2 * pairs <= width:
        return []
    return [f"rope needs a table of {context} positions and at most half of {width} pairs: not {list(table.shape)}"]


def _check_attention(node: Node, _context: int) -> list[str]:
    cache, heads = node.inputs[3], int(node.shape[1])
    assert isinstance(cache, Cache)
    problems = []
    if _tensor(node, 1).shape[1:] != (cache.heads, cache.width) or heads % cache.heads:
        problems.append(f"attention of {list(node.shape)} needs a cache of such heads: not {cache}")
    if cache.width > WIDEST_HEAD:
        problems.append(f"the CPU backend has heads of up to {WIDEST_HEAD} channels: not {cache.width}")
    return problems


def _check_quantized(node: Node, _context: int) -> list[str]:
    if _width(node.shape) % ops.GROUP == 0:
        return []
    return [f"{node.op.name} needs rows of a multiple of {ops.GROUP} numbers: not {list(node.shape)}"]


CHECKS: dict[str, Callable[[Node, int], list[str]]] = {
    "attention": _check_attention,
    "reshape": _check_reshape,
    "rope": _check_rope,
    **dict.fromkeys((op.name for op in ops.QUANTIZED), _check_quantized),
}


def result_bytes(node: Node, limits: Mapping[str, int]) -> int:
    """The memory of a node's result at the limits of T and R."""
    rows, width = limits[str(node.shape[0])], padded(_width(node.shape))
    if node.op in ops.QUANTIZED:
        return rows * width + rows * (width // ops.GROUP) * QUANT_RECORD
    return rows * width * 4


def _width(shape: tuple[int | str, ...]) -> int:
    width = 1
    for d in shape:
        width *= d if isinstance(d, int) else 1
    return width


# ---- one function for each op


def _embed(s: _Site) -> list[Call]:
    weight = _weight(s.node, 0)
    panels, _, size = s.places.panels(weight)
    key = ("embed", weight.encoding.name)
    return [s.call(*key, rows=s.rows, width=s.width, row=4 * s.stored, tokens=s.places.input("tokens"), panels=panels,
                   panel=size, out=s.out)]  # fmt: skip


def _rms_norm(s: _Site, residual: int = 0) -> list[Call]:
    width = int(s.node.shape[-1])
    return [s.call("rms_norm", rows=s.rows, each=s.width // width, width=width, row=4 * s.stored,
                   eps=s.node.attributes["eps"], x=s.at(0), weight=s.places.vector(s.node.inputs[1]),
                   residual=residual, out=s.out)]  # fmt: skip


def _rms_norm_add(s: _Site) -> list[Call]:
    return _rms_norm(s, s.at(2))


def _rms_norm_quantize(s: _Site) -> list[Call]:
    return [s.call("rms_norm_quantize", rows=s.rows, width=s.width, eps=s.node.attributes["eps"], x=s.at(0),
                   weight=s.places.vector(s.node.inputs[1]), out=s.out, quant=s.out + _ints(s))]  # fmt: skip


def _quantize(s: _Site) -> list[Call]:
    return [s.call("quantize", rows=s.rows, width=s.width, x=s.at(0), out=s.out, quant=s.out + _ints(s))]


def _ints(s: _Site) -> int:
    """Bytes of a quantized tensor's int8, before their records."""
    return s.places.limit(str(s.node.shape[0])) * s.width


def _linear(s: _Site, residual: int = 0) -> list[Call]:
    weight, x = _weight(s.node, 1), _tensor(s.node, 0)
    panels, count, size = s.places.panels(weight)
    width = weight.shape[1]
    if x.program.nodes[x.index].op in ops.QUANTIZED:
        kind, x_row, quant = "int8", width, s.at(0) + s.places.limit(str(x.shape[0])) * width
        quant_row = width // ops.GROUP * QUANT_RECORD
    else:
        kind, x_row, quant, quant_row = "f32", 4 * padded(width), 0, 0
    return [s.call("linear", weight.encoding.name, kind, rows=s.rows, width=width, stride=count * LANES, panels=panels,
                   panels_count=count, panel=size, run=_run(count, size), x=s.at(0), x_row=x_row, quant=quant,
                   quant_row=quant_row, residual=residual, out=s.out)]  # fmt: skip


def _linear_add(s: _Site) -> list[Call]:
    return _linear(s, s.at(2))


def _run(panels: int, size: int) -> int:
    """Panels of a piece: pieces are a power of two in number, at least two, so that they share out evenly."""
    pieces = 1 << max(1, (panels * size // PIECE_BYTES).bit_length() - 1)
    return -(-panels // pieces)


def _rope(s: _Site) -> list[Call]:
    _, heads, width = s.node.shape
    table = s.node.inputs[2]
    assert isinstance(table, Constant)
    return [s.call("rope", s.node.attributes["style"], rows=s.rows, heads=int(heads), width=int(width),
                   row=4 * s.stored, pairs=int(table.shape[-1]), positions=s.places.input("positions"),
                   table=s.places.vector(table), x=s.at(0), out=s.out)]  # fmt: skip


def _attention(s: _Site) -> list[Call]:
    cache, given = s.node.inputs[3], s.node.attributes
    assert isinstance(cache, Cache)
    _, heads, width = s.node.shape
    place, codec, inputs = s.places.cache(cache), s.places.codec, s.places.input
    cap, channels = given.get("cap", 0.0), padded(cache.width)
    return [
        s.call("store_cache", codec, rows=s.rows, heads=cache.heads, width=cache.width, padded=channels,
               row=4 * padded(cache.heads * cache.width), slots=inputs("slots"), cache=place, k=s.at(1), v=s.at(2)),
        s.call("attend", codec, int(channels % 64 == 0), int(cap > 0), _rows_at_once(int(heads) // cache.heads),
               parts=inputs("parts"), part_tiles=inputs("part_tiles"), part_spans=inputs("part_spans"),
               tile_sequences=inputs("tile_sequences"), tile_tokens=inputs("tile_tokens"),
               tile_counts=inputs("tile_counts"), tile_sums=inputs("tile_sums"), tables=inputs("blocks"),
               table_width=s.places.table_width, positions=inputs("positions"), heads=int(heads),
               kv_heads=cache.heads, width=int(width), padded=channels, row=4 * s.stored,
               window=given.get("window") or ALL_KEYS, scale=given["scale"], cap=cap, cache=place,
               sums=s.places.span_sums, finished=s.places.finished_parts, q=s.at(0), out=s.out),
    ]  # fmt: skip


def _rows_at_once(group: int) -> int:
    """Query rows of a register tile for one token: its group in equal shares of up to six."""
    return -(-group // -(-group // 6))


def _add(s: _Site) -> list[Call]:
    return [s.call("add", rows=s.rows, width=s.stored, x=s.at(0), y=s.at(1), out=s.out)]


def _add_bias(s: _Site) -> list[Call]:
    bias = s.places.vector(s.node.inputs[1])
    return [s.call("add_bias", rows=s.rows, width=s.stored, x=s.at(0), bias=bias, out=s.out)]


def _scale(s: _Site) -> list[Call]:
    return [s.call("scale", rows=s.rows, width=s.stored, factor=s.node.attributes["factor"], x=s.at(0), out=s.out)]


def _soft_cap(s: _Site) -> list[Call]:
    return [s.call("soft_cap", rows=s.rows, width=s.stored, cap=s.node.attributes["cap"], x=s.at(0), out=s.out)]


def _glu(s: _Site) -> list[Call]:
    act = s.node.attributes["act"]
    return [s.call("glu", act, rows=s.rows, width=s.stored, gate=s.at(0), up=s.at(1), out=s.out)]


def _glu_quantize(s: _Site) -> list[Call]:
    return [s.call("glu_quantize", s.node.attributes["act"], rows=s.rows, width=s.width, gate=s.at(0), up=s.at(1),
                   out=s.out, quant=s.out + _ints(s))]  # fmt: skip


def _rows(s: _Site) -> list[Call]:
    index = s.places.input("logit_rows")
    return [s.call("rows", rows=s.rows, width=s.stored, index=index, x=s.at(0), out=s.out)]


def _tensor(node: Node, i: int) -> Tensor:
    x = node.inputs[i]
    assert isinstance(x, Tensor)
    return x


def _weight(node: Node, i: int) -> Weight:
    weight = node.inputs[i]
    assert isinstance(weight, Weight)
    return weight


LOWERINGS: dict[str, Callable[[_Site], list[Call]]] = {
    "add": _add,
    "add_bias": _add_bias,
    "attention": _attention,
    "embed": _embed,
    "glu": _glu,
    "glu_quantize": _glu_quantize,
    "linear": _linear,
    "linear_add": _linear_add,
    "quantize": _quantize,
    "rms_norm": _rms_norm,
    "rms_norm_add": _rms_norm_add,
    "rms_norm_quantize": _rms_norm_quantize,
    "rope": _rope,
    "rows": _rows,
    "scale": _scale,
    "soft_cap": _soft_cap,
}
