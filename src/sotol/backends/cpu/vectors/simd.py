"""Vectors as first-class Numba values: 16 lanes on every CPU, and memory by its address, an int64.

A kernel is written in Python; each call below becomes a few LLVM instructions. LLVM splits the 16 lanes where the
hardware's registers are narrower, so every CPU computes the same sums in the same order: explicit fma, one reduction
tree, an exp of our own, no fast-math. The primitives that have more than one form (f16 conversion, integer dot products
in `dots.py`) are chosen by the `Target` and give the same bits in each.

Importing this module imports Numba, which only processes that compile kernels do (`compile.py`).
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from sotol.backends.cpu.layout import CACHE_LINE, LANES, VECTOR_BYTES

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
F32 = ir.FloatType()
F16 = ir.HalfType()
VF = ir.VectorType(F32, LANES)  # 16 f32
VI = ir.VectorType(I32, LANES)  # 16 i32
VH = ir.VectorType(F16, LANES)  # 16 f16
LARGEST_F16 = 65504.0  # the largest finite f16


class Vector(types.Type):
    """A vector of 16 lanes of f32 or i32."""

    def __init__(self, name: str, llvm: ir.Type) -> None:
        self.llvm = llvm
        super().__init__(name=name)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.llvm)


f32x16 = Vector("f32x16", VF)
i32x16 = Vector("i32x16", VI)

Builder = Any  # llvmlite's IRBuilder, which is untyped
Value = Any


# ---- LLVM IR, shared with tiles.py and dots.py


def constant(kind: ir.VectorType, x: float) -> ir.Constant:
    """The vector whose lanes are all x."""
    return ir.Constant(kind, [x] * kind.count)


def call(b: Builder, name: str, result: ir.Type, *args: Value) -> Value:
    """Call an LLVM intrinsic by its full name."""
    function = cgutils.get_or_insert_function(b.module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(function, args)


def offset(b: Builder, address: Value, bytes_: int) -> Value:
    """address + a constant number of bytes."""
    return b.add(address, ir.Constant(I64, bytes_)) if bytes_ else address


def load_ir(b: Builder, address: Value, kind: ir.Type) -> Value:
    """Load any type from an address, unaligned."""
    return b.load(b.inttoptr(address, kind.as_pointer()), align=1)


def store_ir(b: Builder, value: Value, address: Value) -> None:
    """Store any value at an address, unaligned."""
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=1)


def splat_ir(b: Builder, x: Value, kind: ir.VectorType) -> Value:
    """All lanes x."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(undefined, x, ir.Constant(I32, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count))


def lane_ir(b: Builder, v: Value, lane: int) -> Value:
    """All lanes v[lane]."""
    return b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), ir.Constant(VI, [lane] * LANES))


def fma_ir(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x * y + z, rounded once."""
    return call(b, "llvm.fma.v16f32", VF, x, y, z)


def clamp_ir(b: Builder, x: Value, most: float) -> Value:
    """x, but at least -most and at most most; NaN stays NaN."""
    x = b.select(b.fcmp_ordered("<", x, constant(VF, -most)), constant(VF, -most), x)
    return b.select(b.fcmp_ordered(">", x, constant(VF, most)), constant(VF, most), x)


def max_ir(b: Builder, x: Value, y: Value) -> Value:
    """x where x > y, else y: a comparison and a choice, so that zeros' signs and NaNs come out alike on every CPU."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def reduce_ir(b: Builder, v: Value, join: Callable[[Builder, Value, Value], Value]) -> Value:
    """All lanes joined to one number by halving: the same tree of sums on every CPU."""
    for half in (8, 4, 2, 1):
        rotated = ir.Constant(VI, [(i + half) % LANES for i in range(LANES)])
        v = join(b, v, b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), rotated))
    return b.extract_element(v, ir.Constant(I32, 0))


