"""Exact integer dot products of weight bytes with int8 activations, in the forms that CPUs have.

A group is 32 inputs (or a half of them) of 16 weight rows, as eight vectors of 64 unsigned bytes: input 4 j + i of
row r is byte 4 r + i of vector j. Every form returns the same integers, so the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sotol.backends.cpu.vectors import amx
from sotol.backends.cpu.vectors.simd import (
    F32,
    I8,
    I16,
    I32,
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
from sotol.backends.cpu.vectors.tiles import Tile, row_address, rows_of, tile_of

VECTORS = 8  # of 64 bytes: 32 inputs of 16 rows


Weights = Callable[[int, int, int], Value]  # (vector, first row, rows) -> four bytes a row


def stored_bytes(b: Builder, address: Value) -> Weights:
    """Vectors stored one after the other."""

    def read(j: int, row: int, rows: int) -> Value:
        return load_ir(b, offset(b, address, 64 * j + 4 * row), ir.VectorType(I8, 4 * rows))

    return read


def packed_bytes(b: Builder, address: Value, bits: int) -> Weights:
    """The vectors of a group of 32 inputs of 16 rows, from its packed form (`panels.py`).

    Packed: 256 bytes of low nibbles (vector j in the low half of bytes 64 j.., vector 4 + j in the high half), then the
    bits above the fourth: of 5-bit numbers, bit j of byte n is byte n of vector j's; of 6-bit ones, two bits each over
    two runs of 64 bytes. 8-bit numbers are not packed.
    """
    stored = stored_bytes(b, address)
    if bits == 8:
        return stored
    wide = bits - 4  # bits above the fourth, of 8 / wide vectors in one run of 64 bytes

    def read(j: int, row: int, rows: int) -> Value:
        kind, low = ir.VectorType(I8, 4 * rows), stored(j % 4, row, rows)
        low = b.and_(low, constant(kind, 15)) if j < 4 else b.lshr(low, constant(kind, 4))
        if not wide:
            return low
        run, place = divmod(j * wide, 8)
        high = b.lshr(stored(4 + run, row, rows), constant(kind, place))
        return b.or_(low, b.shl(b.and_(high, constant(kind, (1 << wide) - 1)), constant(kind, 4)))

    return read


# ---- forms: (builder, weights, vectors, addresses of each token's int8 inputs, bits of a weight) -> 16 x i32 a token
# The sum of q * x; of (q - 128) * x from the forms in _SIGNED_BYTES, where weights have 8 bits. Weights go outside,
# tokens inside: a register holds a vector of weights while all tokens use it, and one of inputs for all rows.

Form = Callable[[Builder, Weights, Sequence[int], list[Value], int], list[Value]]


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


def _generic(b: Builder, weights: Weights, vectors: Sequence[int], tokens: list[Value], _bits: int) -> list[Value]:
    sums = [constant(VI, 0)] * len(tokens)
    for j in vectors:
        words = b.bitcast(weights(j, 0, WIDTH), VI)
        for i in range(4):
            q = b.and_(b.lshr(words, constant(VI, 8 * i)), constant(VI, 255))
            for t, x in enumerate(tokens):
                byte = b.sext(load_ir(b, offset(b, x, 4 * j + i), I8), I32)
                sums[t] = b.add(sums[t], b.mul(q, splat_ir(b, byte, VI)))
    return sums


def _vnni(name: str, lanes: int) -> Form:
    """VPDPBUSD."""

    def form(b: Builder, weights: Weights, vectors: Sequence[int], tokens: list[Value], _bits: int) -> list[Value]:
        kind, registers = ir.VectorType(I32, lanes), range(0, WIDTH, lanes)
        # Two chains, for the instruction's latency.
        sums = [[[ir.Constant(kind, None)] * len(registers) for _ in range(2)] for _ in tokens]
        for j in vectors:
            rows = [weights(j, first, lanes) for first in registers]
            for t, x in enumerate(tokens):
                four, chain = _inputs(b, x, j, lanes), sums[t][j % 2]
                for k, w in enumerate(rows):
                    chain[k] = call(b, name, kind, chain[k], w, four)
        return [_join(b, [b.add(p, q) for p, q in zip(*chains, strict=True)]) for chains in sums]

    return form


def _pairs(lanes: int, multiply: str, widen: str, negate: str = "") -> Form:
    """VPMADDUBSW: sums of pairs in 16 bits, as many as stay exact before they are widened.

    A pair of weights below 2**bits with int8 inputs is at most 2 (2**bits - 1) 127. For 8 bits even one pair would
    not fit, so the weight's sign moves to the input (`negate`: VPSIGNB): |q - 128| * 128 * 2 does.
    """
    vb, vs, vi = ir.VectorType(I8, 4 * lanes), ir.VectorType(I16, 2 * lanes), ir.VectorType(I32, lanes)
    registers = range(0, WIDTH, lanes)

    def signed_by(b: Builder, x: Value, q: Value) -> Value:
        if negate:
            return call(b, negate, vb, x, q)
        return b.select(b.icmp_signed("<", q, constant(vb, 0)), b.sub(constant(vb, 0), x), x)

    def form(b: Builder, weights: Weights, vectors: Sequence[int], tokens: list[Value], bits: int) -> list[Value]:
        run = 1 if bits == 8 else 32767 // (2 * ((1 << bits) - 1) * 127)
        totals, shorts = dict[tuple[int, int], Value](), dict[tuple[int, int], Value]()
        for n, j in enumerate(vectors, 1):
            rows = sizes = [weights(j, first, lanes) for first in registers]
            if bits == 8:
                rows = [b.xor(q, constant(vb, -128)) for q in rows]
                sizes = [signed_by(b, q, q) for q in rows]
            for t, x in enumerate(tokens):
                four = _inputs(b, x, j, lanes)
                for k, q in enumerate(rows):
                    pair = call(b, multiply, vs, sizes[k], signed_by(b, four, q) if bits == 8 else four)
                    shorts[t, k] = b.add(shorts[t, k], pair) if (t, k) in shorts else pair
            if n % run == 0 or n == len(vectors):
                for at, short in shorts.items():
                    wide = call(b, widen, vi, short, constant(vs, 1))
                    totals[at] = b.add(totals[at], wide) if at in totals else wide
                shorts.clear()
        return [_join(b, [totals[t, k] for k in range(len(registers))]) for t in range(len(tokens))]

    return form


def _sdot(b: Builder, weights: Weights, vectors: Sequence[int], tokens: list[Value], bits: int) -> list[Value]:
    """SDOT of ARM: signed bytes, so those of 8 bits lose their bias."""
    four, registers = ir.VectorType(I32, 4), range(0, WIDTH, 4)
    # 16 inputs in one register: the instruction takes a quarter of it by number.
    loaded = {(t, j // 4): load_ir(b, offset(b, x, j // 4 * 16), four) for j in vectors for t, x in enumerate(tokens)}
    sums = [[ir.Constant(four, None)] * len(registers) for _ in tokens]
    for j in vectors:
        rows = [weights(j, first, 4) for first in registers]
        if bits == 8:
            rows = [b.xor(q, constant(q.type, -128)) for q in rows]
        quarter = ir.Constant(four, [j % 4] * 4)
        for t, totals in enumerate(sums):
            inputs = b.shuffle_vector(loaded[t, j // 4], ir.Constant(four, ir.Undefined), quarter)
            chosen = b.bitcast(inputs, ir.VectorType(I8, 16))
            for k, q in enumerate(rows):
                totals[k] = call(b, "llvm.aarch64.neon.sdot.v4i32.v16i8", four, totals[k], q, chosen)
    return [_join(b, totals) for totals in sums]


DOTS: dict[str, Form] = {
    "generic": _generic,
    "avx2": _pairs(8, "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx2.psign.b"),
    "avx512": _pairs(16, "llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    "avxvnni": _vnni("llvm.x86.avx512.vpdpbusd.256", 8),
    "vnni": _vnni("llvm.x86.avx512.vpdpbusd.512", 16),
    "amx": _vnni("llvm.x86.avx512.vpdpbusd.512", 16),  # of fewer tokens than a tile of `amx.py` has
    "sdot": _sdot,
}
_SIGNED_BYTES = {"avx2", "avx512", "sdot"}  # forms that return the dot of q - 128 where weights have 8 bits


def group_dots(form: str, tokens: int, bits: int, bias: int, width: int, *, packed: bool) -> Any:
    """dots(weights, part, x, x_stride, quant, quant_stride) -> Tile(tokens, 1): exact sums of (q - bias) * x, as f32.

    Or, from AMX for 16 tokens, the address of the sums.

    weights: the address of a group, packed or as `byte_storer` stores it; part (a literal): which `width` of its 32
    inputs; x: the tokens' int8 of this group, x_stride bytes apart; quant: their records (QUANT_RECORD bytes each),
    quant_stride apart.
    """
    if form == "amx" and tokens == amx.TOKENS:
        return amx.tile_dots(width, bias)

    @intrinsic(prefer_literal=True)
    def dots(_context: Any, _weights: Any, part: Any, x: Any, x_stride: Any, quant: Any, quant_stride: Any) -> Any:
        count, sums_at = width // 4, 4 if width == 32 else 8 + 4 * part.literal_value
        vectors = list(range(part.literal_value * count, (part.literal_value + 1) * count))
        if packed and count == VECTORS:
            vectors = [0, 4, 1, 5, 2, 6, 3, 7]  # those that share bytes one after the other
        tile = Tile(tokens, 1)

        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            weights = packed_bytes(b, args[0], bits) if packed else stored_bytes(b, args[0])
            inputs = [row_address(b, args[2], args[3], r) for r in range(tokens)]
            rows = []
            for r, total in enumerate(DOTS[form](b, weights, vectors, inputs, bits)):
                dot = b.sitofp(total, VF)
                if bias and not (bits == 8 and form in _SIGNED_BYTES):
                    # |q x| sums stay below 2**24, so this fma is exact: the integer sum of (q - bias) * x.
                    inputs_sum = load_ir(b, offset(b, row_address(b, args[4], args[5], r), sums_at), F32)
                    dot = fma_ir(b, splat_ir(b, inputs_sum, VF), constant(VF, -float(bias)), dot)
                rows.append([dot])
            return tile_of(b, rows)

        return tile(types.int64, part, types.int64, types.int64, types.int64, types.int64), generate

    return dots


def byte_storer(bits: int) -> Any:
    """put(group, address): the vectors of a packed group, one after the other."""

    @intrinsic
    def store_bytes(_context: Any, _group: Any, _address: Any) -> Any:
        def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
            weights = packed_bytes(b, args[0], bits)
            for j in range(VECTORS):
                store_ir(b, weights(j, 0, WIDTH), offset(b, args[1], 64 * j))
            return c.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return store_bytes


def _by_token(b: Builder, kind: types.Type, dots: Value) -> Iterator[Value]:
    """The dots of each token in turn, as f32: from registers, or from where AMX left them."""
    if isinstance(kind, Tile):
        yield from (dot for (dot,) in rows_of(b, kind, dots))
    else:
        yield from (b.sitofp(load_ir(b, offset(b, dots, 64 * t), VI), VF) for t in range(amx.TOKENS))


@intrinsic
def add_dots(_context: Any, sums: Any, dots: Any, _scale: Any, quant: Any, stride: Any) -> Any:
    """sums[t] += token scale * (scale * dots[t])."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        rows = []
        for r, ((old,), dot) in enumerate(zip(rows_of(b, sums, args[0]), _by_token(b, dots, args[1]), strict=True)):
            token = splat_ir(b, load_ir(b, row_address(b, args[3], args[4], r), F32), VF)
            rows.append([fma_ir(b, b.fmul(args[2], dot), token, old)])
        return tile_of(b, rows)

    return sums(sums, dots, f32x16, types.int64, types.int64), generate


