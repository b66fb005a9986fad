"""Exact integer dot products of weight bytes with int8 activations, in the forms that CPUs have.

A group is 32 inputs (or a half of it) of 16 weight rows: `Bytes` holds eight vectors of 64 unsigned bytes, input
4 j + i of row r at byte 4 r + i of vector j. Every form returns the same integers, so the same bits.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from sotol.backends.cpu.simd import (
    F32,
    I8,
    I16,
    I32,
    VB,
    VF,
    VI,
    WIDTH,
    Builder,
    Value,
    call,
    constant,
    f32x16,
    fma_ir,
    load_ir,
    offset,
    splat_ir,
    store_ir,
)
from sotol.backends.cpu.tiles import Tile, row_address, rows_of, tile_of

VECTORS = 8  # of 64 bytes: 32 inputs of 16 rows


class Bytes(types.Type):
    """Eight vectors of 64 bytes."""

    def __init__(self) -> None:
        super().__init__(name="Bytes")


@register_model(Bytes)
class _BytesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Bytes) -> None:
        super().__init__(manager, kind, ir.LiteralStructType([VB] * VECTORS))


group_bytes = Bytes()


def _pack(b: Builder, vectors: list[Value]) -> Value:
    out = ir.Constant(ir.LiteralStructType([VB] * VECTORS), ir.Undefined)
    for i, v in enumerate(vectors):
        out = b.insert_value(out, v, i)
    return out


def unpacker(bits: int) -> Any:
    """load(address) -> Bytes: the 32 inputs of a group of 16 rows, unsigned, from its packed form (`panels.py`).

    Packed: 256 bytes of low nibbles (vector j in the low half of bytes 64 j.., vector 4 + j in the high half), then the
    bits above the fourth: of 5-bit numbers, bit j of byte n is byte n of vector j's; of 6-bit ones, two bits each over
    two runs of 64 bytes. 8-bit numbers are not packed.
    """

    @intrinsic
    def load_bytes(_context: Any, _address: Any) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            if bits == 8:
                return _pack(b, [load_ir(b, offset(b, args[0], 64 * j), VB) for j in range(VECTORS)])
            packed = [load_ir(b, offset(b, args[0], 64 * j), VB) for j in range(4)]
            low = [b.and_(v, constant(VB, 15)) for v in packed] + [b.lshr(v, constant(VB, 4)) for v in packed]
            if bits == 4:
                return _pack(b, low)
            wide = bits - 4  # bits above the fourth, of 8 / wide vectors in one run of 64 bytes
            high = [load_ir(b, offset(b, args[0], 256 + 64 * k), VB) for k in range(wide)]
            vectors = []
            for j, v in enumerate(low):
                run, place = divmod(j * wide, 8)
                top = b.and_(b.lshr(high[run], constant(VB, place)), constant(VB, (1 << wide) - 1))
                vectors.append(b.or_(v, b.shl(top, constant(VB, 4))))
            return _pack(b, vectors)

        return group_bytes(types.int64), generate

    return load_bytes


# ---- forms: (builder, weight vectors, addresses of each token's int8 inputs, bits of a weight) -> 16 x i32 a token
# The sum of q * x; of (q - 128) * x from the forms in _SIGNED_BYTES, where weights have 8 bits.

Form = Callable[[Builder, list[Value], list[Value], int], list[Value]]


def _part(b: Builder, v: Value, first: int, count: int) -> Value:
    """Bytes first.. of a vector of 64."""
    index = ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))
    return b.shuffle_vector(v, ir.Constant(VB, ir.Undefined), index)


def _inputs(b: Builder, address: Value, j: int, lanes: int) -> Value:
    """Inputs 4 j .. 4 j + 3, repeated over `lanes` lanes, as bytes."""
    four = load_ir(b, offset(b, address, 4 * j), I32)
    return b.bitcast(splat_ir(b, four, ir.VectorType(I32, lanes)), ir.VectorType(I8, 4 * lanes))


def _join(b: Builder, parts: list[Value]) -> Value:
    """Vectors of i32 one after the other."""
    while len(parts) > 1:
        count = 2 * parts[0].type.count
        index = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        parts = [b.shuffle_vector(parts[i], parts[i + 1], index) for i in range(0, len(parts), 2)]
    return parts[0]


def _generic(b: Builder, weights: list[Value], tokens: list[Value], _bits: int) -> list[Value]:
    sums = []
    for x in tokens:
        total = constant(VI, 0)
        for j, w in enumerate(weights):
            words, four = b.bitcast(w, VI), splat_ir(b, load_ir(b, offset(b, x, 4 * j), I32), VI)
            for i in range(4):
                q = b.and_(b.lshr(words, constant(VI, 8 * i)), constant(VI, 255))
                total = b.add(total, b.mul(q, b.ashr(b.shl(four, constant(VI, 24 - 8 * i)), constant(VI, 24))))
        sums.append(total)
    return sums


def _by_register(lanes: int, dot: Callable[[Builder, list[Value], Value, int], Value]) -> Form:
    """A form from its work on one hardware register of `lanes` i32: all tokens on one, then on the next.

    So the weights of one register's rows may stay in registers while the tokens pass.
    """

    def form(b: Builder, weights: list[Value], tokens: list[Value], bits: int) -> list[Value]:
        parts = []
        for k in range(0, WIDTH, lanes):
            pieces = [_part(b, w, 4 * k, 4 * lanes) for w in weights]
            parts.append([dot(b, pieces, x, bits) for x in tokens])
        return [_join(b, list(token)) for token in zip(*parts, strict=True)]

    return form


def _vnni(name: str, lanes: int) -> Form:
    """VPDPBUSD."""

    def dot(b: Builder, weights: list[Value], x: Value, _bits: int) -> Value:
        # Two chains, for the instruction's latency.
        sums = [ir.Constant(ir.VectorType(I32, lanes), None)] * 2
        for j, w in enumerate(weights):
            sums[j % 2] = call(b, name, sums[j % 2].type, sums[j % 2], w, _inputs(b, x, j, lanes))
        return b.add(*sums)

    return _by_register(lanes, dot)


def _pairs(lanes: int, multiply: str, widen: str) -> Form:
    """VPMADDUBSW: sums of pairs in 16 bits, as many as stay exact before they are widened.

    A pair of weights below 2**bits with int8 inputs is at most 2 (2**bits - 1) 127. For 8 bits even one pair would
    not fit, so the weight's sign moves to the input: |q - 128| * 128 * 2 does.
    """
    vb, vs, vi = ir.VectorType(I8, 4 * lanes), ir.VectorType(I16, 2 * lanes), ir.VectorType(I32, lanes)

    def dot(b: Builder, weights: list[Value], x: Value, bits: int) -> Value:
        run = 1 if bits == 8 else 32767 // (2 * ((1 << bits) - 1) * 127)
        total, short = None, None
        for j, q in enumerate(weights):
            four = _inputs(b, x, j, lanes)
            if bits == 8:
                signed = b.xor(q, ir.Constant(vb, [-128] * vb.count))
                zero = ir.Constant(vb, None)
                negative = b.icmp_signed("<", signed, zero)
                q = b.select(negative, b.sub(zero, signed), signed)
                four = b.select(negative, b.sub(zero, four), four)
            pair = call(b, multiply, vs, q, four)
            short = pair if short is None else b.add(short, pair)
            if (j + 1) % run == 0 or j + 1 == len(weights):
                wide = call(b, widen, vi, short, ir.Constant(vs, [1] * vs.count))
                total, short = wide if total is None else b.add(total, wide), None
        return total

    return _by_register(lanes, dot)


def _sdot(b: Builder, weights: list[Value], x: Value, bits: int) -> Value:
    """SDOT of ARM: signed bytes, so those of 8 bits lose their bias."""
    total, four = ir.Constant(ir.VectorType(I32, 4), None), ir.VectorType(I32, 4)
    for j, q in enumerate(weights):
        if j % 4 == 0:  # 16 inputs in one register: the instruction takes a quarter of it by number
            inputs = load_ir(b, offset(b, x, 4 * j), four)
        quarter = ir.Constant(four, [j % 4] * 4)
        chosen = b.bitcast(b.shuffle_vector(inputs, ir.Constant(four, ir.Undefined), quarter), q.type)
        signed = b.xor(q, ir.Constant(q.type, [-128] * q.type.count)) if bits == 8 else q
        total = call(b, "llvm.aarch64.neon.sdot.v4i32.v16i8", four, total, signed, chosen)
    return total


DOTS: dict[str, Form] = {
    "generic": _generic,
    "avx2": _pairs(8, "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    "avx512": _pairs(16, "llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    "avxvnni": _vnni("llvm.x86.avx512.vpdpbusd.256", 8),
    "vnni": _vnni("llvm.x86.avx512.vpdpbusd.512", 16),
    "sdot": _by_register(4, _sdot),
}
_SIGNED_BYTES = {"avx2", "avx512", "sdot"}  # forms that return the dot of q - 128 where weights have 8 bits


def group_dots(form: str, tokens: int, bits: int, bias: int, width: int) -> Any:
    """dots(weights, part, x, x_stride, quant, quant_stride) -> Tile(tokens, 1): exact sums of (q - bias) * x, as f32.

    weights: Bytes; part (a literal): which `width` of its 32 inputs; x: the tokens' int8 of this group, x_stride
    bytes apart; quant: their records (QUANT_RECORD bytes each), quant_stride apart.
    """

    @intrinsic(prefer_literal=True)
    def dots(_context: Any, weights: Any, part: Any, x: Any, x_stride: Any, quant: Any, quant_stride: Any) -> Any:
        first = part.literal_value * width // 4
        sums_at = 4 if width == 32 else 8 + 4 * part.literal_value
        tile = Tile(tokens, 1)

        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            vectors = [b.extract_value(args[0], first + j) for j in range(width // 4)]
            inputs = [offset(b, row_address(b, args[2], args[3], r), 4 * first) for r in range(tokens)]
            rows = []
            for r, total in enumerate(DOTS[form](b, vectors, inputs, bits)):
                dot = b.sitofp(total, VF)
                if bias and not (bits == 8 and form in _SIGNED_BYTES):
                    # |q x| sums stay below 2**24, so this fma is exact: the integer sum of (q - bias) * x.
                    inputs_sum = load_ir(b, offset(b, row_address(b, args[4], args[5], r), sums_at), F32)
                    dot = fma_ir(b, splat_ir(b, inputs_sum, VF), constant(VF, -float(bias)), dot)
                rows.append([dot])
            return tile_of(b, rows)

        return tile(weights, part, types.int64, types.int64, types.int64, types.int64), generate

    return dots


@intrinsic
def add_dots(_context: Any, sums: Any, dots: Any, _scale: Any, quant: Any, stride: Any) -> Any:
    """sums[t] += token scale * (scale * dots[t])."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        rows = []
        for r, ((old,), (dot,)) in enumerate(zip(rows_of(b, sums, args[0]), rows_of(b, dots, args[1]), strict=True)):
            token = splat_ir(b, load_ir(b, row_address(b, args[3], args[4], r), F32), VF)
            rows.append([fma_ir(b, b.fmul(args[2], dot), token, old)])
        return tile_of(b, rows)

    return sums(sums, dots, f32x16, types.int64, types.int64), generate


