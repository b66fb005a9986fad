"""Calls of machine code in the CPU emulator Bochs (bochscpu-python on PyPI), as a CPU that this machine is not.

The emulated CPU has one thread, no operating system and no memory of its own: in long mode, page tables map every
address of this process to itself, so that code finds its data where the process has it. Intel's Software Developer's
Manual, volume 3, has the registers and the tables.
"""

import ctypes
import mmap
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tests.x86.amx import Tiles

__all__ = ["CPUS", "Cpu", "Emulator", "EmulatorError"]

PAGE, LARGE_PAGE, GIB = 1 << 12, 1 << 21, 1 << 30
TABLES = 1 << 37  # the physical address of the page tables; all else is below
PRESENT, LARGE = 7, 0x87  # bits of a table's entry: present, writable, for users; and a page of 2 MiB
SPACE = 1 << 24  # bytes for page tables, code of our own and a stack
LONG_MODE = {"cr0": 0x80010033, "efer": 0xD00}  # paging, write protection, FPU; long mode
SSE = {"cr4": 0x620, "xcr0": 1}  # 64-bit page tables, SSE state
AVX = {"cr4": 0x40620, "xcr0": 7}  # and XSAVE with it: AVX state
AVX512 = {"cr4": 0x40620, "xcr0": 0xE7}
MXCSR = 0x1F80  # no exceptions, rounding to nearest
INVALID_OPCODE = 6
# cpuid(rdi: leaf, rsi: subleaf, rdx: where four words go)
CPUID = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")
UD2 = bytes.fromhex("0f0b")  # what a call returns to: an invalid instruction stops the emulator


