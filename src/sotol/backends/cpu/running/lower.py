"""From a Program to calls of CPU kernels: what a lowering gets and returns. `lowerings.py` has one for each op.

T tokens, S sequences, R rows with results.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, zip_longest
from typing import NamedTuple, Protocol

from sotol.backends.cpu.building.library import Key
from sotol.backends.cpu.layout import QUANT_RECORD, padded
from sotol.backends.cpu.panels import panel_problems
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.memory import Cache
from sotol.program.program import INNER, Node, Operand, Program, Result, StepInput, Tensor
from sotol.program.step import Limits

__all__ = [
    "CachePlace", "Call", "Lowering", "Places", "Site", "lower", "missing", "piece_panels", "residual_of",
    "result_bytes", "width_of",
]  # fmt: skip

FLOATS = {"F32", "F16", "BF16"}
MANY_PIECES = 16  # that threads can share evenly, whatever their number
PIECE_BYTES = 98304  # of weights in one piece of a product, at least: long enough for memory to stream


class Call(NamedTuple):
    """One kernel on the tape."""

    key: Key
    arguments: Mapping[str, int | float]
    node: int  # of the program, for profiles
    last: bool = False  # of its phase: the next call waits until the whole phase is done


class CachePlace(NamedTuple):
    """A cache, as addresses."""

    address: int
    block: int  # bytes of one block: of all its heads, or of one sequence's state
    values_at: int  # bytes from a head's keys to its values, in a block
    codecs: tuple[str, str]  # of keys and values
    tables: int  # int32 [S, table_width]: ids of blocks
    table_width: int
    firsts: int  # int32 [S]: number of the block that a sequence's table begins with
    slots: int  # int32 [T]: where K and V of each token go


class Places(Protocol):
    """Where things are in memory, as addresses."""

    def limit(self, dim: str) -> int: ...  # the most of T, S or R
    def result(self, node: int, output: int = 0) -> int: ...
    def count(self, dim: str) -> int: ...  # the address of T, S or R
    def input(self, name: str) -> int: ...  # a step's array
    def panels(self, weight: Weight) -> tuple[int, int, int]: ...  # address, panels, bytes of each
    def vector(self, x: Operand) -> int: ...  # float32 numbers: a vector weight or a constant
    def columns(self, x: Weight) -> int: ...  # float32 numbers of a matrix, column by column
    def cache(self, cache: Cache) -> CachePlace: ...
    def attention(self, window: int, *, chunked: bool) -> Mapping[str, int]: ...  # the arrays of `sharing.py`
    def attention_scratch(self, number: int) -> tuple[int, int]: ...  # records, and counts of finished shares, 0
    def sorted_choices(self, node: int, count: int) -> tuple[int, int]: ...  # a node's order and runs (`routing.py`)


class Site(NamedTuple):
    """A node that is being lowered."""

    node: Node
    number: int
    places: Places
    beside: int = 0  # how many ops of the same name come before it in its phase

    @property
    def out(self) -> int:
        return self.places.result(self.number)

    @property
    def rows(self) -> int:
        """The address of the number of rows."""
        return self.places.count(str(self.node.shape[0]))

    @property
    def width(self) -> int:
        """Numbers in a row of the result."""
        return width_of(self.node.shape)

    @property
    def stored(self) -> int:
        """The same in memory: whole vectors. Numbers behind the row's own are undefined."""
        return padded(self.width)

    def at(self, x: Operand) -> int:
        """The address of a tensor, or of an array of the step."""
        if isinstance(x, StepInput):
            return self.places.input(x.name)
        assert isinstance(x, Tensor)
        assert x.program is not INNER
        return self.places.result(x.index, x.output)

    def call(self, *key: str | int, **arguments: int | float) -> Call:
        return Call(key, arguments, self.number)


