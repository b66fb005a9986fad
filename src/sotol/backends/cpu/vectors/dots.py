"""Exact integer dot products of weight bytes with int8 activations, in the forms that CPUs have.

A group is 32 inputs of 16 weight rows, as eight vectors of 64 unsigned bytes: input 4 j + i of row r is byte 4 r + i of
vector j. A subgroup is the inputs of it that share a scale: all, or 16. Every form of the dot product returns the same
integers, so the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sotol.backends.cpu.layout import GROUP, LANES, PLANES, VECTOR_BYTES
from sotol.backends.cpu.vectors import amx
from sotol.backends.cpu.vectors.codes import VECTORS, Codes, Weights, join, packed_bytes, stored_bytes
from sotol.backends.cpu.vectors.numbers import four_numbers
from sotol.backends.cpu.vectors.simd import (
    F32,
    I8,
    I16,
    I32,
    VF,
    VI,
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
from sotol.backends.cpu.vectors.tiles import Rows, Tile, row_address, rows_of, tile_of

# ---- forms: (builder, weights of each panel, vectors, addresses of each token's int8 inputs, bits of a weight,
# beginnings) -> for each token, of each panel, 16 x i32: the sum of q * x, or of (q - 128) * x for the forms in
# _SIGNED_BYTES where weights have 8 bits. Those in BEGINNING add it to the token's beginning, an i32, if there are any.
# The outer loop is over vectors of weights, the inner one over tokens: a vector stays in a register while all tokens
# use it, and a token's inputs while all panels do.

Form = Callable[[Builder, list[Weights], Sequence[int], list[Value], int, list[Value]], list[list[Value]]]
OnePanel = Callable[[Builder, Weights, Sequence[int], list[Value], int], list[Value]]  # the same without beginnings


def _by_panel(form: OnePanel) -> Form:
    def each(
        b: Builder, panels: list[Weights], vectors: Sequence[int], tokens: list[Value], bits: int, _beginnings: Any
    ) -> list[list[Value]]:
        found = [form(b, weights, vectors, tokens, bits) for weights in panels]
        return [list(dots) for dots in zip(*found, strict=True)]

    return each


def _inputs(b: Builder, address: Value, j: int, lanes: int) -> Value:
    """Inputs 4 j .. 4 j + 3, repeated over `lanes` lanes, as bytes."""
    four = load_ir(b, offset(b, address, 4 * j), I32)
    return b.bitcast(splat_ir(b, four, ir.VectorType(I32, lanes)), ir.VectorType(I8, 4 * lanes))


def _generic(b: Builder, weights: Weights, vectors: Sequence[int], tokens: list[Value], _bits: int) -> list[Value]:
    sums = [constant(VI, 0)] * len(tokens)
    for j in vectors:
        words = b.bitcast(weights(j, 0, LANES), VI)
        for i in range(4):
            q = b.and_(b.lshr(words, constant(VI, 8 * i)), constant(VI, 255))
            for t, x in enumerate(tokens):
                byte = b.sext(load_ir(b, offset(b, x, 4 * j + i), I8), I32)
                sums[t] = b.add(sums[t], b.mul(q, splat_ir(b, byte, VI)))
    return sums


def _vnni(name: str, lanes: int) -> Form:
    """VPDPBUSD: adds four products of an unsigned with a signed byte to each lane of i32."""

    def form(
        b: Builder, panels: list[Weights], vectors: Sequence[int], tokens: list[Value], _bits: int,
        beginnings: list[Value],
    ) -> list[list[Value]]:  # fmt: skip
        kind, parts = ir.VectorType(I32, lanes), LANES // lanes
        registers = [(weights, first) for weights in panels for first in range(0, LANES, lanes)]
        # An instruction takes several cycles before the next can use its sum: so that eight are under way, few tokens
        # have two chains of sums.
        chains = 1 if len(tokens) * len(registers) >= 8 else 2
        sums = [[[ir.Constant(kind, None)] * len(registers) for _ in range(chains)] for _ in tokens]
        if beginnings:
            for of_token, beginning in zip(sums, beginnings, strict=True):
                of_token[0] = [splat_ir(b, beginning, kind)] * len(registers)
        for j in vectors:
            rows = [weights(j, first, lanes) for weights, first in registers]
            for t, x in enumerate(tokens):
                four, chain = _inputs(b, x, j, lanes), sums[t][j % chains]
                for k, w in enumerate(rows):
                    chain[k] = call(b, name, kind, chain[k], w, four)
        whole = [[reduce(b.add, of_register) for of_register in zip(*of_token, strict=True)] for of_token in sums]
        return [[join(b, row[at : at + parts]) for at in range(0, len(row), parts)] for row in whole]

    return form


def _pairs(lanes: int, multiply: str, widen: str, negate: str = "") -> OnePanel:
    """VPMADDUBSW: sums of two products in 16 bits, which saturates: so as many are added as stay exact, then widened.

    Two products of weights below 2**bits with int8 inputs are at most 2 (2**bits - 1) 127. With 8 bits even these would
    not fit, so the weight's sign moves to the input (`negate`: VPSIGNB): 2 * |q - 128| * 127 fits.
    """
    vb, vs, vi = ir.VectorType(I8, 4 * lanes), ir.VectorType(I16, 2 * lanes), ir.VectorType(I32, lanes)
    registers = range(0, LANES, lanes)

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
        return [join(b, [totals[t, k] for k in range(len(registers))]) for t in range(len(tokens))]

    return form


def _sdot(b: Builder, weights: Weights, vectors: Sequence[int], tokens: list[Value], bits: int) -> list[Value]:
    """SDOT of ARM: products of signed bytes, so weights of 8 bits become q - 128 first."""
    four, registers = ir.VectorType(I32, 4), range(0, LANES, 4)
    # 16 inputs in one register: the instruction can take its operand from a quarter of it.
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
    return [join(b, totals) for totals in sums]


DOTS: dict[str, Form] = {
    "generic": _by_panel(_generic),
    "avx2": _by_panel(_pairs(8, "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx2.psign.b")),
    "avx512": _by_panel(_pairs(16, "llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512")),
    "avxvnni": _vnni("llvm.x86.avx512.vpdpbusd.256", 8),
    "vnni": _vnni("llvm.x86.avx512.vpdpbusd.512", 16),
    "amx": _vnni("llvm.x86.avx512.vpdpbusd.512", 16),  # for fewer tokens than a tile of `amx.py` has
    "sdot": _by_panel(_sdot),
}
BEGINNING = {"avxvnni", "vnni", "amx"}
_SIGNED_BYTES = {"avx2", "avx512", "sdot"}  # forms that compute with q - 128 where weights have 8 bits


def group_dots(form: str, tokens: int, panels: int, codes: Codes, width: int, *, packed: bool) -> Any:
    """dots(weights, apart, subgroup, x, x_stride, quant, quant_stride) -> Tile(tokens, panels).

    Exact sums of numbers * x, as f32. With AMX and 16 tokens it returns the address of the sums instead.

    weights: the address of a group, packed codes or bytes that `byte_storer` stored, of the first panel; apart: bytes
    from one panel's to the next one's; subgroup (a literal): 0, or 1 for the second `width` of its 32 inputs; x: the
    tokens' int8 of this group, x_stride bytes apart; quant: their records (QUANT_RECORD bytes each), quant_stride
    apart.
    """
    if form == "amx" and tokens == amx.TOKENS:
        return amx.tile_dots(width, codes.byte_bias)
    bits = codes.byte_bits
    # What the form's weights exceed the numbers by. 128 times the inputs' sum is known, so sums can begin at it.
    bias = codes.byte_bias - (128 if bits == 8 and form in _SIGNED_BYTES else 0)
    begun = form in BEGINNING and bias == 128

    @intrinsic(prefer_literal=True)
    def dots(
        _context: Any, _weights: Any, apart: Any, subgroup: Any, x: Any, x_stride: Any, quant: Any, quant_stride: Any
    ) -> Any:
        count, sums_at = width // 4, inputs_sum_at(width, subgroup.literal_value)
        vectors = list(range(subgroup.literal_value * count, (subgroup.literal_value + 1) * count))
        if packed and count == VECTORS and 4 in PLANES[codes.bits]:
            vectors = [0, 4, 1, 5, 2, 6, 3, 7]  # neighbours share the bytes that they are packed in
        tile = Tile(tokens, panels)

        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            places = [row_address(b, args[0], args[1], n) for n in range(panels)]
            weights = [packed_bytes(b, at, codes, form) if packed else stored_bytes(b, at) for at in places]
            inputs = [row_address(b, args[3], args[4], r) for r in range(tokens)]
            records = [row_address(b, args[5], args[6], r) for r in range(tokens)]
            beginnings = [load_ir(b, offset(b, at, 12 + sums_at), I32) for at in records] if begun else []
            rows = []
            for at, totals in zip(records, DOTS[form](b, weights, vectors, inputs, bits, beginnings), strict=True):
                found = [b.sitofp(total, VF) for total in totals]
                if bias and not begun:
                    # |q x| sums stay below 2**24, so this fma is exact: the integer sum of (q - bias) * x.
                    inputs_sum = splat_ir(b, load_ir(b, offset(b, at, sums_at), F32), VF)
                    found = [fma_ir(b, inputs_sum, constant(VF, -float(bias)), dot) for dot in found]
                rows.append(found)
            return tile_of(b, rows)

        return tile(types.int64, types.int64, subgroup, types.int64, types.int64, types.int64, types.int64), generate

    return dots


def inputs_sum_at(width: int, subgroup: int) -> int:
    """Where a token's record has the sum of its int8 inputs of a subgroup, as f32; -128 times it is 12 bytes on."""
    return 4 if width == GROUP else 8 + 4 * subgroup


