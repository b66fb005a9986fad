"""Integer dot products by AMX, the matrix unit of Intel's server CPUs: 16 tokens times 16 weight rows at once.

Its registers are tiles of up to 16 lines of 64 bytes, whose shapes a kernel configures at the beginning of a piece. A
product adds to tile SUMS, i32 [tokens, rows], the product of tiles INPUTS, int8 [tokens, inputs], and WEIGHTS, bytes
[inputs / 4, rows, 4]: a line of weights is a vector of `dots.py`. Tile BIASES has the shape of WEIGHTS and only -bias.
Intel's Software Developer's Manual, volume 2, has the instructions.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sotol.backends.cpu.layout import LANES, VECTOR_BYTES
from sotol.backends.cpu.vectors.simd import I8, I64, Builder, Value, call, offset, stack_ir

__all__ = ["TOKENS", "begin_tiles", "end_tiles", "tile_dots"]

TOKENS = LANES  # of a tile
LINE = VECTOR_BYTES  # of a tile: 16 sums, or four inputs of 16 rows
SUMS, INPUTS, WEIGHTS, BIASES = range(4)  # tile registers


def _do(b: Builder, instruction: str, *tiles: int, at: Value = None, stride: Value = None) -> None:
    """An instruction on tiles; loads and stores also take a pointer and the bytes from one line to the next."""
    operands = [*(ir.Constant(I8, tile) for tile in tiles), *(x for x in (at, stride) if x is not None)]
    call(b, f"llvm.x86.{instruction}", ir.VoidType(), *operands)


def _pointer(b: Builder, address: Value) -> Value:
    return b.inttoptr(address, I8.as_pointer())


def _bytes(b: Builder, values: bytes) -> Value:
    """A pointer to constant bytes."""
    kind = ir.ArrayType(I8, len(values))
    return b.bitcast(cgutils.global_constant(b, "tiles", ir.Constant(kind, bytearray(values))), I8.as_pointer())


def begin_tiles(width: int, bias: int) -> Any:
    """begin(): configure the calling thread's tiles for `tile_dots` of the same width and bias."""
    shapes = {SUMS: (TOKENS, LINE), INPUTS: (TOKENS, width), WEIGHTS: (width // 4, LINE), BIASES: (width // 4, LINE)}
    palette = bytearray(64)
    palette[0] = 1
    for tile, (lines, line_bytes) in shapes.items():
        palette[16 + 2 * tile], palette[48 + tile] = line_bytes, lines

    @intrinsic
    def begin(_context: Any) -> Any:
        def generate(c: Any, b: Builder, _s: Any, _args: Any) -> Value:
            _do(b, "ldtilecfg", at=_bytes(b, bytes(palette)))
            if bias:
                biases = _bytes(b, bytes([256 - bias]) * (LINE * width // 4))
                _do(b, "tileloadd64", BIASES, at=biases, stride=ir.Constant(I64, LINE))
            return c.get_dummy_value()

        return types.void(), generate

    return begin


@intrinsic
def end_tiles(_context: Any) -> Any:
    """Release the tiles, so that a context switch need not save them."""

    def generate(c: Any, b: Builder, _s: Any, _args: Any) -> Value:
        _do(b, "tilerelease")
        return c.get_dummy_value()

    return types.void(), generate


def tile_dots(width: int, bias: int) -> Any:
    """dots(weights, apart, subgroup, x, x_stride, quant, quant_stride) -> the address of exact sums of (q - bias) * x.

    As `dots.group_dots` for 16 tokens, one panel and weights as bytes. But the sums are in memory, i32 [tokens, 16
    rows], until the same call runs again: in registers they would leave no room for anything else.
    """

    @intrinsic(prefer_literal=True)
    def dots(
        _context: Any, _weights: Any, _apart: Any, subgroup: Any, _x: Any, _x_stride: Any, _quant: Any, _stride: Any
    ) -> Any:
        first = subgroup.literal_value * width  # input of the group

        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            line, sums = ir.Constant(I64, LINE), stack_ir(b, LINE * TOKENS)
            _do(b, "tilezero", SUMS)
            _do(b, "tileloadd64", INPUTS, at=_pointer(b, offset(b, args[3], first)), stride=args[4])
            if bias:
                _do(b, "tdpbssd", SUMS, INPUTS, BIASES)  # signed times signed
            _do(b, "tileloadd64", WEIGHTS, at=_pointer(b, offset(b, args[0], LINE // 4 * first)), stride=line)
            _do(b, "tdpbsud", SUMS, INPUTS, WEIGHTS)  # signed times unsigned
            _do(b, "tilestored64", SUMS, at=_pointer(b, sums), stride=line)
            return sums

        words = [types.int64] * 4
        return types.int64(types.int64, types.int64, subgroup, *words), generate

    return dots
