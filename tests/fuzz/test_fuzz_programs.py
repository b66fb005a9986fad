"""A few cases of every fuzzer, the same each time; `make fuzz` has as many as you like."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

# How many cases of each, a second's or two.
CASES = {
    "fuzz_answers": 600, "fuzz_baseline": 2000, "fuzz_folder": 300, "fuzz_gguf": 2000, "fuzz_gguf_parts": 1000,
    "fuzz_hub": 400, "fuzz_importance": 2000, "fuzz_index": 1000, "fuzz_json": 3000, "fuzz_load": 40,
    "fuzz_mixes": 2000, "fuzz_quantised": 600, "fuzz_questions": 3000, "fuzz_safetensors": 2000,
    "fuzz_sentencepiece": 500, "fuzz_tekken": 500, "fuzz_templates": 200, "fuzz_tokenizer": 300,
}  # fmt: skip
MAKEFILE = Path(__file__).parents[2] / "Makefile"


@pytest.mark.parametrize(("module", "cases"), CASES.items())
def test_some_cases(module: str, cases: int) -> None:
    """Of fuzz_load's seed the first case is refused and the second runs with kernels that warm_up had compiled."""
    command = [sys.executable, "-m", f"tests.fuzz.{module}", "--cases", str(cases), "--seed", "24"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    counted = re.fullmatch(
        rf"{module}: (\d+) cases, (\d+) accepted, 0 broken promises, \d+ cases a second\n", run.stdout
    )
    assert counted is not None, run.stdout
    tried, accepted = map(int, counted.groups())
    assert tried == cases
    assert 0 < accepted < tried  # cases on both sides of the line


def test_make_fuzz_runs_every_fuzzer() -> None:
    there = {path.stem for path in Path(__file__).parent.glob("fuzz_*.py")}
    assert CASES.keys() == there - {"fuzz_constrain"}  # tests/engine has the answers of that one
    names = re.search(r"^PARSERS \?= ((?:.*\\\n)*.*)$", MAKEFILE.read_text(), re.MULTILINE)
    assert names is not None
    assert {f"fuzz_{name}" for name in names[1].replace("\\", "").split()} == CASES.keys()
