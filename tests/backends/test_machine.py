"""What a process may use of its machine."""

import os
from pathlib import Path

import pytest

from sotol.backends import machine


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group below two others, as a file system that this process takes for Linux's; gives the inner one."""
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    given = Path.read_text
    own = {"/proc/self/cgroup": "0::/outer/inner\n", "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n"}
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: own.get(str(path)) or given(path, *a, **k))
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    return inner


def test_the_tightest_limit_of_cpus_holds(groups: Path) -> None:
    assert machine.container_cpus() == machine.UNLIMITED
    (groups / "cpu.max").write_text("max 100000\n")
    assert machine.container_cpus() == machine.UNLIMITED
    (groups.parent / "cpu.max").write_text("350000 100000\n")
    assert machine.container_cpus() == 3
    (groups / "cpu.max").write_text("50000 100000\n")
    assert machine.container_cpus() == 1
    assert machine.usable_cpus() == 1


def test_the_tightest_limit_of_memory_holds(groups: Path) -> None:
    assert machine.available_memory() == 8000 << 10
    (groups.parent / "memory.max").write_text("max\n")
    (groups / "memory.max").write_text("5000000\n")
    (groups / "memory.stat").write_text("anon 1000000\nfile 9000000\n")
    assert machine.available_memory() == 4000000
    (groups / "memory.stat").write_text("anon 6000000\n")
    assert machine.available_memory() == 0


def test_cpus_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert machine.usable_cpus() == 1
