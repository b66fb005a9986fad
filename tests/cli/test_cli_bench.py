"""`sotol bench`, and the work that it and `sotol profile` measure."""

import json
from collections.abc import Sequence
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import Sotol

from sotol import LLM
from sotol.cli.workload import decode_steps, prompt_steps, pseudo_random_ids
from sotol.loading import LoadOptions, load
from sotol.program.memory import Group
from sotol.program.step import Limits


def test_ids_are_those_of_the_generator() -> None:
    state, expected = 1, []
    for _ in range(8):
        state = (state * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
        expected.append((state >> 33) % (49152 - 1000) + 500)
    assert pseudo_random_ids(8, 49152) == expected
    assert pseudo_random_ids(8, 49152, seed=7) != expected


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_ids_are_in_the_vocabulary(vocabulary: int, seed: int) -> None:
    assert all(0 <= token < vocabulary for token in pseudo_random_ids(20, vocabulary, seed))


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 64))
def test_steps_are_valid_and_in_order(prompt: int, generate: int, chunk: int) -> None:
    limits = Limits(chunk, 1, 1, prompt + generate, (-(-(prompt + generate) // 16),))
    runner: Any = SimpleNamespace(limits=limits, groups=(Group(()),))
    ids = pseudo_random_ids(prompt + generate, 100)
    steps = [*prompt_steps(ids[:prompt], runner), *decode_steps(ids[prompt:], prompt, runner)]
    for step in steps:
        step.check(limits, runner.groups, 100)
        assert step.logit_rows.tolist() == [len(step.tokens) - 1]
    assert np.concatenate([step.tokens for step in steps]).tolist() == ids
    assert np.concatenate([step.positions for step in steps]).tolist() == list(range(prompt + generate))


def test_steps_give_the_logits_of_the_text(llm: LLM) -> None:
    ids = pseudo_random_ids(24, llm.vocabulary)
    with load(llm.path, LoadOptions(ctx=256)) as loaded:
        steps = [*prompt_steps(ids[:20], loaded.runner), *decode_steps(ids[20:], 20, loaded.runner)]
        got = [loaded.runner.run(step)["logits"][0].copy() for step in steps]
    assert np.array_equal(np.array(got), llm.logits([ids])[0][19:])


def check(test: dict[str, object], tokens: int, seconds: Sequence[float]) -> None:
    assert test["tokens"] == tokens
    assert test["best"] == pytest.approx(tokens / min(seconds))
    assert test["median"] == pytest.approx(tokens / median(seconds))


def test_json(sotol: Sotol) -> None:
    result = sotol("bench", "smollm2", "-p", "20", "-n", "3", "-r", "3", "--threads", "1", "--json")
    record = json.loads(result.stdout)
    assert (record["threads"], record["precision"], record["repeats"]) == (1, "int8", 3)
    assert [test["tokens"] for test in record["tests"]] == [20, 3, 3]
    for test in record["tests"]:
        assert len(test["seconds"]) == 3
        check(test, test["tokens"], test["seconds"])


def test_table(sotol: Sotol) -> None:
    lines = sotol("bench", "-p", "20", "-n", "3", "-r", "1").stdout.splitlines()
    assert lines[0].endswith(" threads, int8, 1 repeats")
    for line, test in zip(
        lines[3:], ("prompt of 20", "answer of 3, after 20", "answer of 3, after nothing"), strict=True
    ):
        assert line.startswith(test)
        best, middle = line.removeprefix(test).split()
        assert float(best) == float(middle) > 0


def test_too_long_for_the_model(sotol: Sotol) -> None:
    result = sotol("bench", "-p", "9000")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "at most 8192 tokens" in result.stderr