def exp_ir(b: Builder, x: Value) -> Value:
    """e**x with an error below 2 units in the last place: exactly 0 below -87, clamped above 88.

    Cody-Waite reduction and the degree-5 polynomial of Cephes' expf (S. Moshier, netlib.org/cephes).
    """
    tiny = b.fcmp_ordered("<", x, constant(VF, -87.0))
    x = b.select(tiny, constant(VF, -87.0), x)
    x = b.select(b.fcmp_ordered(">", x, constant(VF, 88.0)), constant(VF, 88.0), x)
    n = call(b, "llvm.rint.v16f32", VF, b.fmul(x, constant(VF, 1.44269504)))
    r = fma_ir(b, n, constant(VF, 2.12194440e-4), fma_ir(b, n, constant(VF, -0.693359375), x))
    p = constant(VF, 1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = fma_ir(b, p, r, constant(VF, c))
    p = b.fadd(fma_ir(b, b.fmul(r, r), p, r), constant(VF, 1.0))
    power = b.shl(b.add(b.fptosi(n, VI), constant(VI, 127)), constant(VI, 23))
    return b.select(tiny, constant(VF, 0.0), b.fmul(p, b.bitcast(power, VF)))


def tanh_ir(b: Builder, x: Value) -> Value:
    """tanh(x), relative error below 4e-7: Cephes' tanhf, a polynomial up to 0.625, beyond it 1 - 2 / (e**2|x| + 1)."""
    one, size = constant(VF, 1.0), call(b, "llvm.fabs.v16f32", VF, x)
    z, p = b.fmul(x, x), constant(VF, -5.70498872745e-3)
    for c in (2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1):
        p = fma_ir(b, p, z, constant(VF, c))
    near = fma_ir(b, b.fmul(p, z), x, x)
    far = b.fsub(one, b.fdiv(constant(VF, 2.0), b.fadd(exp_ir(b, b.fadd(size, size)), one)))
    signed = call(b, "llvm.copysign.v16f32", VF, far, x)
    return b.select(b.fcmp_ordered("<", size, constant(VF, 0.625)), near, signed)


def f16_to_f32_ir(form: str, b: Builder, address: Value) -> Value:
    """16 f16 at an address as f32, exactly. The integer form is for CPUs without the instruction."""
    if form == "native":
        return b.fpext(load_ir(b, address, VH), VF)
    bits = b.zext(load_ir(b, address, ir.VectorType(I16, LANES)), VI)
    magnitude = b.shl(b.and_(bits, constant(VI, 0x7FFF)), constant(VI, 13))
    # As a float of the same exponent field the value is 2**-112 too small; the product is exact, subnormals included.
    scaled = b.fmul(b.bitcast(magnitude, VF), constant(VF, 2.0**112))
    special = b.icmp_unsigned(">=", magnitude, constant(VI, 0x7C00 << 13))  # infinity and NaN keep their exponent
    value = b.select(special, b.or_(magnitude, constant(VI, 0x7F800000)), b.bitcast(scaled, VI))
    return b.bitcast(b.or_(value, b.shl(b.and_(bits, constant(VI, 0x8000)), constant(VI, 16))), VF)


def f32_to_f16_ir(form: str, b: Builder, v: Value) -> Value:
    """16 f32 as f16 bits (16 x i16), rounded to nearest even."""
    short = ir.VectorType(I16, LANES)
    if form == "native":
        return b.bitcast(b.fptrunc(v, VH), short)
    bits = b.bitcast(v, VI)
    sign = b.and_(b.lshr(bits, constant(VI, 16)), constant(VI, 0x8000))
    magnitude = b.and_(bits, constant(VI, 0x7FFFFFFF))
    # Normal results: drop 13 bits, rounding to even, and change the exponent's bias from 127 to 15.
    odd = b.and_(b.lshr(magnitude, constant(VI, 13)), constant(VI, 1))
    normal = b.lshr(
        b.add(b.add(magnitude, odd), ir.Constant(VI, [((15 - 127) << 23) + 0xFFF] * LANES)), constant(VI, 13)
    )
    # Subnormal results: adding 0.5 makes the f32 adder shift and round; the low bits of the sum are the result.
    half = b.fadd(b.bitcast(magnitude, VF), constant(VF, 0.5))
    subnormal = b.sub(b.bitcast(half, VI), constant(VI, 0x3F000000))
    small = b.icmp_unsigned("<", magnitude, constant(VI, 0x38800000))  # below 2**-14
    large = b.icmp_unsigned(">=", magnitude, constant(VI, 0x47800000))  # 2**16 and above: infinity
    nan = b.icmp_unsigned(">", magnitude, constant(VI, 0x7F800000))
    value = b.select(small, subnormal, normal)
    value = b.select(large, constant(VI, 0x7C00), value)
    value = b.select(nan, constant(VI, 0x7E00), value)
    return b.trunc(b.or_(value, sign), short)


def stack_ir(b: Builder, size: int) -> Value:
    """The address of `size` bytes on the stack, aligned to 64."""
    with b.goto_entry_block():  # outside loops: once per call. cgutils.alloca_once would also write zeros to it
        space = b.alloca(ir.ArrayType(I8, size))
    space.align = VECTOR_BYTES
    return b.ptrtoint(space, I64)


# ---- what kernels call: scalars


def _loader(kind: types.Type, llvm: ir.Type) -> Any:
    @intrinsic
    def load(_context: Any, _address: Any) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            return load_ir(b, args[0], llvm)

        return kind(types.int64), generate

    return load


def _storer(kind: types.Type) -> Any:
    @intrinsic
    def store(_context: Any, _address: Any, _value: Any) -> Any:
        def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
            store_ir(b, args[1], args[0])
            return c.get_dummy_value()

        return types.void(types.int64, kind), generate

    return store


load_i64 = _loader(types.int64, I64)
load_i32 = _loader(types.int32, I32)
load_f32 = _loader(types.float32, F32)
store_f32 = _storer(types.float32)
store_i32 = _storer(types.int32)
store_i64 = _storer(types.int64)


@intrinsic(prefer_literal=True)
def stack(_context: Any, size: Any) -> Any:
    """The address of `size` bytes (a literal) on the calling thread's stack, aligned to 64."""
    count = size.literal_value

    def generate(_c: Any, b: Builder, _s: Any, _args: Any) -> Value:
        return stack_ir(b, count)

    return types.int64(size), generate


@intrinsic
def sqrt(_context: Any, _x: Any) -> Any:
    """The correctly rounded square root of a float32."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return call(b, "llvm.sqrt.f32", F32, args[0])

    return types.float32(types.float32), generate


@intrinsic(prefer_literal=True)
def prefetch(_context: Any, address: Any, size: Any) -> Any:
    """Prefetch `size` bytes (a literal) that will be read once. The address need not be valid."""

    def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
        byte, flags = ir.IntType(8).as_pointer(), [ir.Constant(I32, n) for n in (0, 0, 1)]  # read, keep not, data
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        for at in range(0, size.literal_value, CACHE_LINE):
            b.call(function, [b.inttoptr(offset(b, args[0], at), byte), *flags])
        return c.get_dummy_value()

    return types.void(types.int64, size), generate


# ---- what kernels call: vectors


def _unary(result: types.Type, argument: types.Type, f: Callable[[Builder, Value], Value]) -> Any:
    @intrinsic
    def op(_context: Any, _x: Any) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            return f(b, args[0])

        return result(argument), generate

    return op


def _binary(kind: types.Type, f: Callable[[Builder, Value, Value], Value]) -> Any:
    @intrinsic
    def op(_context: Any, _x: Any, _y: Any) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            return f(b, *args)

        return kind(kind, kind), generate

    return op


load = _loader(f32x16, VF)
store = _storer(f32x16)
splat = _unary(f32x16, types.float32, lambda b, x: splat_ir(b, x, VF))
absolute = _unary(f32x16, f32x16, lambda b, x: call(b, "llvm.fabs.v16f32", VF, x))
rint = _unary(f32x16, f32x16, lambda b, x: call(b, "llvm.rint.v16f32", VF, x))
exp = _unary(f32x16, f32x16, exp_ir)
tanh = _unary(f32x16, f32x16, tanh_ir)
to_int = _unary(i32x16, f32x16, lambda b, x: b.fptosi(x, VI))
lane_sum = _unary(types.float32, f32x16, lambda b, x: reduce_ir(b, x, lambda b, u, v: b.fadd(u, v)))
lane_max = _unary(types.float32, f32x16, lambda b, x: reduce_ir(b, x, max_ir))
maximum = _binary(f32x16, max_ir)


@intrinsic
def fma(_context: Any, _x: Any, _y: Any, _z: Any) -> Any:
    """x * y + z of three vectors, rounded once."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return fma_ir(b, *args)

    return f32x16(f32x16, f32x16, f32x16), generate


@intrinsic
def store_bytes(_context: Any, _address: Any, _v: Any) -> Any:
    """Store 16 integer lanes as 16 int8."""

    def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
        store_ir(b, b.trunc(args[1], ir.VectorType(I8, LANES)), args[0])
        return c.get_dummy_value()

    return types.void(types.int64, i32x16), generate


@intrinsic
def load_bfloats(_context: Any, _address: Any) -> Any:
    """16 bf16 at an address as f32."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        bits = b.zext(load_ir(b, args[0], ir.VectorType(I16, LANES)), VI)
        return b.bitcast(b.shl(bits, constant(VI, 16)), VF)

    return f32x16(types.int64), generate


def f16_loader(form: str) -> Any:
    """load(address) -> f32x16 from 16 f16, in the target's form."""

    @intrinsic
    def load_f16(_context: Any, _address: Any) -> Any:
        def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
            return f16_to_f32_ir(form, b, args[0])

        return f32x16(types.int64), generate

    return load_f16


def f16_storer(form: str) -> Any:
    """store(address, f32x16) as 16 f16, in the target's form: rounded to nearest even, saturated to ±65504."""

    @intrinsic
    def store_f16(_context: Any, _address: Any, _v: Any) -> Any:
        def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
            store_ir(b, f32_to_f16_ir(form, b, clamp_ir(b, args[1], LARGEST_F16)), args[0])
            return c.get_dummy_value()

        return types.void(types.int64, f32x16), generate

    return store_f16


def _scatterer(kind: ir.Type) -> Any:
    @intrinsic(prefer_literal=True)
    def scatter(_context: Any, address: Any, stride: Any, source: Any) -> Any:
        """Copy 16 consecutive values at source to address, address + stride, … (stride in bytes, a literal)."""
        size, apart = kind.width // 8, stride.literal_value

        def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
            for i in range(LANES):
                store_ir(b, load_ir(b, offset(b, args[2], size * i), kind), offset(b, args[0], apart * i))
            return c.get_dummy_value()

        return types.void(types.int64, stride, types.int64), generate

    return scatter


scatter_shorts, scatter_words = _scatterer(I16), _scatterer(I32)


def _operator(symbol: Callable[[Any, Any], Any], name: str) -> None:
    """Give f32x16 an arithmetic operator."""

    @infer_global(symbol)
    class _Typing(ConcreteTemplate):
        cases: Any = [signature(f32x16, f32x16, f32x16)]  # noqa: RUF012  (Numba's interface)

    @lower_builtin(symbol, f32x16, f32x16)
    def lower(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return getattr(b, name)(*args)


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, _name)
