"""Kernels keep within their memory: random models of odd widths between pages that nobody may touch."""

import subprocess
import sys

import pytest
from tests.support.guarded import SHORT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the guard uses POSIX's mprotect")


def guarded(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.guarded", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize("seed", [1, 2])
def test_kernels_stay_within_their_memory(seed: int) -> None:
    ended = guarded(seed, 30)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert ended.stdout.endswith("held: 30 models\n")


@pytest.mark.parametrize("short", SHORT)
def test_the_guard_sees_one_number_too_few(short: str) -> None:
    assert guarded(1, 3, short).returncode < 0, "a signal"
