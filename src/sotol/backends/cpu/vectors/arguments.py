"""A kernel's argument block: fields of 8 bytes, which the kernel reads by name (`a.width`) and `runner.py` fills in.

Kinds of field (`layout.parse_fields`): a number or an address ("width"), an f32 ("scale:f32"), and a count that changes
from step to step ("rows:count"), whose slot holds the address of the number.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_getattr_generic, models, register_model

from sotol.backends.cpu.layout import Field
from sotol.backends.cpu.vectors.simd import F32, I8, I32, I64, Builder, Value, call, load_ir, offset

# Control words with which floats are as IEEE 754 has them by default, and exceptions stop nothing.
MXCSR = 0x1F80  # x86: Intel 64 Software Developer's Manual, volume 1, 10.2.3
FPCR = 0  # ARM: Arm Architecture Reference Manual, FPCR


class Arguments(types.Type):
    """The address of an argument block with these fields."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.index = {name: (i, kind) for i, (name, kind) in enumerate(fields)}
        super().__init__(name=f"Arguments({fields})")


@register_model(Arguments)
class _ArgumentsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Arguments) -> None:
        super().__init__(manager, kind, I64)


@infer_getattr
class _ArgumentsFields(AttributeTemplate):
    key = Arguments

    def generic_resolve(self, block: Arguments, name: str) -> types.Type | None:
        if name not in block.index:
            return None
        return types.float32 if block.index[name][1] == "f32" else types.int64


@lower_getattr_generic(Arguments)
def _read_field(_context: Any, b: Builder, block: Arguments, address: Value, name: str) -> Value:
    index, kind = block.index[name]
    value = load_ir(b, offset(b, address, 8 * index), F32 if kind == "f32" else I64)
    return load_ir(b, value, I64) if kind == "count" else value


def viewer(fields: tuple[Field, ...]) -> Any:
    """view(address) -> the block's Arguments."""
    block = Arguments(fields)

    @intrinsic
    def view(_context: Any, _address: Any) -> Any:
        def generate(_c: Any, _b: Builder, _s: Any, args: Any) -> Value:
            return args[0]

        return block(types.int64), generate

    return view


# ---- what threads share: words of 64 bits, all sequentially consistent


@intrinsic
def atomic_load(_context: Any, _address: Any) -> Any:
    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return b.load_atomic(b.inttoptr(args[0], I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_store(_context: Any, _address: Any, _value: Any) -> Any:
    def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
        b.store_atomic(args[1], b.inttoptr(args[0], I64.as_pointer()), "seq_cst", 8)
        return c.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def atomic_add(_context: Any, _address: Any, _value: Any) -> Any:
    """Add to a word, and return its value before."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        return b.atomic_rmw("add", b.inttoptr(args[0], I64.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_replace(_context: Any, _address: Any, _expected: Any, _value: Any) -> Any:
    """Compare and swap: replace the word if it is as expected; whether it was."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        pointer = b.inttoptr(args[0], I64.as_pointer())
        return b.extract_value(b.cmpxchg(pointer, args[1], args[2], "seq_cst", "seq_cst"), 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def relax(_context: Any) -> Any:
    """Tell the core that this thread is spinning, so that it saves power."""

    def generate(c: Any, b: Builder, _s: Any, _args: Any) -> Value:
        if _is_arm(b):
            call(b, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))
        else:
            call(b, "llvm.x86.sse2.pause", ir.VoidType())
        return c.get_dummy_value()

    return types.void(), generate


@intrinsic
def yield_thread(_context: Any) -> Any:
    """Yield this core to another thread: `sched_yield` of POSIX (`linking.py` has its name on other systems)."""

    def generate(c: Any, b: Builder, _s: Any, _args: Any) -> Value:
        call(b, "sched_yield", I32)
        return c.get_dummy_value()

    return types.void(), generate


@intrinsic
def cycles(_context: Any) -> Any:
    """The processor's cycle counter."""

    def generate(_c: Any, b: Builder, _s: Any, _args: Any) -> Value:
        return call(b, "llvm.readcyclecounter", I64)

    return types.int64(), generate


@intrinsic
def use_standard_floats(_context: Any) -> Any:
    """Round to nearest and keep subnormal numbers, in this thread; gives what was set before, for `restore_floats`.

    A program may have had it otherwise, and new threads have it as the thread that starts them.
    """

    def generate(_c: Any, b: Builder, _s: Any, _args: Any) -> Value:
        if _is_arm(b):
            old = call(b, "llvm.aarch64.get.fpcr", I64)
            call(b, "llvm.aarch64.set.fpcr", ir.VoidType(), ir.Constant(I64, FPCR))
            return old
        place = cgutils.alloca_once(b, I32)
        call(b, "llvm.x86.sse.stmxcsr", ir.VoidType(), b.bitcast(place, I8.as_pointer()))
        old = b.load(place)
        _set_mxcsr(b, ir.Constant(I32, MXCSR))
        return b.zext(old, I64)

    return types.int64(), generate


@intrinsic
def restore_floats(_context: Any, _old: Any) -> Any:
    """Set again what `use_standard_floats` found."""

    def generate(c: Any, b: Builder, _s: Any, args: Any) -> Value:
        if _is_arm(b):
            call(b, "llvm.aarch64.set.fpcr", ir.VoidType(), args[0])
        else:
            _set_mxcsr(b, b.trunc(args[0], I32))
        return c.get_dummy_value()

    return types.void(types.int64), generate


def _set_mxcsr(b: Builder, value: Value) -> None:
    place = cgutils.alloca_once(b, I32)
    b.store(value, place)
    call(b, "llvm.x86.sse.ldmxcsr", ir.VoidType(), b.bitcast(place, I8.as_pointer()))


def _is_arm(b: Builder) -> bool:
    return b.module.triple.startswith(("aarch64", "arm64"))


@intrinsic
def run_kernel(_context: Any, _function: Any, _args: Any, _line: Any, _epoch: Any) -> Any:
    """Call the machine code at an address: (arguments, the op's counters, epoch) -> pieces, or -1."""

    def generate(_c: Any, b: Builder, _s: Any, args: Any) -> Value:
        kind = ir.FunctionType(I64, [I64, I64, I64])
        return b.call(b.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64, types.int64), generate
