"""The expressions that split text into words take linear time on any text."""

import random
import time

import pytest

from sotol.tokenizers.pretokenize import PRETOKENIZERS

LENGTH = 60_000  # characters
# One character of each kind that an expression distinguishes, and contractions in both cases.
KINDS = " \n\r\t\u3000\u00a0aAǅʰ中かñ\u03011٣Ⅳ!$+/_'▁😀ªß\u2028\x85\x00"
UNITS = [*KINDS, "'s", "'LL", " \n", "\r\n", " a", "A ", "1 ", "!\n", "aA", "中A", "\u0301a", "  x"]
ROWS = {pre.expressions: name for name, pre in PRETOKENIZERS.items()}


@pytest.mark.parametrize("name", ROWS.values())
def test_runs_and_repetitions_take_linear_time(name: str) -> None:
    rng = random.Random(name)
    runs = ["".join(rng.choice(KINDS) * rng.choice([1, 3, LENGTH // 4]) for _ in range(4)) for _ in range(12)]
    start = time.process_time()
    for unit in [*UNITS, *runs]:
        text = (unit * (LENGTH // len(unit) + 1))[:LENGTH] + "x"
        assert "".join(PRETOKENIZERS[name].split(text)) == text
    spent = time.process_time() - start
    assert spent < 20, f"{spent:.0f} s; it takes one or two, and a quadratic expression minutes"
