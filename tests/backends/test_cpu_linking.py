"""Object code becomes an image that runs where it is put, on this machine; for ARM64 its references are read back."""

import ctypes
import platform
import struct
from typing import Any

import llvmlite.binding as llvm
import pytest

from sotol.backends.cpu.building.linking import AARCH64, PAGE, Image, link, load
from sotol.errors import SotolError

# Constants too large for an instruction, one with an address in it; a function of the C library that is called twice.
PROGRAM = """
    @table = internal constant [4 x i64] [i64 3, i64 5, i64 7, i64 11]
    @tables = internal constant [2 x ptr] [ptr null, ptr getelementptr (i8, ptr @table, i64 8)]
    declare i32 @sched_yield()
    declare float @rintf(float)
    define internal i64 @inner(i64 %i) noinline {
        %at = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
        %value = load i64, ptr %at
        %number = sitofp i64 %value to float
        %near = call float @rintf(float %number)
        %size = fptosi float %near to i64
        ret i64 %size
    }
    define i64 @entry(i64 %i) {
        %before = call i32 @sched_yield()
        %after = call i32 @sched_yield()
        %one = call i64 @inner(i64 %i)
        %odd = and i64 %i, 1
        %where = getelementptr [2 x ptr], ptr @tables, i64 0, i64 %odd
        %second = load ptr, ptr %where
        %set = icmp ne ptr %second, null
        br i1 %set, label %more, label %done
    more:
        %five = load volatile i64, ptr %second
        %five.thousand = mul i64 %five, 1000
        %two = add i64 %one, %five.thousand
        ret i64 %two
    done:
        ret i64 %one
    }
"""
HOSTS = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}


def compiled(program: str, triple: str) -> bytes:
    """LLVM's object code, as `compile.emit` asks for it."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=1, reloc="pic", codemodel="small", jit=True)
    module = llvm.parse_assembly(program)
    module.triple = triple
    code: bytes = machine.emit_object(module)
    return code


@pytest.mark.skipif(platform.machine() not in HOSTS, reason="another kind of machine")
def test_an_image_runs() -> None:
    image = link(compiled(PROGRAM, HOSTS[platform.machine()]), "entry")
    assert {name for _, name in image.imports} == {"sched_yield", "rintf"}
    memory = load([image, image])
    for address in memory.addresses:
        function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)
        assert [function(i) for i in range(4)] == [3, 5005, 7, 5011]


def test_an_image_is_kept_as_bytes() -> None:
    image = link(compiled(PROGRAM, HOSTS["x86_64"]), "entry")
    assert Image.read(bytes(image)) == image


def test_windows_object_code_links() -> None:
    """LLVM writes ELF for it, too; a large frame asks there for the pages of its stack."""
    program = """
        declare void @memset(ptr, i32, i64)
        define i64 @entry(i64 %i) {
            %space = alloca [65536 x i8]
            call void @memset(ptr %space, i32 7, i64 %i)
            ret i64 %i
        }
    """
    image = link(compiled(program, "x86_64-pc-windows-msvc-elf"), "entry")
    assert {name for _, name in image.imports} == {"memset", "__chkstk"}


def test_other_functions_are_refused() -> None:
    program = "declare i64 @labs(i64)\ndefine i64 @entry(i64 %i) {\n%a = call i64 @labs(i64 %i)\nret i64 %a\n}"
    with pytest.raises(SotolError, match="kernel entry refers to 'labs', which is not part of its code"):
        link(compiled(program, HOSTS["x86_64"]), "entry")


@pytest.mark.parametrize("triple", HOSTS.values())
def test_variables_are_refused(triple: str) -> None:
    program = """
        @counter = internal global i64 7
        define i64 @entry() {
            %old = load volatile i64, ptr @counter
            store volatile i64 9, ptr @counter
            ret i64 %old
        }
    """
    with pytest.raises(SotolError, match=r"kernel entry has variables \(\.data\)"):
        link(compiled(program, triple), "entry")


@pytest.mark.parametrize("triple", HOSTS.values())
def test_a_kind_of_reference_that_is_not_known_is_refused(triple: str) -> None:
    code = bytearray(compiled(PROGRAM, triple))
    sections = struct.unpack_from("<Q", code, 40)[0]
    for at in range(sections, len(code), 64):
        if struct.unpack_from("<I", code, at + 4)[0] == 4:  # SHT_RELA
            first = struct.unpack_from("<Q", code, at + 24)[0]
            struct.pack_into("<I", code, first + 8, 999)
    with pytest.raises(SotolError, match=r"reference of A.*64's kind 999"):
        link(bytes(code), "entry")


@pytest.mark.parametrize("data", [b"\x7fELF\x01" + bytes(60), b"MZ" + bytes(60)])
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(SotolError, match="another kind than ELF"):
        link(data, "entry")


def test_the_references_of_arm64_lead_where_they_should() -> None:
    """Decoded as the processor would: calls to stubs, stubs to their slots, ADRP and ADD or LDR to the table."""
    image = link(compiled(PROGRAM, HOSTS["aarch64"]), "entry")
    words = struct.unpack(f"<{len(image.code) // 4}I", image.code[: len(image.code) // 4 * 4])
    slots = dict(image.imports)
    called = set[Any]()
    table = image.code.index(struct.pack("<4q", 3, 5, 7, 11))
    found = set[int]()
    page: dict[int, int] = {}  # by register
    for i, word in enumerate(words[: min(slots) // 4 - 2]):
        if word >> 26 in (0b100101, 0b000101):  # BL, B
            to = 4 * i + 4 * _signed(word & 0x3FFFFFF, 26)
            if to + 8 in slots:
                called.add(slots[to + 8])
        elif word & 0x9F000000 == 0x90000000:  # ADRP
            pages = _signed(word >> 29 & 3 | (word >> 5 & 0x7FFFF) << 2, 21)
            page[word & 31] = 4 * i // PAGE * PAGE + pages * PAGE
        elif word & 0xFFC00000 == 0x91000000 and word >> 5 & 31 in page:  # ADD (immediate)
            found.add(page[word >> 5 & 31] + (word >> 10 & 0xFFF))
    assert called == {"sched_yield", "rintf"}
    (inner,) = image.inner
    assert struct.unpack_from("<Q", image.code, inner)[0] == table + 8
    assert found == {table, inner - 8}
    assert struct.unpack_from("<H", compiled(PROGRAM, HOSTS["aarch64"]), 18)[0] == AARCH64
    for at in slots:
        assert struct.unpack_from("<2I", image.code, at - 8) == (0x58000050, 0xD61F0200)  # LDR x16, 8 bytes on; BR x16


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
