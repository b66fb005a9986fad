"""From LLVM's object code to code that runs: a linker and a loader, for kernels only.

`link` runs where kernels are compiled. It turns an object file into an image: its sections one after the other, with
all references between them resolved, so that it runs at any address. `load` puts images into memory and makes that
executable. So a process whose kernels are on disk needs no LLVM, whose library takes longer to map than a small model
takes to load.

The formats: System V ABI, chapters 4 and 5 (object files, relocations), and its supplements for AMD64 (section 4.4) and
AArch64 (github.com/ARM-software/abi-aa, aaelf64.rst, section 5.7). Kernels are self-contained: constants, no variables,
and calls of a few functions of the system's C library.
"""

import ctypes
import mmap
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sotol.errors import SotolError

__all__ = ["C_FUNCTIONS", "Image", "Memory", "link", "load"]

# The only functions that kernels may call outside of their own code: a process could lack any others.
C_FUNCTIONS = {"sched_yield", "memcpy", "memset", "memmove", "fmaf", "rintf", "fmaxf", "fminf", "roundevenf"}
# Those with other names on Windows, and their libraries; and what functions with large stack frames call there.
WINDOWS = {"sched_yield": ("SwitchToThread", "kernel32"), "__chkstk": ("__chkstk", "ntdll")}

AMD64, AARCH64 = 62, 183  # e_machine
SYMBOLS, RELOCATIONS, ZEROS = 2, 4, 8  # sh_type: SHT_SYMTAB, SHT_RELA, SHT_NOBITS
WRITE, ALLOCATE = 1, 2  # sh_flags
PAGE = 4096  # images begin at a multiple of it: AArch64 addresses data by pages of this size, on every system
SLOT = 8  # bytes of an address
ADDRESSES = {AMD64: 1, AARCH64: 257}  # R_X86_64_64, R_AARCH64_ABS64
# A jump to the address that is stored after it: jmp *2(%rip) and two bytes; ldr x16, #8 and br x16.
STUBS = {AMD64: bytes.fromhex("ff25020000000f0b"), AARCH64: bytes.fromhex("5000005800021fd6")}


class Image(NamedTuple):
    """Machine code that runs at any multiple of PAGE. `bytes` makes it what is kept on disk, `read` reads that."""

    code: bytes
    entry: int  # offset of the function
    inner: tuple[int, ...]  # places of offsets within the image; loading turns them into addresses
    imports: tuple[tuple[int, str], ...]  # functions of the C library: the place of the address, and the name

    def __bytes__(self) -> bytes:
        head = struct.pack("<III", self.entry, len(self.inner), len(self.imports))
        named = b"".join(struct.pack("<IB", at, len(name)) + name.encode() for at, name in self.imports)
        return head + struct.pack(f"<{len(self.inner)}I", *self.inner) + named + self.code

    @classmethod
    def read(cls, data: bytes) -> "Image":
        """The image that `bytes` wrote; the caller has checked that the data is undamaged."""
        entry, places, count = struct.unpack_from("<III", data)
        inner = struct.unpack_from(f"<{places}I", data, 12)
        at, imports = 12 + 4 * places, list[tuple[int, str]]()
        for _ in range(count):
            where, size = struct.unpack_from("<IB", data, at)
            at += 5 + size
            imports.append((where, data[at - size : at].decode()))
        return cls(data[at:], entry, inner, tuple(imports))


# ---- linking


class _Section(NamedTuple):
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


class _Symbol(NamedTuple):
    name: str
    section: int  # 0: defined elsewhere
    value: int


