"""A short run of the fuzzer of answers; `python -m tests.fuzz.fuzz_answers --seconds 600` is the long one."""

import re
import subprocess
import sys


def test_two_seconds_of_answers() -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz_answers", "--seconds", "2", "--seed", "4"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    counted = re.fullmatch(r"(\d+) cases, (\d+) accepted, 0 broken promises\n", run.stdout)
    assert counted is not None
    tried, with_calls = map(int, counted.groups())
    assert 0 < with_calls < tried
