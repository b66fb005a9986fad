"""Compiling kernels as real processes meet it: other people's files and settings, two at once, signals, deaths, forks.

Each process has a cache folder of its own and compiles a few small kernels, or one that takes seconds where something
must happen meanwhile.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.tiny_model import tiny_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups of POSIX")

HANGS = 120  # seconds after which a process does not end by itself
SMALL, LONG = [("scale",), ("rows",), ("prepare",)], [("linear", "q4_32x8_s_m", "int8")]
# Loads kernels. Says so when it begins to compile, and at the end how many kernels it has compiled itself.
LOAD = """
import ast, sys
from sotol.backends.cpu.building import children
from sotol.backends.cpu.building.library import library_for
from sotol.backends.cpu.target import host_target
given, compiled = children.compile_kernels, []
def counted(*arguments):
    for item in given(*arguments):
        compiled.append(item)
        yield item
children.compile_kernels = counted
def progress(done, total):
    if done == 0:
        print("compiling", flush=True)
codes = library_for(host_target()).load(ast.literal_eval(sys.argv[1]), progress)
print(len(codes), len(compiled), flush=True)
"""
Process = subprocess.Popen[str]


def start(
    folder: Path, cache: Path, keys: object, program: str = LOAD, settings: Mapping[str, str] | None = None
) -> Process:
    """A process in a folder of its own group; its program lies elsewhere, so Python itself doesn't look there."""
    file = cache.with_name(f"{cache.name}.py")
    file.write_text(program)
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)} | dict(settings or {})
    return subprocess.Popen(
        [sys.executable, file, repr(keys)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def said(process: Process) -> str:
    """What a process printed, when it has ended well."""
    out, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, errors
    return out


def group_is_gone(process: Process) -> bool:
    """Whether no process is left of a group, within a time in which any would have ended."""
    end = time.monotonic() + HANGS
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    return False


def test_nobody_else_s_code_or_settings(tmp_path: Path) -> None:
    """Files in the current folder that have names of modules, and what a developer's shell may have set."""
    here = tmp_path / "here"
    here.mkdir()
    for name in ("json", "random", "queue", "struct", "signal", "numba", "numpy", "llvmlite", "sotol", "sitecustomize"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'RUN')!r}, 'a').write({name!r} + ' ')\n")
    (here / ".numba_config.yaml").write_text("disable_jit: 1\n")
    settings = {
        "NUMBA_DISABLE_JIT": "1", "NUMBA_DEBUG": "1", "NUMBA_BOUNDSCHECK": "1", "NUMBA_DUMP_OPTIMIZED": "1",
        "PYTHONSTARTUP": str(here / "json.py"), "PYTHONINSPECT": "1", "PYTHONPROFILEIMPORTTIME": "1",
        "PYTHONVERBOSE": "1", "PYTHONWARNINGS": "error",
    }  # fmt: skip
    process = start(here, tmp_path / "cache", SMALL, settings=settings)
    assert said(process).split() == ["compiling", "3", "3"]
    assert not (tmp_path / "RUN").exists()


def test_numba_is_not_looked_for_in_the_current_folder(tmp_path: Path) -> None:
    """With -c Python itself looks there, for what this process imports: Numba is not among it."""
    (tmp_path / "numba.py").write_text(f"open({str(tmp_path / 'RUN')!r}, 'a')\n")
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", LOAD, repr(SMALL)]
    out = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True, text=True).stdout
    assert out.split() == ["compiling", "3", "3"]
    assert not (tmp_path / "RUN").exists()


def test_two_at_once_compile_each_kernel_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, tmp_path / "cache", SMALL) for _ in range(2)]
    results = [said(process).split()[-2:] for process in processes]
    assert [loaded for loaded, _ in results] == ["3", "3"]
    assert sum(int(compiled) for _, compiled in results) == 3


def test_who_waits_goes_on_when_the_other_is_killed(tmp_path: Path) -> None:
    first = start(tmp_path, tmp_path / "cache", LONG)
    assert first.stdout is not None
    assert first.stdout.readline() == "compiling\n"
    second = start(tmp_path, tmp_path / "cache", LONG)
    assert second.stdout is not None
    assert second.stdout.readline() == "compiling\n"
    first.kill()
    assert said(second).split() == ["1", "1"]
    first.communicate()
    assert group_is_gone(first)  # its children saw that it had died


def test_what_was_ready_before_a_kill_is_kept(tmp_path: Path) -> None:
    said(start(tmp_path, tmp_path / "cache", SMALL[:1]))
    killed = start(tmp_path, tmp_path / "cache", LONG)
    assert killed.stdout is not None
    killed.stdout.readline()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert said(start(tmp_path, tmp_path / "cache", SMALL)).split()[-2:] == ["3", "2"]
    (folder,) = (tmp_path / "cache" / "sotol" / "kernels").glob("*/*")
    assert {path.name for path in folder.iterdir()} == {"lock", "prepare.o", "rows.o", "scale.o"}


@pytest.mark.parametrize("whom", ["parent", "group"])
def test_ctrl_c_ends_the_compiling_at_once(tmp_path: Path, whom: str) -> None:
    process = start(tmp_path, tmp_path / "cache", LONG)
    assert process.stdout is not None
    process.stdout.readline()
    send = os.kill if whom == "parent" else os.killpg
    send(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert group_is_gone(process)
    assert not list(tmp_path.rglob("*.o"))


FORK = """
import os, sys, threading
from sotol.backends.cpu.building.library import library_for
from sotol.backends.cpu.target import host_target
library, compiling = library_for(host_target()), threading.Event()
library.load([("scale",)])
loading = threading.Thread(target=library.load, args=([("linear", "q4_32x8_s_m", "int8")], lambda *_: compiling.set()))
loading.start()
compiling.wait()
child = os.fork()
if child == 0:
    os._exit(len(library_for(host_target()).load([("scale",), ("rows",)])))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
loading.join()
print(len(library.load([("scale",), ("linear", "q4_32x8_s_m", "int8")])))
"""


def test_a_fork_while_kernels_compile_can_load(tmp_path: Path) -> None:
    assert said(start(tmp_path, tmp_path / "cache", [], FORK)).split() == ["2", "2"]


THREADS = """
import ast, sys, threading
from sotol import LLM
(path,), said = ast.literal_eval(sys.argv[1]), []
def load():
    with LLM(path, threads=2) as llm:
        said.append(llm.generate("abc", max_tokens=8, seed=1).text)
for _ in range(3):
    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(len(said), len(set(said)))
"""


def test_threads_that_load_at_once_share_one_library(tmp_path: Path) -> None:
    """A library that was made twice took its code with it when it was lost."""
    cache = os.environ.get("XDG_CACHE_HOME", "")  # the usual one, which has a model's kernels
    path = str(tiny_model(tmp_path))
    process = start(tmp_path, tmp_path / "unused", [path], THREADS, {"XDG_CACHE_HOME": cache})
    assert said(process).split() == ["24", "1"]
