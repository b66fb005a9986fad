"""Register tiles as first-class Numba values: a kernel reads like its algorithm, and no source text is generated.

A Tile(R, C) is R rows of C vectors of 16 f32: the accumulators of a kernel's inner loop, which LLVM keeps in registers
where they fit. R and C are literals, and each function below unrolls its loops over them. A "column" is a plain f32x16
whose lane r belongs to row r (so R <= 16).
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from sotol.backends.cpu.layout import LANES, VECTOR_BYTES
from sotol.backends.cpu.vectors.simd import (
    F32,
    I32,
    I64,
    VF,
    VI,
    Builder,
    Value,
    constant,
    f16_to_f32_ir,
    f32x16,
    fma_ir,
    lane_ir,
    load_ir,
    offset,
    splat_ir,
    store_ir,
    tanh_ir,
)

LOWEST = -1e30  # the running maximum before any key: finite, so that the weight of a masked key (-inf) is exactly 0

Rows = list[list[Value]]


class Tile(types.Type):
    """R rows of C vectors of 16 f32."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        super().__init__(name=f"Tile({rows}, {columns})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Tile) -> None:
        super().__init__(manager, kind, ir.LiteralStructType([VF] * (kind.rows * kind.columns)))


def rows_of(b: Builder, kind: Tile, value: Value) -> Rows:
    """A tile's vectors, row by row."""
    return [[b.extract_value(value, r * kind.columns + c) for c in range(kind.columns)] for r in range(kind.rows)]


def tile_of(b: Builder, rows: Rows) -> Value:
    """The tile of these vectors."""
    flat = [v for row in rows for v in row]
    tile = ir.Constant(ir.LiteralStructType([VF] * len(flat)), ir.Undefined)
    for i, v in enumerate(flat):
        tile = b.insert_value(tile, v, i)
    return tile


def row_address(b: Builder, address: Value, stride: Value, row: int) -> Value:
    """address + row * stride."""
    return b.add(address, b.mul(stride, ir.Constant(I64, row))) if row else address


# ---- what kernels call


@intrinsic(prefer_literal=True)
def zeros(_context: Any, rows: Any, columns: Any) -> Any:
    tile = Tile(rows.literal_value, columns.literal_value)

    def generate(_c: Any, b: Builder, _s: Any, _args: Any) -> Value:
        return tile_of(b, [[constant(VF, 0.0)] * tile.columns] * tile.rows)

    return tile(rows, columns), generate


@intrinsic(prefer_literal=True)
def load_rows(_context: Any, rows: Any, columns: Any, address: Any, stride: Any) -> Any:
    """A tile from rows of consecutive f32, `stride` bytes apart."""
    tile = Tile(rows.literal_value, columns.literal_value)

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        starts = [row_address(b, args[2], args[3], r) for r in range(tile.rows)]
        return tile_of(
            b, [[load_ir(b, offset(b, at, VECTOR_BYTES * k), VF) for k in range(tile.columns)] for at in starts]
        )

    return tile(rows, columns, types.int64, types.int64), generate


@intrinsic
def store_rows(_context: Any, tile: Any, address: Any, stride: Any) -> Any:
    """Store a tile's rows as consecutive f32, `stride` bytes apart."""

    def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
        for r, row in enumerate(rows_of(b, tile, args[0])):
            for k, v in enumerate(row):
                store_ir(b, v, offset(b, row_address(b, args[1], args[2], r), VECTOR_BYTES * k))
        return c.get_dummy_value()

    return types.void(tile, types.int64, types.int64), generate


def _add_outer(b: Builder, form: str, sums: list[list[Value]], scalars: Value, stride: Value, places: list[Value],
               copies: int) -> list[list[Value]]:  # fmt: skip
    """sums[r][k] += (the f32 at scalars + r * stride) * the 16 numbers at places[k].

    form: how these are stored: "f32", or f16 as "native" or "integer" (`simd.f16_to_f32_ir`). copies: how many copies
    of the scalars follow one another; column k reads copy k % copies. With two copies a scalar is not kept in a
    register for the second column, so 3 rows of 2 columns fit into AVX2's registers.
    """
    new = [list(row) for row in sums]
    for copy in range(copies):
        columns = range(copy, len(places), copies)
        vectors = {
            k: load_ir(b, places[k], VF) if form == "f32" else f16_to_f32_ir(form, b, places[k]) for k in columns
        }
        for r in range(len(sums)):
            scalar = splat_ir(b, load_ir(b, row_address(b, scalars, stride, copy * len(sums) + r), F32), VF)
            for k in columns:
                new[r][k] = fma_ir(b, scalar, vectors[k], new[r][k])
    return new