def byte_storer(form: str, codes: Codes) -> Any:
    """put(group, address): the vectors of a packed group as unsigned bytes, one after the other."""

    @intrinsic
    def store_bytes(_context: Any, _group: Any, _address: Any) -> Any:
        def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
            weights = packed_bytes(b, args[0], codes, form)
            for j in range(VECTORS):
                store_ir(b, weights(j, 0, LANES), offset(b, args[1], VECTOR_BYTES * j))
            return c.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return store_bytes


def _by_token(b: Builder, kind: types.Type, dots: Value) -> Iterator[list[Value]]:
    """The dots of each token in turn, of each panel, as f32: from registers, or from memory after AMX."""
    if isinstance(kind, Tile):
        yield from rows_of(b, kind, dots)
    else:
        yield from ([b.sitofp(load_ir(b, offset(b, dots, VECTOR_BYTES * t), VI), VF)] for t in range(amx.TOKENS))


def dots_adder(width: int, subgroup: int, *, minimum: bool, zeros: bool) -> Any:
    """add(sums, dots, scale, minimum, zero, quant, stride): a subgroup's dots, scaled and added to the tokens' sums.

    sums[t] += token scale * (scale * (dots[t] - zero * total) + minimum * total), where total is the sum of the token's
    int8 inputs of this subgroup. minimum, zeros: whether the encoding has such terms. Of one panel.
    """
    total_at = inputs_sum_at(width, subgroup)

    @intrinsic
    def add_dots(
        _context: Any, sums: Any, dots: Any, _scale: Any, _minimum: Any, _zero: Any, quant: Any, stride: Any
    ) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            terms = args[2], args[3] if minimum else None, args[4] if zeros else None
            return _added(
                b, rows_of(b, sums, args[0]), _by_token(b, dots, args[1]), [terms], args[5], args[6], total_at
            )

        return sums(sums, dots, f32x16, f32x16, f32x16, types.int64, types.int64), generate

    return add_dots


