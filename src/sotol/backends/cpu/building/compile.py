"""Compiles kernels, which are Python functions, to object code for one CPU level.

Numba infers types and makes LLVM IR; LLVM optimizes that for the target and writes object code. `store.py` keeps it on
disk, and `library.py` maps it into processes that never import Numba. Only child processes (`child.py`) run this, so
that several share the work and the settings of the caller's own Numba, if it uses any, stay as they are.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from sotol.backends.cpu.building.linking import C_FUNCTIONS
from sotol.backends.cpu.building.stored import Key, file_name
from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.layout import parse_fields
from sotol.backends.cpu.target import Target
from sotol.errors import SotolError

__all__ = ["compile_kernel"]


def emit(function: Callable[..., Any], parameters: int, symbol: str, target: Target, *, assembly: bool = False) -> Any:
    """Object code (or assembly text) of `symbol`: int64 x parameters -> int64."""
    from numba import njit, types  # noqa: PLC0415

    llvm = _llvm()
    signature = types.int64(*[types.int64] * parameters)
    compiled = njit(signature, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(
        function
    )
    result = compiled.overloads[signature.args]
    inner, numbers = result.fndesc.llvm_func_name, ", ".join(f"i64 %a{i}" for i in range(parameters))
    types_ = ", ".join(["i64"] * parameters)
    # Numba's calling convention returns the result, and any exception, through pointers. Kernels raise none.
    entry = f"""
        declare i32 @{inner}(ptr, ptr, {types_})
        define i64 @{symbol}({numbers}) {{
            %result = alloca i64
            %exception = alloca ptr
            %status = call i32 @{inner}(ptr %result, ptr %exception, {numbers})
            %value = load i64, ptr %result
            ret i64 %value
        }}"""
    module = llvm.parse_assembly(result.library.get_llvm_str())
    module.link_in(llvm.parse_assembly(entry))
    for f in module.functions:
        if not f.is_declaration and f.name != symbol:
            f.linkage = "internal"
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    triple, features = _on_this_system(target)
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu=target.processor, features=features, opt=3, reloc="pic", codemodel="small", jit=True
    )
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.slp_vectorization = False  # the kernels are vectorized already
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    called = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if called - C_FUNCTIONS:
        raise SotolError(f"kernel {symbol} calls {sorted(called - C_FUNCTIONS)}, which processes may lack")
    return machine.emit_assembly(module) if assembly else machine.emit_object(module)


def _on_this_system(target: Target) -> tuple[str, str]:
    """LLVM's triple and features of the target for this system. Object code is ELF everywhere (`linking.py`).

    Two things depend on the system: Windows has its own calling convention, and everywhere but on Linux the system
    reserves ARM64's register x18.
    """
    windows, arm = sys.platform == "win32", target.triple.startswith("aarch64")
    triple = target.triple.replace("unknown-linux-gnu", "pc-windows-msvc-elf") if windows else target.triple
    return triple, target.features + (",+reserve-x18" if arm and sys.platform != "linux" else "")


@cache
def _llvm() -> Any:
    """LLVM, initialized for all CPUs."""
    import llvmlite.binding as llvm  # noqa: PLC0415  (compiling only)

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    # Instructions stay in the order of the kernels: LLVM's scheduler would compute a register tile token by token, with
    # all weights in registers at once; no CPU has enough, and the spills cost 1.4 times the loads on AVX2.
    llvm.set_option("", "--enable-misched=false")
    return llvm


def compile_kernel(key: Key, target: Target, *, assembly: bool = False) -> tuple[Any, str]:
    """Object code (or assembly text) of a kernel or native function, and the text of its argument fields.

    The symbol is file_name(key). A kernel's function is (arguments, line, epoch) -> pieces, or -1 if the epoch is over:
    it takes pieces by the counters on the op's line until none is left, see `kernels/walk.py`.
    """
    from numba import njit  # noqa: PLC0415

    from sotol.backends.cpu.kernels import KERNELS, NATIVE_FACTORIES, NATIVE_FUNCTIONS  # noqa: PLC0415
    from sotol.backends.cpu.vectors import arguments as a  # noqa: PLC0415

    symbol = file_name(key)
    if key[0] in NATIVE_FUNCTIONS:
        return emit(NATIVE_FUNCTIONS[str(key[0])], 5, symbol, target, assembly=assembly), ""
    if key[0] in NATIVE_FACTORIES:
        return emit(NATIVE_FACTORIES[str(key[0])](target, *key[1:]), 5, symbol, target, assembly=assembly), ""
    kernel: Kernel = KERNELS[str(key[0])](target, *key[1:])
    view = a.viewer(parse_fields(kernel.fields))
    pieces, piece = njit(error_model="numpy")(kernel.pieces), njit(error_model="numpy")(kernel.piece)
    load, replace, add = a.atomic_load, a.atomic_replace, a.atomic_add

    def take_pieces(address: int, line: int, epoch: int) -> int:
        block = view(address)
        while True:
            word = load(line)
            if word >> 32 != epoch:
                return -1
            count = pieces(block)
            taken = word & 0xFFFFFFFF
            if taken >= count:
                return count
            if replace(line, word, word + 1):
                piece(block, taken)
                add(line + 8, 1)

    return emit(take_pieces, 3, symbol, target, assembly=assembly), kernel.fields