@intrinsic
def add_dots_minimum(_context: Any, sums: Any, dots: Any, _scale: Any, _minimum: Any, quant: Any, stride: Any) -> Any:
    """sums[t] += token scale * (scale * dots[t] + minimum * token sum)."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        rows = []
        for r, ((old,), dot) in enumerate(zip(rows_of(b, sums, args[0]), _by_token(b, dots, args[1]), strict=True)):
            at = row_address(b, args[4], args[5], r)
            token, total = splat_ir(b, load_ir(b, at, F32), VF), splat_ir(b, load_ir(b, offset(b, at, 4), F32), VF)
            value = fma_ir(b, args[2], dot, b.fmul(args[3], total))
            rows.append([fma_ir(b, value, token, old)])
        return tile_of(b, rows)

    return sums(sums, dots, f32x16, f32x16, types.int64, types.int64), generate


def value_storer(bits: int, bias: int, width: int, *, minimum: bool) -> Any:
    """put(group, part, scale, minimum, address): decoded inputs of 16 rows, 64 bytes an input.

    group: of packed numbers; part (a literal): which `width` of its 32 inputs. A value is scale * (q - bias) +
    minimum, each step rounded, as `quant` decodes.
    """

    @intrinsic(prefer_literal=True)
    def store_values(_context: Any, _group: Any, part: Any, _scale: Any, _minimum: Any, _address: Any) -> Any:
        first = part.literal_value * width // 4

        def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
            weights = packed_bytes(b, args[0], bits)
            for j in range(first, first + width // 4):
                words = b.bitcast(weights(j, 0, WIDTH), VI)
                for i in range(4):
                    q = b.sub(b.and_(b.lshr(words, constant(VI, 8 * i)), constant(VI, 255)), constant(VI, bias))
                    value = b.fmul(args[2], b.sitofp(q, VF))
                    value = b.fadd(value, args[3]) if minimum else value
                    store_ir(b, value, offset(b, args[4], 64 * (4 * j + i)))
            return c.get_dummy_value()

        return types.void(types.int64, part, f32x16, f32x16, types.int64), generate

    return store_values


@intrinsic
def load_multipliers(_context: Any, _address: Any) -> Any:
    """16 int8 at an address as f32."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return b.sitofp(load_ir(b, args[0], ir.VectorType(I8, WIDTH)), VF)

    return f32x16(types.int64), generate