def stored_adder(width: int, subgroup: int, *, minimum: bool, zeros: bool) -> Any:
    """add(sums, dots, terms, apart, quant, stride): the same of some panels.

    terms: the address of the first one's scale, minimum and zero, those that are; the next one's are `apart` bytes on.
    """
    total_at = inputs_sum_at(width, subgroup)

    @intrinsic
    def add_dots(_context: Any, sums: Any, dots: Any, _terms: Any, _apart: Any, quant: Any, stride: Any) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            terms = []
            for at in (row_address(b, args[2], args[3], n) for n in range(sums.columns)):
                least = load_ir(b, offset(b, at, VECTOR_BYTES), VF) if minimum else None
                zero = load_ir(b, offset(b, at, VECTOR_BYTES * (1 + minimum)), VF) if zeros else None
                terms.append((load_ir(b, at, VF), least, zero))
            return _added(b, rows_of(b, sums, args[0]), _by_token(b, dots, args[1]), terms, args[4], args[5], total_at)

        return sums(sums, dots, types.int64, types.int64, types.int64, types.int64), generate

    return add_dots


def _added(
    b: Builder, sums: Rows, dots: Iterator[list[Value]], terms: Sequence[Sequence[Value]], quant: Value, stride: Value,
    total_at: int,
) -> Value:  # fmt: skip
    """The tile of sums with dots. terms: scale, minimum and zero of each panel, None where there is none; the rest as
    of `add`.
    """
    has_totals = any(term is not None for of_panel in terms for term in of_panel[1:])
    rows = []
    for r, (old, found) in enumerate(zip(sums, dots, strict=True)):
        at = row_address(b, quant, stride, r)
        token = splat_ir(b, load_ir(b, at, F32), VF)
        total = splat_ir(b, load_ir(b, offset(b, at, total_at), F32), VF) if has_totals else None
        new = [_scaled(b, dot, total, *of_panel) for dot, of_panel in zip(found, terms, strict=True)]
        rows.append([fma_ir(b, value, token, before) for value, before in zip(new, old, strict=True)])
    return tile_of(b, rows)


