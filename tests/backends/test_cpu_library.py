"""Kernels on disk: damaged files are compiled anew, failures are told, and each CPU level has its instructions."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from sotol.backends.cpu import library as lib
from sotol.backends.cpu import target
from sotol.backends.cpu.dots import DOTS, stored_bytes
from sotol.backends.cpu.simd import store_ir
from sotol.backends.cpu.target import host_target, levels, target_for
from sotol.errors import SotolError

KEY: lib.Key = ("scale",)


def test_a_kernel_is_compiled_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = lib.Library(host_target(), tmp_path).load([KEY], lambda done, total: seen.append((done, total)))
    assert seen == [(0, 1), (1, 1)]
    again = lib.Library(host_target(), tmp_path).load([KEY, KEY], lambda *_: pytest.fail("compiled again"))
    assert first[KEY].fields == again[KEY].fields
    assert first[KEY].address


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes | None) -> None:
    lib.Library(host_target(), tmp_path).load([KEY])
    (path,) = tmp_path.glob("*.o")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    assert lib.Library(host_target(), tmp_path).load([KEY])[KEY].address
    assert lib.unseal(path.read_bytes()) is not None


@pytest.mark.parametrize("key", [("glu", "swish"), ("rope", "thirds")])
def test_a_kernel_that_does_not_compile_is_one_error(tmp_path: Path, key: lib.Key) -> None:
    with pytest.raises(SotolError, match=f"kernel {lib.file_name(key)} did not compile"):
        lib.Library(host_target(), tmp_path).load([key])


def test_unknown_levels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTOL_CPU", "pentium")
    with pytest.raises(SotolError, match=f"SOTOL_CPU=pentium: this machine has {', '.join(levels())}"):
        host_target()
    with pytest.raises(SotolError, match="unknown CPU level"):
        target_for("pentium")


@pytest.mark.parametrize("allowed", [True, False])
def test_amx_is_taken_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """Even on a CPU that has everything, and only if Linux lets the process have AMX's state."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    every = {name for needed, _ in target._LEVELS.values() for name in needed}
    monkeypatch.setattr(target, "_features", lambda: frozenset(every))
    monkeypatch.setattr(target, "_may_use_tiles", lambda: allowed)
    able = levels.__wrapped__()
    assert able[-1] == "vnni"
    assert ("amx" in able) == allowed


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="what Linux says of x86-64")
def test_linux_and_llvm_agree_about_this_cpu() -> None:
    """Of what levels ask for: a virtual machine may hide more from one than from the other."""
    has = llvm.get_host_cpu_features()
    for name in {name for needed, _ in target._LEVELS.values() for name in needed}:
        assert (name in target._features()) == bool(has.get(name, False)), name


def test_a_lesser_level_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTOL_CPU", levels()[0])
    assert host_target().level == levels()[0]


# What the matrix kernel must use on each level, and what attention must.
INSTRUCTIONS = {
    "avx2": ("vpmaddubsw", "vcvtph2ps"),
    "avx512": ("vpmaddubsw", "zmm"),
    "avxvnni": ("{vex}\tvpdpbusd", "ymm"),
    "vnni": ("vpdpbusd", "zmm"),
    "amx": ("tdpbsud", "vpdpbusd"),
}


@pytest.mark.parametrize("level", INSTRUCTIONS)
def test_levels_use_their_instructions(level: str) -> None:
    """Read in the assembly, since this machine may not run them. LLVM's x86 back end is needed to write it."""
    if "neon" in levels():
        pytest.skip("this machine's LLVM writes ARM code")
    program = (
        "from sotol.backends.cpu.compile import compile_kernel\n"
        "from sotol.backends.cpu.target import target_for\n"
        f"print(compile_kernel(('linear', 'Q4_K', 'int8'), target_for({level!r}), assembly=True)[0])"
    )
    command = [sys.executable, "-c", program]
    environment = lib.numba_settings(target_for(level))
    text = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True).stdout
    for instruction in INSTRUCTIONS[level]:
        assert instruction in text


def test_dotprod_uses_its_instruction() -> None:
    """The form alone, without Numba, which compiles only for the machine that it is on."""
    module = ir.Module()
    word, triple = ir.IntType(64), "aarch64-unknown-linux-gnu"
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word] * 3), "dots")
    builder = ir.IRBuilder(function.append_basic_block())
    weights = stored_bytes(builder, function.args[0])
    (sums,) = DOTS["sdot"](builder, weights, range(8), [function.args[1]], 4)
    store_ir(builder, sums, function.args[2])
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(features=target_for("dotprod").features)
    module.triple = triple
    text = machine.emit_assembly(llvm.parse_assembly(str(module)))
    assert text.count("sdot\tv") == 32  # 16 rows of 32 inputs, 16 products each
    assert ".4b[3]" in text  # four inputs of a register that holds sixteen


def test_sources_that_change_meanwhile_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lib, "source_digest", lambda: "0" * 16)  # of when this process began
    with pytest.raises(SotolError, match="sources have changed"):
        lib.Library(host_target(), tmp_path).load([KEY])
    assert not list(tmp_path.iterdir())
