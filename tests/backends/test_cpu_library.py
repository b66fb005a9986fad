"""Kernels of a process: compiled once, failures are told, and each CPU level has its instructions."""

import logging
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from sotol.backends.cpu import target
from sotol.backends.cpu.building import children
from sotol.backends.cpu.building import library as lib
from sotol.backends.cpu.building.children import numba_settings
from sotol.backends.cpu.building.sources import source_digest
from sotol.backends.cpu.building.store import KernelStore
from sotol.backends.cpu.building.stored import file_name
from sotol.backends.cpu.target import host_target, levels, target_for
from sotol.backends.cpu.vectors.codes import Codes, Weights, packed_bytes, stored_bytes
from sotol.backends.cpu.vectors.dots import DOTS
from sotol.backends.cpu.vectors.simd import store_ir
from sotol.errors import SotolError

KEY: lib.Key = ("scale",)
MORE: list[lib.Key] = [KEY, ("rows",), ("prepare",)]


def library(top: Path | None) -> lib.Library:
    return lib.Library(host_target(), KernelStore(top, source_digest(), host_target().level))


def test_a_kernel_is_compiled_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = library(tmp_path).load([KEY], lambda done, total: seen.append((done, total)))
    assert seen == [(0, 1), (1, 1)]
    again = library(tmp_path).load([KEY, KEY], lambda *_: pytest.fail("compiled again"))
    assert first[KEY].fields == again[KEY].fields
    assert first[KEY].address


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes | None) -> None:
    library(tmp_path).load(MORE)
    caplog.clear()
    paths = list(tmp_path.rglob("*.o"))
    assert len(paths) == len(MORE)
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    assert library(tmp_path).load(MORE)[KEY].address
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "it is damaged" in warnings[0]
    library(tmp_path).load(MORE, lambda *_: pytest.fail("compiled again"))


@pytest.mark.parametrize(("progress", "level"), [(None, logging.WARNING), (lambda *_: None, logging.INFO)])
def test_the_first_use_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, progress: lib.CountProgress | None, level: int
) -> None:
    """As a warning where nothing else would tell."""
    caplog.set_level(logging.INFO, "sotol")
    library(tmp_path).load([KEY], progress)
    folder = tmp_path / "kernels" / source_digest() / host_target().level
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (level, f"compiling 1 kernels for this CPU, to keep them in {folder}")
    ]