@intrinsic
def add_dots_minimum(_context: Any, sums: Any, dots: Any, _scale: Any, _minimum: Any, quant: Any, stride: Any) -> Any:
    """sums[t] += token scale * (scale * dots[t] + minimum * token sum)."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        rows = []
        for r, ((old,), (dot,)) in enumerate(zip(rows_of(b, sums, args[0]), rows_of(b, dots, args[1]), strict=True)):
            at = row_address(b, args[4], args[5], r)
            token, total = splat_ir(b, load_ir(b, at, F32), VF), splat_ir(b, load_ir(b, offset(b, at, 4), F32), VF)
            value = fma_ir(b, args[2], dot, b.fmul(args[3], total))
            rows.append([fma_ir(b, value, token, old)])
        return tile_of(b, rows)

    return sums(sums, dots, f32x16, f32x16, types.int64, types.int64), generate


def _values(b: Builder, weights: Value, k: int, scale: Value, minimum: Value | None, bias: int) -> Value:
    """Input k of a group as f32, one lane per row: scale * (q - bias) + minimum, each step rounded, as decode does."""
    j, i = divmod(k, 4)
    words = b.bitcast(b.extract_value(weights, j), VI)
    q = b.sub(b.and_(b.lshr(words, constant(VI, 8 * i)), constant(VI, 255)), constant(VI, bias))
    value = b.fmul(scale, b.sitofp(q, VF))
    return value if minimum is None else b.fadd(value, minimum)


def value_adder(tokens: int, bias: int, width: int, *, minimum: bool) -> Any:
    """add(sums, weights, part, scale, minimum, x, stride): sums[t] += decoded weights * f32 inputs, in input order.

    For activations that stay f32; weights, part as in `group_dots`; x: the group's inputs of each token.
    """

    @intrinsic(prefer_literal=True)
    def add_values(
        _context: Any, sums: Any, weights: Any, part: Any, _scale: Any, _minimum: Any, x: Any, stride: Any
    ) -> Any:
        first = part.literal_value * width

        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            totals = [row[0] for row in rows_of(b, sums, args[0])]
            for k in range(first, first + width):
                value = _values(b, args[1], k, args[3], args[4] if minimum else None, bias)
                for t in range(tokens):
                    at = offset(b, row_address(b, args[5], args[6], t), 4 * k)
                    totals[t] = fma_ir(b, splat_ir(b, load_ir(b, at, F32), VF), value, totals[t])
            return tile_of(b, [[v] for v in totals])

        return sums(sums, weights, part, f32x16, f32x16, types.int64, types.int64), generate

    return add_values


def value_storer(bias: int, width: int, *, minimum: bool) -> Any:
    """put(weights, part, scale, minimum, address): decoded inputs of 16 rows, 64 bytes an input."""

    @intrinsic(prefer_literal=True)
    def store_values(_context: Any, weights: Any, part: Any, _scale: Any, _minimum: Any, _address: Any) -> Any:
        first = part.literal_value * width

        def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
            for k in range(first, first + width):
                value = _values(b, args[0], k, args[2], args[3] if minimum else None, bias)
                store_ir(b, value, offset(b, args[4], 64 * k))
            return c.get_dummy_value()

        return types.void(weights, part, f32x16, f32x16, types.int64), generate

    return store_values


@intrinsic
def load_multipliers(_context: Any, _address: Any) -> Any:
    """16 int8 at an address as f32."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return b.sitofp(load_ir(b, args[0], ir.VectorType(I8, WIDTH)), VF)

    return f32x16(types.int64), generate
