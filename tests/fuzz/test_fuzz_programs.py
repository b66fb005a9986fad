"""Short runs of the fuzzers that load models and folders, render templates and make tokenizers.

`make fuzz` has the long ones.
"""

import re
import subprocess
import sys

import pytest

SEEDS = {
    "fuzz_load": 24,
    "fuzz_templates": 2,
    "fuzz_tokenizer": 3,
    "fuzz_folder": 4,
    "fuzz_hub": 5,
    "fuzz_quantised": 6,
}


@pytest.mark.parametrize(("module", "seed"), SEEDS.items())
def test_some_seconds(module: str, seed: int) -> None:
    """Of fuzz_load's seed the first case is refused and the second runs with kernels that warm_up had compiled."""
    command = [sys.executable, "-m", f"tests.fuzz.{module}", "--seconds", "4", "--seed", str(seed)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    counted = re.search(r"(\d+) cases, (\d+) accepted, 0 broken promises", run.stdout)
    assert counted is not None, run.stdout
    tried, accepted = map(int, counted.groups())
    assert 0 < accepted < tried  # cases on both sides of the line
