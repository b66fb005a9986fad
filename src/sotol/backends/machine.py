"""What this process may use of its machine: CPUs and memory, within the limits of its container.

Limits are those of Linux's control groups, version 2 (docs.kernel.org/admin-guide/cgroup-v2.html): of the process's own
group and of all its parents.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_memory", "container_cpus", "usable_cpus", "whole_memory"]

UNLIMITED = 2**31  # CPUs
_GROUPS = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Logical CPUs that this process may use, at least 1."""
    try:
        able = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        able = os.cpu_count() or 1
    return max(1, min(able, container_cpus()))


def container_cpus() -> int:
    """The CPU time that control groups allow, in whole CPUs, at least 1; UNLIMITED if there is no limit."""
    least = UNLIMITED
    for group in _groups():
        try:
            quota, period = (group / "cpu.max").read_text().split()
            least = min(least, max(1, int(quota) // int(period)))
        except (OSError, ValueError):  # no such limit ("max")
            continue
    return least


def available_memory() -> int | None:
    """Bytes that this process could use without swapping; None if the system does not tell."""
    try:
        words = Path("/proc/meminfo").read_text().split()
        least = int(words[words.index("MemAvailable:") + 1]) << 10
    except (OSError, ValueError):
        return None
    for group in _groups():
        try:
            limit = int((group / "memory.max").read_text())
            words = (group / "memory.stat").read_text().split()
            least = min(
                least, limit - int(words[words.index("anon") + 1])
            )  # the rest is mostly cached files, which the system can drop
        except (OSError, ValueError):
            continue
    return max(0, least)


def whole_memory() -> int:
    """Bytes of memory of this machine, or of this container; sys.maxsize if the system does not tell."""
    try:
        least = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        least = sys.maxsize
    for group in _groups():
        try:
            least = min(least, int((group / "memory.max").read_text()))
        except (OSError, ValueError):  # no such limit ("max")
            continue
    return least


def _groups() -> Iterator[Path]:
    """The folders of this process's control group and its parents, as far as they are visible."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    group = _GROUPS / own
    yield from (group, *(parent for parent in group.parents if parent.is_relative_to(_GROUPS)))
