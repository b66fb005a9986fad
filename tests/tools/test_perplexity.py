"""Perplexity and divergence, by their definitions in float64, and what is saved for comparisons."""

import math
from pathlib import Path

import numpy as np
import pytest
from tests.support.tiny_model import tiny_model

from sotol.backends.reference import ReferenceRunner
from sotol.errors import FormatError, ModelError
from sotol.formats import read_gguf
from sotol.models import trace_model
from sotol.program.memory import group_caches
from sotol.program.step import Limits, Step, Table
from sotol.tokenizers import Tokenizer
from sotol.tools import perplexity as tool
from sotol.tools.baseline import Baseline, BaselineWriter, scored
from sotol.tools.perplexity import Scores, perplexity
from sotol.tools.windows import windows_of

TEXT = "the cat sat on the mat, and the dog ran off. " * 5
SIZE = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("others"), seed=1)


def measured(path: Path, text: str | None, **options: object) -> Scores:
    return perplexity(path, text, size=SIZE, backend="reference", precision="f32", **options)  # type: ignore[arg-type]


def log_probabilities(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of the scored tokens: all log-probabilities [n, V] in float64, and the tokens that came."""
    plain, run = windows_of(Tokenizer.from_gguf(path), TEXT, SIZE)
    program = trace_model(read_gguf(path), SIZE)
    numbers, zero = np.arange(SIZE, dtype=np.int32), np.zeros(1, np.int32)
    tables = tuple(Table(np.arange(2, dtype=np.int32)[None], zero) for _ in group_caches(program.caches()))
    limits = Limits(SIZE, 1, SIZE, SIZE, (2,) * len(tables))
    found, came = [], []
    for window, tokens in zip(run, plain, strict=True):
        step = Step(np.ascontiguousarray(window), numbers, np.array([0, SIZE], np.int32), tables, numbers)
        logits = ReferenceRunner(program, limits, np.float64, np.float64).run(step)["logits"][SIZE // 2 : -1]
        found.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
        came.append(tokens[SIZE // 2 + 1 :])
    return np.concatenate(found), np.concatenate(came)


def test_the_mean_over_the_second_halves_of_windows(model: Path) -> None:
    logs, came = log_probabilities(model)
    scores = measured(model, TEXT)
    loss = -logs[np.arange(len(came)), came]
    assert scores.tokens == len(came) == scores.windows * scored(SIZE)
    assert scores.perplexity == pytest.approx(math.exp(loss.mean()), rel=1e-4)
    assert scores.error == pytest.approx(scores.perplexity * loss.std(ddof=1) / math.sqrt(len(loss)), rel=1e-3)
    assert scores.divergence is None


def test_windows_begin_with_bos_and_score_what_was_there(model: Path) -> None:
    tokenizer = Tokenizer.from_gguf(model)
    plain, run = windows_of(tokenizer, TEXT, SIZE)
    assert tokenizer.adds_bos
    assert (run[:, 0] == tokenizer.bos).all()
    assert plain[1, 0] != tokenizer.bos
    np.testing.assert_array_equal(plain[:, 1:], run[:, 1:])
    assert list(plain.reshape(-1)) == tokenizer.encode(TEXT)[: plain.size]


def test_divergence_from_a_baseline(model: Path, other: Path, tmp_path: Path) -> None:
    saved = tmp_path / "base"
    base = measured(model, TEXT, save=saved)
    scores = measured(other, None, baseline=saved)
    p, came = log_probabilities(model)
    q, _ = log_probabilities(other)
    divergence = (np.exp(p) * (p - q)).sum(-1)
    assert scores.divergence is not None
    assert scores.perplexity == pytest.approx(math.exp(-q[np.arange(len(came)), came].mean()), rel=1e-4)
    assert scores.divergence.mean == pytest.approx(divergence.mean(), rel=1e-3)
    assert scores.divergence.median == pytest.approx(np.median(divergence), rel=1e-3)
    assert scores.divergence.percentiles["99"] == pytest.approx(np.percentile(divergence, 99), rel=1e-3)
    assert scores.divergence.most == pytest.approx(divergence.max(), rel=1e-3)
    assert scores.divergence.same_top == np.mean(p.argmax(-1) == q.argmax(-1))
    assert scores.divergence.baseline == pytest.approx(base.perplexity, rel=1e-3)
    assert scores.divergence.ratio == pytest.approx(scores.perplexity / base.perplexity, rel=1e-3)


def test_a_model_is_not_far_from_itself(model: Path, tmp_path: Path) -> None:
    measured(model, TEXT, save=tmp_path / "base")
    scores = measured(model, None, baseline=tmp_path / "base")
    assert scores.divergence is not None
    assert abs(scores.divergence.mean) < 1e-6
    assert scores.divergence.same_top > 0.99


def test_steps_of_a_window_give_the_same(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(model, TEXT)
    monkeypatch.setattr("sotol.tools.windows.STEP_TOKENS", 5)
    monkeypatch.setattr(tool, "ROWS", 3)
    parts = measured(model, TEXT)
    assert parts.tokens == whole.tokens
    assert parts.perplexity == pytest.approx(whole.perplexity, rel=1e-5)


def test_what_is_told_after_each_window(model: Path) -> None:
    said = list[tuple[int, float]]()
    scores = measured(model, TEXT, most=2, told=lambda window, s: said.append((window, s.perplexity)))
    assert [window for window, _ in said] == [0, 1]
    assert said[-1][1] == scores.perplexity


def test_saved_log_probabilities(tmp_path: Path) -> None:
    """To half a step; what is less likely than the likeliest by e^16 is all the same."""
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 7, (2, 8)).astype(np.int32)
    logits = (5 * rng.standard_normal((2, scored(8), 7))).astype(np.float32)
    logits[0, 0, 3] = -80
    logits[1, 1] = 2
    sums = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    with BaselineWriter(tmp_path / "base", windows, 7) as writer:
        for rows, each in zip(logits, sums, strict=True):
            writer.add(rows, each)
    found = Baseline.open(tmp_path / "base")
    np.testing.assert_array_equal(found.windows, windows)
    for i in range(2):
        exact = logits[i] - sums[i][:, None]
        np.testing.assert_allclose(found.rows(i), np.maximum(exact, exact.max(-1, keepdims=True) - 16), atol=2e-4)


def test_the_file_as_llama_cpp_lays_it_out(tmp_path: Path) -> None:
    windows = np.arange(8, dtype=np.int32)[None]
    with BaselineWriter(tmp_path / "base", windows, 5) as writer:
        for _ in range(scored(8)):
            writer.add(np.array([[0, 1, 2, 3, 4]], np.float32), [0.0])
    data = (tmp_path / "base").read_bytes()
    assert data[:8] == b"_logits_"
    assert list(np.frombuffer(data, "<i4", 3, 8)) == [8, 5, 1]
    assert list(np.frombuffer(data, "<i4", 8, 20)) == list(range(8))
    rows = np.frombuffer(data, "<u2", offset=52).reshape(scored(8), 2 * 3 + 4)
    assert list(rows[0, 4:9]) == [0, 16384, 32768, 49151, 65535]
    assert rows[0, :4].view("<f4")[1] == 0


@pytest.mark.parametrize("cut", [0, 10, 30, 1])
def test_files_that_are_cut_short(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "base"
    with BaselineWriter(path, np.zeros((1, 8), np.int32), 5) as writer:
        writer.add(np.zeros((scored(8), 5), np.float32), np.zeros(scored(8)))
    data = path.read_bytes()
    path.write_bytes(data[:cut] if cut > 1 else data[:-1] if cut else b"x" * len(data))
    with pytest.raises(FormatError, match="base"):
        Baseline.open(path)


def test_nothing_is_left_of_a_file_that_was_not_finished(model: Path, tmp_path: Path) -> None:
    def interrupted(_window: int, _scores: Scores) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(model, TEXT, save=tmp_path / "base", told=interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_of_another_vocabulary(model: Path, tmp_path: Path) -> None:
    with BaselineWriter(tmp_path / "base", np.zeros((1, 8), np.int32), 5) as writer:
        writer.add(np.zeros((scored(8), 5), np.float32), np.zeros(scored(8)))
    with pytest.raises(ModelError, match="only models with the same vocabulary"):
        measured(model, None, baseline=tmp_path / "base")


def test_wrong_use(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a text or a baseline"):
        measured(model, TEXT, baseline=tmp_path / "base")
    with pytest.raises(ValueError, match="either save"):
        measured(model, None, baseline=tmp_path / "base", save=tmp_path / "new")
    with pytest.raises(ModelError, match="the text has 5 tokens, and a window 32"):
        measured(model, "cat")
    with pytest.raises(ValueError, match="windows of 65 tokens: the model takes from 8 to 64"):
        perplexity(model, TEXT, size=65, backend="reference")