class EmulatorError(Exception):
    """The code did what the emulated CPU can't, or touched memory that the process lacks."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """A model that Bochs emulates."""

    number: int  # in Bochs' list (cpudb.h)
    brand: str  # in what CPUID calls it
    state: dict[str, int]  # what an operating system would enable
    amx: bool = False  # whether it has AMX too, which amx.py does


# The least CPU of each level, so that an instruction that the level must not use stops the emulator.
CPUS = {
    "generic": Cpu(12, "Athlon(tm) 64 Processor 2800+", SSE),  # SSE2
    "avx2": Cpu(24, "i7-4770", AVX),  # Haswell
    "avxvnni": Cpu(31, "Ultra 5 245K", AVX),  # Arrow Lake
    "avx512": Cpu(26, "i7-7800X", AVX512),  # Skylake-X
    "vnni": Cpu(28, "i7-1065G7", AVX512),  # Ice Lake
    "amx": Cpu(28, "i7-1065G7", AVX512, amx=True),
}


class Emulator:
    """One CPU; Bochs has only one in a process."""

    def __init__(self, cpu: Cpu) -> None:
        # The wheel of 0.4.0 names two functions of newer C libraries, which are never called: bind them when they are.
        flags = sys.getdlopenflags()
        sys.setdlopenflags(os.RTLD_LAZY)
        import bochscpu
        import bochscpu.cpu
        import bochscpu.memory

        sys.setdlopenflags(flags)
        self._bochs: Any = bochscpu
        self._cpu = cpu
        _choose_model(bochscpu._bochscpu.__file__, cpu.number)
        self._session: Any = bochscpu.Session()
        self._session.missing_page_handler = self._give_page
        self._hook: Any = bochscpu.Hook()
        self._hook.exception = self._stop
        self._space = mmap.mmap(-1, SPACE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._space))
        self._tables = np.frombuffer(self._space, np.uint64, SPACE // 2 // 8).reshape(-1, 512)
        self._used = 1  # tables; the first is the root
        self._middle: dict[int, int] = {}  # tables of 512 GiB, by the address's upper bits
        self._gigabytes: list[int] = []  # of addresses that are mapped; their place is the physical address
        self._spans: list[tuple[int, int]] = []  # memory that the process has
        self._end = self._put(SPACE // 2, UD2)
        self._cpuid = self._put(SPACE // 2 + PAGE, CPUID)
        self._reason = ""
        self._tiles, self._resumes = Tiles() if cpu.amx else None, False
        name = b"".join(self.cpuid(0x80000002 + i).tobytes() for i in range(3)).decode()
        if cpu.brand not in name:
            raise EmulatorError(f"CPU {cpu.number} of this Bochs is {name}, not {cpu.brand}")

    def _put(self, offset: int, code: bytes) -> int:
        self._space[offset : offset + len(code)] = code
        return self._base + offset

    def call(self, address: int, *arguments: int) -> int:
        """Call a function of up to six integers, by the System V convention.

        Raises EmulatorError for an exception of the CPU.
        """
        self._map()
        state: Any = self._bochs.State()
        for name, value in (LONG_MODE | self._cpu.state).items():
            setattr(state, name, value)
        state.cr3, state.mxcsr, state.mxcsr_mask, state.rflags = TABLES, MXCSR, 0xFFFF, 2
        state.cs = self._segment(8, 0x209B)  # 64-bit code
        for name in ("ds", "ss", "es", "gs"):
            setattr(state, name, self._segment(16, 0xC093))
        state.fs = self._segment(16, 0xC093, _thread_pointer())  # the C library's functions look there
        for name, value in zip(("rdi", "rsi", "rdx", "rcx", "r8", "r9"), arguments, strict=False):
            setattr(state, name, value % 2**64)
        state.rsp = self._base + SPACE - PAGE - 8
        ctypes.c_uint64.from_address(state.rsp).value = self._end
        state.rip = address
        self._session.cpu.state = state
        self._reason, self._resumes = "", True
        while self._resumes:
            self._resumes = False
            self._session.run([self._hook])
        if self._reason:
            raise EmulatorError(f"{self._cpu.brand}: {self._reason}")
        return int(ctypes.c_int64(self._session.cpu.rax).value)

    def close(self) -> None:
        """Break the circle of Bochs' objects and this one, which Bochs would complain about at exit."""
        self._hook.exception = self._session.missing_page_handler = id

    def cpuid(self, leaf: int, subleaf: int = 0) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """EAX, EBX, ECX, EDX."""
        words = np.zeros(4, np.uint32)
        self.call(self._cpuid, leaf, subleaf, words.ctypes.data)
        return words

    def _segment(self, selector: int, attributes: int, base: int = 0) -> Any:
        segment: Any = self._bochs.Segment()
        segment.present, segment.selector, segment.attr = True, selector, attributes
        segment.base, segment.limit = base, 0xFFFFFFFF
        return segment

    def _map(self) -> None:
        """Bring the page tables up to the process's memory: a GiB of addresses is a table of large pages."""
        self._spans = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            begin, end = (int(x, 16) for x in span.split("-"))
            if rights[0] != "r" or end > 1 << 47:
                continue
            self._spans.append((begin, end))
            for gigabyte in range(begin // GIB, (end - 1) // GIB + 1):
                if gigabyte not in self._gigabytes:
                    self._map_gigabyte(gigabyte)

    def _map_gigabyte(self, gigabyte: int) -> None:
        upper, lower = divmod(gigabyte, 512)
        if upper not in self._middle:
            self._middle[upper] = self._new_table()
            self._tables[0, upper] = TABLES + PAGE * self._middle[upper] + PRESENT
        table = self._new_table()
        self._tables[self._middle[upper], lower] = TABLES + PAGE * table + PRESENT
        physical = GIB * len(self._gigabytes)
        self._tables[table] = np.arange(physical + LARGE, physical + GIB, LARGE_PAGE)
        self._gigabytes.append(gigabyte)

    def _new_table(self) -> int:
        self._used += 1
        return self._used - 1

    def _give_page(self, physical: int) -> None:
        """Tell Bochs where a page is that it meets for the first time."""
        page = physical // PAGE * PAGE
        if page >= TABLES:
            address = self._base + page - TABLES
        else:
            address = self._gigabytes[page // GIB] * GIB + page % GIB
            if not any(begin <= address < end for begin, end in self._spans):
                self._reason = f"no memory at {address:#x}"
                self._session.stop()
                return
        self._bochs.memory.page_insert(page, address)

    def _stop(self, session: Any, _cpu: int, vector: int, error: int) -> None:
        """At an exception of the CPU: the call's end, an instruction of AMX, or the code's fault."""
        at = session.cpu.rip
        if vector == INVALID_OPCODE and self._tiles and self._tiles.run(at, partial(getattr, session.cpu)):
            self._resumes = True
        elif vector != INVALID_OPCODE or at != self._end + len(UD2):
            self._reason = f"exception {vector} ({error:#x}) before {at:#x}"
        session.stop()


def _thread_pointer() -> int:
    """The base of FS in this thread, which the C library's thread handle is."""
    handle = ctypes.CDLL(None).pthread_self
    handle.restype = ctypes.c_uint64
    return int(handle())


def _choose_model(library: str, number: int) -> None:
    """Bochs' setting "cpu.model", which the bindings leave at its default: set through the C++ functions."""
    so = ctypes.CDLL(library)
    get, put = so["_ZN13bx_real_sim_c14get_param_enumEPKcP10bx_param_c"], so["_ZN15bx_param_enum_c3setEl"]
    get.argtypes, get.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p], ctypes.c_void_p
    put.argtypes, put.restype = [ctypes.c_void_p, ctypes.c_int64], None
    put(get(ctypes.c_void_p.in_dll(so, "SIM"), b"cpu.model", None), number)