def link(data: bytes, name: str) -> Image:
    """The image of an ELF object file whose function `name` is to be called.

    Raises SotolError for variables, and for kinds of references that kernels do not have.
    """
    machine = struct.unpack_from("<H", data, 18)[0]
    if data[:5] != b"\x7fELF\x02" or machine not in STUBS:
        raise SotolError(f"kernel {name}: LLVM's object code is of another kind than ELF for x86-64 or ARM64")
    sections = _sections(data)
    code, places = _place(data, sections, name)
    symbols = _symbols(data, sections)
    stubs, inner = dict[str, int](), list[int]()
    for section in sections:
        if section.kind == RELOCATIONS and section.info in places:
            for offset, kind, number, addend in _relocations(data, section):
                symbol = symbols[number]
                if symbol.section in places:
                    value = places[symbol.section] + symbol.value
                elif symbol.section == 0 and symbol.name in {*C_FUNCTIONS, *WINDOWS}:
                    value = _stub(code, machine, stubs, symbol.name)
                else:
                    raise SotolError(f"kernel {name} refers to {symbol.name!r}, which is not part of its code")
                at = places[section.info] + offset
                if kind == ADDRESSES[machine] and symbol.section:
                    struct.pack_into("<Q", code, at, value + addend)
                    inner.append(at)
                else:
                    _resolve(code, machine, kind, at, value + addend, name)
    entry = next(places[s.section] + s.value for s in symbols if s.name == name)
    imports = tuple((at + len(STUBS[machine]), called) for called, at in stubs.items())
    return Image(bytes(code), entry, tuple(inner), imports)


def _place(data: bytes, sections: Sequence[_Section], name: str) -> tuple[bytearray, dict[int, int]]:
    """The sections that are needed to run, one after the other; and where each of them begins, by its number."""
    code, places = bytearray(), dict[int, int]()
    for number, section in enumerate(sections):
        # Tables for unwinding the stack are left out: kernels raise no exceptions.
        if section.flags & ALLOCATE and section.name != ".eh_frame" and section.size:
            # Constants that contain addresses are in a writable section, since a linker must write these.
            if (section.flags & WRITE and section.name != ".data.rel.ro") or section.kind == ZEROS:
                raise SotolError(f"kernel {name} has variables ({section.name}), which an image can't have")
            code += bytes(-len(code) % max(1, section.alignment))
            places[number] = len(code)
            code += data[section.offset : section.offset + section.size]
    return code, places


def _sections(data: bytes) -> list[_Section]:
    table, size, count, names = *struct.unpack_from("<Q", data, 40), *struct.unpack_from("<HHH", data, 58)
    found = []
    for i in range(count):
        label, kind, flags, _, offset, length, linked, info, alignment, _ = struct.unpack_from(
            "<IIQQQQIIQQ", data, table + i * size
        )
        found.append((label, kind, flags, offset, length, linked, info, alignment))
    start = found[names][3]
    return [_Section(_text(data, start + label), *rest) for label, *rest in found]


def _symbols(data: bytes, sections: Sequence[_Section]) -> list[_Symbol]:
    table = next(section for section in sections if section.kind == SYMBOLS)
    names = sections[table.link].offset
    symbols = []
    for at in range(table.offset, table.offset + table.size, 24):
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", data, at)
        symbols.append(_Symbol(_text(data, names + name), section, value))
    return symbols


def _relocations(data: bytes, section: _Section) -> Iterator[tuple[int, int, int, int]]:
    """Each one's offset, kind, symbol and addend."""
    for at in range(section.offset, section.offset + section.size, 24):
        offset, info, addend = struct.unpack_from("<QQq", data, at)
        yield offset, info & 0xFFFFFFFF, info >> 32, addend


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(0, at)].decode()


def _stub(code: bytearray, machine: int, stubs: dict[str, int], name: str) -> int:
    """The place of a jump to a function of the C library, which may be out of reach of a call instruction."""
    if name not in stubs:
        code += bytes(-len(code) % SLOT)
        stubs[name] = len(code)
        code += STUBS[machine] + bytes(SLOT)
    return stubs[name]


