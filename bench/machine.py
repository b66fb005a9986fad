"""The machine that is measured: what it is, how busy it is, and how to make it busy."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

__all__ = ["Patience", "busy_cores", "crowded", "processor", "slug"]

QUIET = 0.15  # cores that others may use
# Busy as long as its parent lives.
LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


def processor() -> str:
    """The CPU's name, as the system has it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().split("\n") if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def slug(text: str) -> str:
    """A text as part of a file's name."""
    plain = re.sub(r"\((r|tm)\)|@.*", "", text.lower())
    return "-".join(re.findall(r"[a-z0-9]+", plain))


def busy_cores(seconds: float = 0.5) -> float:
    """Cores in use by all, over some seconds in which we sleep. From /proc/stat (proc(5)); 0 on other systems."""

    def read() -> tuple[int, int]:
        jiffies = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(jiffies), jiffies[3] + jiffies[4]

    if not Path("/proc/stat").exists():
        return 0.0
    total, idle = read()
    sleep(seconds)
    total_now, idle_now = read()
    return (1 - (idle_now - idle) / max(1, total_now - total)) * (os.cpu_count() or 1)


class Patience:
    """Waits for a quiet machine, all waits together no longer than some seconds: a run comes to its end."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def wait(self) -> float:
        """Wait until others use no more than QUIET cores, or patience has run out; how many they use."""
        while (busy := busy_cores()) > QUIET and self._left > 0:
            begin = monotonic()
            sleep(0.5)
            self._left -= monotonic() - begin + 0.5  # which looking took
        return round(busy, 2)


@contextmanager
def crowded(threads: int) -> Iterator[None]:
    """One more busy process than there are cores that so many threads leave idle."""
    count = max(0, (os.cpu_count() or 1) - threads) + 1
    loops = [subprocess.Popen([sys.executable, "-S", "-c", LOOP]) for _ in range(count)]
    try:
        sleep(0.2)  # until they run
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