def _scaled(b: Builder, dot: Value, total: Value, scale: Value, minimum: Value, zero: Value) -> Value:
    """scale * (dot - zero * total) + minimum * total, without what is None."""
    if zero is not None:  # exact: integers below 2**24
        dot = fma_ir(b, b.fneg(zero), total, dot)
    return b.fmul(scale, dot) if minimum is None else fma_ir(b, scale, dot, b.fmul(minimum, total))


def value_storer(form: str, codes: Codes, width: int, *, minimum: bool, zeros: bool) -> Any:
    """put(group, subgroup, scale, minimum, zero, address): decoded inputs of 16 rows, 64 bytes an input.

    group: packed codes; subgroup (a literal): 0, or 1 for the second `width` of its 32 inputs.
    """

    @intrinsic(prefer_literal=True)
    def store_values(
        _context: Any, _group: Any, subgroup: Any, _scale: Any, _minimum: Any, _zero: Any, _address: Any
    ) -> Any:
        first, terms = subgroup.literal_value * width, (minimum, zeros)

        def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
            weights = packed_bytes(b, args[0], codes, form)
            for k, value in _decoded(b, weights, codes, form, range(first, first + width), args[2:5], terms):
                store_ir(b, value, offset(b, args[5], VECTOR_BYTES * k))
            return c.get_dummy_value()

        return types.void(types.int64, subgroup, f32x16, f32x16, f32x16, types.int64), generate

    return store_values


def value_adder(form: str, codes: Codes, width: int, *, minimum: bool, zeros: bool) -> Any:
    """add(sums, group, apart, subgroup, scales, minimums, zeros, x): one token's sums, with its inputs times values.

    sums, scales …: a column for each of some panels, whose groups are `apart` bytes from one to the next. Values are
    decoded as by `value_storer`, and never reach memory. x: the f32 inputs of the group. Panels take turns, input by
    input, since a sum must be ready before its next summand comes.
    """

    @intrinsic(prefer_literal=True)
    def add_values(
        _context: Any, sums: Any, _group: Any, _apart: Any, subgroup: Any, _scales: Any, _minimums: Any, _zeros: Any,
        _x: Any,
    ) -> Any:  # fmt: skip
        first, terms = subgroup.literal_value * width, (minimum, zeros)

        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            (totals,), *factors = (rows_of(b, sums, args[i]) for i in (0, 4, 5, 6))
            decoded = []
            for panel, of_panel in enumerate(zip(*(x for (x,) in factors), strict=True)):
                weights = packed_bytes(b, row_address(b, args[1], args[2], panel), codes, form)
                decoded.append(_decoded(b, weights, codes, form, range(first, first + width), of_panel, terms))
            for values in zip(*decoded, strict=True):
                x = splat_ir(b, load_ir(b, offset(b, args[7], 4 * values[0][0]), F32), VF)
                totals = [fma_ir(b, x, value, total) for (_, value), total in zip(values, totals, strict=True)]
            return tile_of(b, [totals])

        return sums(sums, types.int64, types.int64, subgroup, sums, sums, sums, types.int64), generate

    return add_values


def _decoded(
    b: Builder, weights: Weights, codes: Codes, form: str, inputs: range, factors: Sequence[Value],
    terms: tuple[bool, bool],
) -> Iterator[tuple[int, Value]]:  # fmt: skip
    """(input of the group, its values of 16 rows): scale * (number - zero) + minimum, rounded each, as `quant` decodes.

    factors: scale, minimum, zero. terms: whether there are a minimum, and zero points.
    """
    scale, least, zero = factors
    minimum, zeros = terms
    for k in inputs[::4]:
        for i, value in enumerate(four_numbers(b, weights(k // 4, 0, LANES), codes, form)):
            value = b.fmul(scale, b.fsub(value, zero) if zeros else value)
            yield k + i, b.fadd(value, least) if minimum else value


@intrinsic
def load_zeros(_context: Any, _address: Any) -> Any:
    """16 unsigned bytes at an address as f32."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return b.uitofp(load_ir(b, args[0], ir.VectorType(I8, LANES)), VF)

    return f32x16(types.int64), generate