@pytest.mark.parametrize("place", ["a file", "below a file", "relative", "no home"])
def test_without_a_folder_kernels_are_compiled_for_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    top = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "x", "relative": Path("x"), "no home": None}
    assert library(top[place]).load(MORE)[KEY].address
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("key", [("glu", "swish"), ("rope", "thirds")])
def test_a_kernel_that_does_not_compile_is_one_error(tmp_path: Path, key: lib.Key) -> None:
    with pytest.raises(SotolError, match=f"kernel {file_name(key)} did not compile") as caught:
        library(tmp_path).load([key])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_what_children_write_is_not_their_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries print, and LLVM may say more than a pipe holds."""
    change_child(
        monkeypatch,
        "print('noise' * 10000, flush=True); sys.stderr.write('x' * 10**6); sys.stderr.flush(); return given(*a)",
    )
    assert library(tmp_path).load(MORE)[KEY].address


def test_a_child_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    first = f"m = pathlib.Path({str(mark)!r}); new = not m.exists(); m.touch()"
    change_child(monkeypatch, f"{first}; new and os._exit(3); return given(*a)")
    assert library(tmp_path).load([KEY])[KEY].address
    assert mark.exists()


def test_a_kernel_that_kills_its_compiler_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_child(monkeypatch, "sys.stderr.write('LLVM ERROR: no\\n'); sys.stderr.flush(); os.abort()")
    with pytest.raises(SotolError, match=r"kernel scale did not compile: .* was killed by signal 6 LLVM ERROR: no"):
        library(tmp_path).load([KEY])


@pytest.mark.parametrize("able", [0, 1])
def test_children_that_can_not_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: int) -> None:
    """Where one can, it compiles all; where none can, the error says what is missing."""
    given, started = subprocess.Popen, list[None]()

    def start(*arguments: object, **options: object) -> object:
        if len(started) >= able:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(None)
        return given(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(children, "usable_cpus", lambda: 3)
    if able:
        assert library(tmp_path).load(MORE)[KEY].address
        assert len(started) == 1
    else:
        with pytest.raises(SotolError, match=r"no process for it starts: .*temporarily unavailable"):
            library(tmp_path).load(MORE)


def test_python_itself_must_be_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", None)
    with pytest.raises(SotolError, match=r"sys\.executable"):
        library(tmp_path).load([KEY])


@pytest.mark.parametrize(
    ("cpus", "memory", "count"), [(64, None, 3), (2, None, 2), (64, 700 << 20, 2), (64, 1 << 20, 1), (1, 64 << 30, 1)]
)
def test_as_many_children_as_the_machine_bears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int, memory: int | None, count: int
) -> None:
    started = counted_children(monkeypatch)
    monkeypatch.setattr(children, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(children, "available_memory", lambda: memory)
    library(tmp_path).load(MORE)
    assert len(started) == count
    assert all(child.poll() is not None for child in started)


@pytest.mark.parametrize("at", [0, 1])
def test_what_progress_raises_ends_the_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    started = counted_children(monkeypatch)

    def progress(done: int, _total: int) -> None:
        if done == at:
            raise KeyError("mine")

    before = threading.active_count()
    shelf = library(tmp_path)
    with pytest.raises(KeyError, match="mine"):
        shelf.load(MORE, progress)
    assert all(child.poll() is not None for child in started)
    assert threading.active_count() == before
    assert shelf.load(MORE)[KEY].address  # it can be tried again


def test_sources_that_change_meanwhile_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "source_digest", lambda: "0" * 16)  # of when this process began
    with pytest.raises(SotolError, match="sources have changed"):
        library(tmp_path).load([KEY])
    assert not list(tmp_path.rglob("*.o"))


def counted_children(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The children that are started from now on."""
    given: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    started = list[subprocess.Popen[bytes]]()

    def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(given(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


def change_child(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let children run this body in the place of compile_kernel(*a), which is `given`."""
    begin = "import sys, os, pathlib; sys.path.append(sys.argv[1]); import sotol.backends.cpu.building.child as c"
    change = f"given = c.compile_kernel\ndef changed(*a): {body}\nc.compile_kernel = changed\nc.main()"
    monkeypatch.setattr(children, "_CODE", f"{begin}\n{change}")


def test_unknown_levels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTOL_CPU", "pentium")
    with pytest.raises(SotolError, match=f"SOTOL_CPU=pentium: this machine has {', '.join(levels())}"):
        host_target()
    with pytest.raises(SotolError, match="unknown CPU level"):
        target_for("pentium")


@pytest.mark.parametrize("allowed", [True, False])
def test_amx_is_taken_only_where_it_may_be(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """A CPU has it, and Linux must let the process have its state."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    every = {name for needed, _ in target._LEVELS.values() for name in needed}
    monkeypatch.setattr(target, "_features", lambda: frozenset(every))
    monkeypatch.setattr(target, "_may_use_tiles", lambda: allowed)
    able = levels.__wrapped__()
    assert able[-1] == ("amx" if allowed else "vnni")
    assert ("amx" in able) == allowed


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="what Linux says of x86-64")
def test_linux_and_llvm_agree_about_this_cpu() -> None:
    """Of what levels ask for: a virtual machine may hide more from one than from the other."""
    has = llvm.get_host_cpu_features()
    for name in {name for needed, _ in target._LEVELS.values() for name in needed}:
        assert (name in target._features()) == bool(has.get(name, False)), name


@pytest.mark.parametrize(("machine", "least"), [("ARM64", "neon"), ("AMD64", "generic"), ("amd64", "generic")])
def test_machines_are_known_by_each_system_s_name(monkeypatch: pytest.MonkeyPatch, machine: str, least: str) -> None:
    """Windows writes capitals, and the BSDs have names of their own."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert levels.__wrapped__()[0] == least


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
        "from sotol.backends.cpu.building.compile import compile_kernel\n"
        "from sotol.backends.cpu.target import target_for\n"
        f"print(compile_kernel(('linear', 'q4_32x8_s_m', 'int8'), target_for({level!r}), assembly=True)[0])"
    )
    command = [sys.executable, "-c", program]
    environment = numba_settings(target_for(level))
    text = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True).stdout
    for instruction in INSTRUCTIONS[level]:
        assert instruction in text


def arm_assembly(read: Callable[[Any, Any], Weights]) -> str:
    """ARM's form alone, without Numba, which compiles only for the machine that it is on. read: of weights."""
    module = ir.Module()
    word, triple = ir.IntType(64), "aarch64-unknown-linux-gnu"
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word] * 3), "dots")
    builder = ir.IRBuilder(function.append_basic_block())
    ((sums,),) = DOTS["sdot"](builder, [read(builder, function.args[0])], range(8), [function.args[1]], 4, [])
    store_ir(builder, sums, function.args[2])
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(features=target_for("dotprod").features)
    module.triple = triple
    text: str = machine.emit_assembly(llvm.parse_assembly(str(module)))
    return text


def test_dotprod_uses_its_instruction() -> None:
    text = arm_assembly(stored_bytes)
    assert text.count("sdot\tv") == 32  # 16 rows of 32 inputs, 16 products each
    assert ".4b[3]" in text  # four inputs of a register that holds sixteen


def test_tables_are_looked_up_by_an_instruction() -> None:
    codes = Codes(4, table=tuple(range(-8, 8)))
    text = arm_assembly(lambda builder, address: packed_bytes(builder, address, codes, "sdot"))
    assert text.count("tbl\tv") == 32  # of 16 bytes each
    assert text.count("sdot\tv") == 32