class Lowering(NamedTuple):
    """How the CPU backend runs an op, or a fused one.

    calls(site): the kernels to call, in order. needs(node, context): checks what the kernels rely on beyond the op's
    rule, and returns a sentence if this node does not have it; kernels check nothing.
    """

    calls: Callable[[Site], list[Call]]
    needs: Callable[[Node, int], str | None] = lambda _node, _context: None


def lower(program: Program, phases: Sequence[int], places: Places, lowerings: Mapping[str, Lowering]) -> list[Call]:
    """The calls that run a program that lacks nothing (see `missing`), in order. phases: of its nodes.

    First come the first calls of all nodes of a phase, then their second ones, and so on.
    """
    calls: list[Call] = []
    working = [i for i, node in enumerate(program.nodes) if node.op is not ops.reshape]
    for _, members in groupby(working, key=phases.__getitem__):
        seen: dict[str, int] = {}
        tracks = []
        for i in members:
            name = program.nodes[i].op.name
            seen[name] = seen.get(name, -1) + 1
            tracks.append(lowerings[name].calls(Site(program.nodes[i], i, places, seen[name])))
        for side_by_side in zip_longest(*tracks):
            group = [call for call in side_by_side if call is not None]
            calls += [*group[:-1], group[-1]._replace(last=True)]
    return calls


def missing(program: Program, lowerings: Mapping[str, Lowering], context: int = 1) -> list[str]:
    """What the CPU backend lacks for a program over sequences of up to `context` tokens; one sentence each."""
    problems = list[str]()
    for node in program.nodes:
        name = node.op.name
        for part in node.parts or (node,):
            problems += [said for x in part.inputs if isinstance(x, Weight) and (said := _check_weight(name, x))]
        if name == "reshape":
            problems += _check_reshape(node)
        elif name not in lowerings:
            problems.append(f"the CPU backend has no kernel for {name}")
        elif said := lowerings[name].needs(node, context):
            problems.append(said)
    for name, x in program.results.items():
        if x.kind != "f32":
            problems.append(f"a program can't end in {program.nodes[x.index].op.name}: {name} is {x.kind}, not float32")
    return list(dict.fromkeys(problems))


def _check_weight(name: str, x: Weight) -> str | None:
    layout = x.encoding.integer
    problems = [] if layout is None else panel_problems(layout)
    if not problems and (layout is not None or x.encoding.kind in FLOATS):
        return None
    return f"the CPU backend can't run {x.encoding.name} ({name} of {x.name})" + "".join(f": {p}" for p in problems)


def _check_reshape(node: Node) -> list[str]:
    (x,) = node.inputs
    assert isinstance(x, Tensor)
    fits = x.shape[0] == node.shape[0] and width_of(x.shape) == width_of(node.shape)
    return [] if fits else [f"reshape can't make {list(node.shape)} of {list(x.shape)}"]


def result_bytes(result: Result, limits: Limits) -> int:
    """The memory of a result at the limits of T, S and R."""
    rows, width = limits.of(str(result.shape[0])), padded(width_of(result.shape))
    if result.kind == "int8":
        return rows * width + rows * (width // ops.GROUP) * QUANT_RECORD
    return rows * width * 4


def piece_panels(panels: int, size: int, together: int = 1) -> int:
    """Panels of a piece. The number of pieces is a power of two, at least two, which threads can share evenly.

    together: make it a multiple of so many, which a kernel works on at a time, where many pieces are left.
    """
    pieces = 1 << max(1, (panels * size // PIECE_BYTES).bit_length() - 1)
    each = -(-panels // pieces)
    several = -(-each // together) * together
    return several if panels >= MANY_PIECES * several else each


def residual_of(add: Node) -> Operand:
    """The summand that is computed outside the fused node which the add is a part of."""
    return next(x for x in add.inputs if isinstance(x, Tensor) and x.program is not INNER)


def width_of(shape: tuple[int | str, ...]) -> int:
    """Numbers in a row."""
    width = 1
    for d in shape:
        width *= d if isinstance(d, int) else 1
    return width
