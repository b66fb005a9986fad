"""A short run of the GGUF fuzzer; `python tests/fuzz/fuzz_gguf.py --seconds 600` is the long one."""

import re
import subprocess
import sys
from pathlib import Path


def test_two_seconds_of_hostile_files() -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzz_gguf.py")), "--seconds", "2", "--seed", "4"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    counted = re.fullmatch(r"(\d+) files, (\d+) accepted, 0 broken promises\n", run.stdout)
    assert counted is not None
    read, accepted = map(int, counted.groups())
    assert 0 < accepted < read  # mutants on both sides of the line