def _resolve(code: bytearray, machine: int, kind: int, at: int, value: int, name: str) -> None:
    """Resolve the reference at `at` to `value`, both offsets in the image."""
    if machine == AMD64:
        if kind not in (2, 4):  # R_X86_64_PC32, R_X86_64_PLT32
            raise SotolError(f"kernel {name} has a reference of AMD64's kind {kind}, which is not known here")
        struct.pack_into("<i", code, at, value - at)
        return
    (word,) = struct.unpack_from("<I", code, at)
    pages = value // PAGE - at // PAGE
    if kind in (282, 283):  # R_AARCH64_JUMP26, CALL26
        word |= (value - at) // 4 & 0x3FFFFFF
    elif kind == 275:  # ADR_PREL_PG_HI21
        word |= (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    elif kind == 277:  # ADD_ABS_LO12_NC
        word |= value % PAGE << 10
    elif kind in SCALES:
        word |= (value % PAGE >> SCALES[kind]) << 10
    elif kind == 261:  # PREL32
        word = (value - at) & 0xFFFFFFFF
    else:
        raise SotolError(f"kernel {name} has a reference of AArch64's kind {kind}, which is not known here")
    struct.pack_into("<I", code, at, word)


# LDST8_ABS_LO12_NC to LDST128_ABS_LO12_NC: loads with offsets in units of 1 << n bytes.
SCALES = {278: 0, 284: 1, 285: 2, 286: 3, 299: 4}


# ---- loading


class Memory(NamedTuple):
    """Loaded images: the address of each one's function. `space` owns the memory: keep it while they may be called."""

    addresses: tuple[int, ...]
    space: object


def load(images: Sequence[Image]) -> Memory:
    """Put images into memory and make it executable; SotolError if the system forbids that."""
    starts, size = [], 0
    for image in images:
        starts.append(size)
        size += -(-len(image.code) // PAGE) * PAGE
    space, base = _reserve(max(size, PAGE))
    addresses = []
    for image, start in zip(images, starts, strict=True):
        ctypes.memmove(base + start, image.code, len(image.code))
        for at in image.inner:
            ctypes.c_uint64.from_address(base + start + at).value += base + start
        for at, name in image.imports:
            ctypes.c_uint64.from_address(base + start + at).value = _address_of(name)
        addresses.append(base + start + image.entry)
    _protect(base, max(size, PAGE))
    return Memory(tuple(addresses), space)


def _address_of(name: str) -> int:
    """The address of a function of the C library."""
    if sys.platform == "win32":
        name, library = WINDOWS.get(name, (name, "ucrtbase"))
        function = getattr(ctypes.WinDLL(library), name)
    else:
        function = getattr(ctypes.CDLL(None), name)
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _reserve(size: int) -> tuple[object, int]:
    """Writable memory: its owner, and its address."""
    if sys.platform == "win32":
        allocate = ctypes.WinDLL("kernel32").VirtualAlloc
        allocate.restype = ctypes.c_void_p
        # MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE; it is never freed
        base = allocate(None, ctypes.c_size_t(size), 0x3000, 0x04)
        if not base:
            raise MemoryError
        return None, base
    space = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return space, ctypes.addressof(ctypes.c_char.from_buffer(space))


def _protect(base: int, size: int) -> None:
    """Make memory executable and read-only."""
    if sys.platform == "win32":
        protect, old = ctypes.WinDLL("kernel32").VirtualProtect, ctypes.c_uint32()
        executable = 0x20  # PAGE_EXECUTE_READ
        done = protect(ctypes.c_void_p(base), ctypes.c_size_t(size), executable, ctypes.byref(old))
        reason = ctypes.FormatError()
    else:
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        done = protect(ctypes.c_void_p(base), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC) == 0
        reason = os.strerror(ctypes.get_errno())
        if sys.platform == "darwin":  # an ARM's instruction cache may have older bytes; Linux flushes it by itself
            ctypes.CDLL(None).sys_icache_invalidate(ctypes.c_void_p(base), ctypes.c_size_t(size))
    if not done:
        raise SotolError(f"this system lets sotol make no code in memory, which its kernels need: {reason}")
