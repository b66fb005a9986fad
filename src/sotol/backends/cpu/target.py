"""The CPU level that kernels are compiled for: the host's best one, or the one that SOTOL_CPU names.

A level sets LLVM's processor and features, and the form of the few primitives that have several (`simd.py`, `dots.py`).
All forms give the same bits, so a level changes only the speed.
"""

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sotol.errors import SotolError, explained

__all__ = ["Target", "host_target", "levels", "target_for"]

_X86, _ARM = {"x86_64", "amd64"}, {"aarch64", "arm64"}  # of `platform.machine()`, which is in capitals on Windows


class Target(NamedTuple):
    """A CPU level: what LLVM generates code for, and the forms of the primitives."""

    level: str  # "generic", "avx2", "avxvnni", "avx512", "amx", "vnni", "neon", "dotprod"
    triple: str  # LLVM's, for Linux; `compile.py` changes it for other systems
    processor: str  # LLVM's name, as "haswell"
    features: str  # LLVM's list, as "+avx2,+fma"
    dot: str  # the form of the int8 dot product: a key of dots.DOTS
    f16: str  # the form of conversions of f16: "native" where the CPU has them, else "integer"
    lanes: int  # f32 in one hardware register, which decides the size of register tiles


# Linux's names of CPU features that differ from LLVM's.
LLVM_NAMES = {"avx_vnni": "avxvnni", "avx512_vnni": "avx512vnni", "amx_tile": "amx-tile", "amx_int8": "amx-int8"}

_AVX2 = "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt,+lzcnt"
_AVX512 = _AVX2 + ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,-prefer-256-bit"
_VNNI = _AVX512 + ",+avx512vnni"
# level: (features the host must have, the target). `host_target` takes the last one that the host has. Each x86 level
# includes the ones before it, except avxvnni.
_LEVELS: dict[str, tuple[tuple[str, ...], Target]] = {
    "generic": ((), Target("generic", "x86_64-unknown-linux-gnu", "x86-64", "", "generic", "integer", 4)),
    "avx2": (
        ("avx2", "fma", "f16c", "bmi2"),
        Target("avx2", "x86_64-unknown-linux-gnu", "haswell", _AVX2, "avx2", "native", 8),
    ),
    "avxvnni": (
        ("avx2", "fma", "f16c", "bmi2", "avxvnni"),
        Target("avxvnni", "x86_64-unknown-linux-gnu", "alderlake", _AVX2 + ",+avxvnni", "avxvnni", "native", 8),
    ),
    "avx512": (
        ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
        Target("avx512", "x86_64-unknown-linux-gnu", "skylake-avx512", _AVX512, "avx512", "native", 16),
    ),
    "vnni": (
        ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"),
        Target("vnni", "x86_64-unknown-linux-gnu", "cascadelake", _VNNI, "vnni", "native", 16),
    ),
    # vnni, and AMX for 16 tokens or more.
    "amx": (
        ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "amx-tile", "amx-int8"),
        Target("amx", "x86_64-unknown-linux-gnu", "cascadelake", _VNNI + ",+amx-tile,+amx-int8", "amx", "native", 16),
    ),
    "neon": ((), Target("neon", "aarch64-unknown-linux-gnu", "generic", "+neon", "generic", "native", 4)),
    "dotprod": ((), Target("dotprod", "aarch64-unknown-linux-gnu", "generic", "+neon,+dotprod", "sdot", "native", 4)),
}


def target_for(level: str) -> Target:
    """The target of a level by name, also of one that the host can compile for but not run.

    Raises SotolError for an unknown name.
    """
    if level not in _LEVELS:
        raise SotolError(f"unknown CPU level {level!r}: use one of {', '.join(_LEVELS)}")
    return _LEVELS[level][1]


@cache
def levels() -> tuple[str, ...]:
    """The levels that this machine can run, in the order of `_LEVELS`."""
    if platform.machine().lower() in _ARM:
        return ("neon", "dotprod") if _has_dotprod() else ("neon",)
    if platform.machine().lower() not in _X86:
        return ()
    has = _features()
    return tuple(
        name
        for name, (needed, target) in _LEVELS.items()
        if target.triple.startswith("x86_64") and has.issuperset(needed) and (name != "amx" or _may_use_tiles())
    )


def _features() -> frozenset[str]:
    """The features of this x86-64 CPU that the system supports, by LLVM's names.

    Raises SotolError if neither the system nor LLVM tells.
    """
    if sys.platform != "linux":
        return _features_by_llvm()
    with explained("reading /proc/cpuinfo, which says what this CPU can do"):
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return frozenset(LLVM_NAMES.get(flag, flag) for flag in flags)


def _features_by_llvm() -> frozenset[str]:
    try:
        import llvmlite.binding as llvm  # noqa: PLC0415  (a large library)
    except (ImportError, OSError) as error:
        raise SotolError(f"LLVM, which knows what CPUs can do, can't be loaded (package llvmlite): {error}") from error
    return frozenset(name for name, has in llvm.get_host_cpu_features().items() if has)


def _may_use_tiles() -> bool:
    """Ask Linux for permission to use AMX's tiles, for this process and all threads that it starts.

    arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): docs.kernel.org/arch/x86/xstate.html.
    """
    return sys.platform == "linux" and ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0


def _has_dotprod() -> bool:
    """Whether this ARM64 CPU has SDOT, which LLVM does not tell."""
    if sys.platform == "darwin":
        return True  # on every Mac with ARM64
    if sys.platform != "linux":
        return False
    auxiliary = ctypes.CDLL(None).getauxval
    auxiliary.argtypes, auxiliary.restype = [ctypes.c_ulong], ctypes.c_ulong
    return bool(auxiliary(16) >> 20 & 1)  # AT_HWCAP, HWCAP_ASIMDDP


def host_target() -> Target:
    """The level to run on: SOTOL_CPU's, or the last one that the host has.

    Raises SotolError for a level that is unknown or that this machine lacks.
    """
    able = levels()
    if not able:
        raise SotolError(f"no CPU kernels for {platform.machine()}: sotol runs on x86-64 and ARM64")
    level = os.environ.get("SOTOL_CPU") or able[-1]
    if level == "generic" and "neon" in able:
        level = "neon"
    if level not in able:
        raise SotolError(f"SOTOL_CPU={level}: this machine has {', '.join(able)}")
    return target_for(level)