def outer_gathered(form: str, copies: int) -> Any:
    """outer(sums, scalars, stride, addresses, at): `_add_outer` of vectors at the int64 in addresses, + at."""
    return _outer_of(form, copies, lambda b, addresses, at, k: b.add(load_ir(b, offset(b, addresses, 8 * k), I64), at))


def outer_in_row(form: str, copies: int) -> Any:
    """outer(sums, scalars, stride, address, apart): `_add_outer` of vectors `apart` bytes apart."""
    return _outer_of(form, copies, row_address)


def _outer_of(form: str, copies: int, place: Callable[[Builder, Value, Value, int], Value]) -> Any:
    """place(builder, fourth argument, fifth, column): where a column's vector is."""

    @intrinsic
    def outer(_context: Any, sums: Any, _scalars: Any, _stride: Any, _address: Any, _distance: Any) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            places = [place(b, args[3], args[4], k) for k in range(sums.columns)]
            return tile_of(b, _add_outer(b, form, rows_of(b, sums, args[0]), args[1], args[2], places, copies))

        return sums(sums, types.int64, types.int64, types.int64, types.int64), generate

    return outer


@intrinsic
def outer(_context: Any, sums: Any, scalars: Any, stride: Any, row: Any) -> Any:
    """sums[r, :] += (the f32 at scalars + r * stride) * row."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        (vectors,), new = rows_of(b, row, args[3]), rows_of(b, sums, args[0])
        for r in range(sums.rows):
            scalar = splat_ir(b, load_ir(b, row_address(b, args[1], args[2], r), F32), VF)
            new[r] = [fma_ir(b, scalar, v, old) for v, old in zip(vectors, new[r], strict=True)]
        return tile_of(b, new)

    return sums(sums, types.int64, types.int64, row), generate


@intrinsic
def scale_rows(_context: Any, tile: Any, _column: Any) -> Any:
    """tile[r, :] * column[r]."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        rows = [(row, lane_ir(b, args[1], r)) for r, row in enumerate(rows_of(b, tile, args[0]))]
        return tile_of(b, [[b.fmul(v, factor) for v in row] for row, factor in rows])

    return tile(tile, f32x16), generate


@intrinsic
def soft_capped(_context: Any, tile: Any, cap: Any) -> Any:
    """cap * tanh(tile / cap)."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        k = splat_ir(b, args[1], VF)
        return tile_of(b, [[b.fmul(k, tanh_ir(b, b.fdiv(v, k))) for v in row] for row in rows_of(b, tile, args[0])])

    return tile(tile, types.float32), generate


@intrinsic
def mask_keys(_context: Any, tile: Any, oldest: Any, last: Any) -> Any:
    """Lane i of vector c of every row is key 16 c + i: -inf where that is none of the keys oldest … last."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        rows, hidden = [], constant(VF, float("-inf"))
        oldest, last = (splat_ir(b, b.trunc(x, I32), VI) for x in args[1:])
        for row in rows_of(b, tile, args[0]):
            new = []
            for k, v in enumerate(row):
                key = ir.Constant(VI, [LANES * k + i for i in range(LANES)])
                seen = b.and_(b.icmp_signed("<=", key, last), b.icmp_signed(">=", key, oldest))
                new.append(b.select(seen, v, hidden))
            rows.append(new)
        return tile_of(b, rows)

    return tile(tile, types.int64, types.int64), generate


def vector_row(columns: int) -> Any:
    """row(vector, …) -> Tile(1, columns) of one vector, or of four."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return tile_of(b, [list(args)])

    if columns == 1:
        return intrinsic(lambda _context, _a: (Tile(1, 1)(f32x16), generate))
    assert columns == 4
    return intrinsic(lambda _context, _a, _b, _c, _d: (Tile(1, 4)(f32x16, f32x16, f32x16, f32x16), generate))
