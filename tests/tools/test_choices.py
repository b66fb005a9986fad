"""Multiple choice: scores by their definition in float64, and files that are none."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tests.support.tiny_model import tiny_model

from sotol.backends.reference import ReferenceRunner
from sotol.errors import FormatError
from sotol.formats import read_gguf
from sotol.models import trace_model
from sotol.program.memory import group_caches
from sotol.program.step import Limits, Step, Table
from sotol.tokenizers import Tokenizer
from sotol.tools.choices import Choices, Question, choices, read_questions

SIZE = 64
ENDINGS = ("the mat.", "a dog and then the other dog.", "it", "the man, and off.")
CONTEXTS = ("the cat sat on", "then a man came and ", "so", "it was long ago. we", "a cat")


@pytest.fixture(scope="module", params=[{}, {"tokenizer.ggml.add_bos_token": False}], ids=["bos", "no bos"])
def model(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"), request.param)


def log_probabilities(path: Path, text: str) -> tuple[list[int], np.ndarray]:
    """The tokens of a text, and log p of each but the first, in float64."""
    tokenizer = Tokenizer.from_gguf(path)
    ids = tokenizer.encode(text)
    program, count = trace_model(read_gguf(path), SIZE), len(ids)
    numbers, zero = np.arange(count, dtype=np.int32), np.zeros(1, np.int32)
    tables = tuple(Table(np.arange(4, dtype=np.int32)[None], zero) for _ in group_caches(program.caches()))
    step = Step(np.array(ids, np.int32), numbers, np.array([0, count], np.int32), tables, numbers)
    limits = Limits(SIZE, 1, SIZE, SIZE, (4,) * len(tables))
    logits = ReferenceRunner(program, limits, np.float64, np.float64).run(step)["logits"]
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return ids, logs[np.arange(count - 1), ids[1:]]


def expected(path: Path, context: str) -> np.ndarray:
    """The sum over each ending's letters: this tokenizer has a token for each."""
    scores = []
    for ending in ENDINGS:
        text = context + ("" if context.endswith(" ") else " ") + ending
        _, logs = log_probabilities(path, text)
        letters = len(ending) + (0 if context.endswith(" ") else 1)
        scores.append(logs[-letters:].sum())
    return np.array(scores)


def test_shares_are_those_of_the_likeliest_endings(model: Path) -> None:
    best = [(expected(model, context), context) for context in CONTEXTS]
    lengths = np.array([len(ending) for ending in ENDINGS])
    plainly = [int(scores.argmax()) for scores, _ in best]
    by_length = [int((scores / lengths).argmax()) for scores, _ in best]
    assert plainly != by_length
    right = [by_length[0], plainly[1], plainly[2], by_length[3], (plainly[4] + 1) % 4]
    questions = [Question(context, ENDINGS, at, "x") for at, context in zip(right, CONTEXTS, strict=True)]
    told = list[Choices]()
    found = choices(model, questions, size=SIZE, backend="reference", precision="f32", told=told.append)
    hits = [sum(a == b for a, b in zip(own, right, strict=True)) / 5 for own in (plainly, by_length)]
    assert (found.accuracy, found.by_length, found.questions) == (*hits, 5)
    assert found.error == pytest.approx(math.sqrt(hits[0] * (1 - hits[0]) / 4))
    assert found.by_length_error == pytest.approx(math.sqrt(hits[1] * (1 - hits[1]) / 4))
    assert [one.questions for one in told] == [1, 2, 3, 4, 5]
    assert told[-1] == found


def test_a_question_longer_than_windows(model: Path) -> None:
    question = Question("the cat " * 3, ("sat", "ran"), 0, "q.jsonl, line 7")
    with pytest.raises(FormatError, match=r"q\.jsonl, line 7: has \d+ tokens, and windows 16: give a larger size"):
        choices(model, [question], size=16, backend="reference", precision="f32")


def test_hellaswags_own_lines() -> None:
    line = {"ind": 24, "activity_label": "Roof", "ctx_a": "A man sits.", "ctx_b": "he", "ctx": "A man sits. he",
            "endings": ["a", "b", "c", "d"], "label": "3", "source_id": "x"}  # fmt: skip
    own = {"context": "A man", "endings": [" sits", "runs"], "label": 1, "activity_label": "not HellaSwag's"}
    text = json.dumps(line) + "\r\n\n" + json.dumps(own)
    assert read_questions(text, "q") == [
        Question("Roof: A man sits. he", ("a", "b", "c", "d"), 3, "q, line 1"),
        Question("A man", (" sits", "runs"), 1, "q, line 3"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": None}, r"q, line 1: context \(or HellaSwag's ctx\) is None, not a text"),
        ({"context": ""}, "context .* is '', not a text"),
        ({"endings": ["one"]}, r"endings is \['one'\], not a list of 2 to 64 texts"),
        ({"endings": ["one", " "]}, "endings is .*, not a list"),
        ({"endings": ["x"] * 65}, "endings is .*, not a list"),
        ({"label": 2}, "label is 2, not the number of an ending, from 0 on"),
        ({"label": ""}, "label is '', not the number"),
        ({"label": True}, "label is True, not the number"),
        ({"label": -1}, "label is -1, not the number"),
    ],
)
def test_a_line_that_is_no_question(changes: dict[str, object], message: str) -> None:
    question = {"context": "a", "endings": ["b", "c"], "label": 0} | changes
    with pytest.raises(FormatError, match=message):
        read_questions(json.dumps(question), "q")


@pytest.mark.parametrize(("text", "message"), [("\n \n", "q: has no questions"), ("{", "q, line 1: is not JSON")])
def test_a_file_without_questions(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_questions(text, "q")
