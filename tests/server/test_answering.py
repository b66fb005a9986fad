"""Answers on the wire: lines that stay lines, errors in each dialect's shape, arguments as objects."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from sotol import FormatError, QueueFullError, SotolError, TemplateError
from sotol.server.answering import answer, dumps, handled, refusal, sse
from sotol.server.calls import INVALID, call_arguments
from sotol.server.problems import Dialect, Problem, dialect_of, problem_of, refusing

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8))
def test_json_is_one_line_to_everybody(value: Any) -> None:
    text = dumps(value)
    assert json.loads(text) == value
    assert len(text.splitlines()) == 1
    assert sse(value) == f"data: {text}\n\n"


def test_json_has_no_infinity() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps(float("inf"))


def test_half_a_pair_is_no_text() -> None:
    assert answer({"a": "\ud800"}).body == b'{"a":"?"}'


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/api/chat", "ollama"),
        ("/v1/chat/completions", "openai"),
        ("/tokenize", "openai"),
        ("/", "openai"),
    ],
)
def test_the_dialect_of_a_path(path: str, dialect: Dialect) -> None:
    assert dialect_of(path) == dialect


def test_a_full_queue() -> None:
    problem = problem_of(QueueFullError("too many requests wait"))
    assert problem is not None
    for dialect, status in (("openai", 503), ("anthropic", 529), ("ollama", 503)):
        response = refusal(dialect, problem)  # type: ignore[arg-type]
        assert (response.status_code, response.headers["retry-after"]) == (status, "1")
    told = json.loads(bytes(refusal("anthropic", problem, "req_1").body))
    assert told == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "too many requests wait"},
        "request_id": "req_1",
    }


def test_what_an_exception_stands_for() -> None:
    found = [problem_of(error) for error in (TemplateError("x"), SotolError("x"), KeyError("x"))]
    assert [problem and problem.status for problem in found] == [400, 500, None]
    problem = Problem(418, "x")
    assert problem_of(problem) is problem


@pytest.mark.parametrize(("error", "traced"), [(FormatError("m.gguf: is cut"), False), (KeyError("bug"), True)])
def test_of_a_file_that_is_at_fault_the_log_has_a_line(
    error: Exception, traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(_request: Request) -> Response:
        raise error

    app = Starlette(routes=[handled("/x", handler, "openai", "GET", lambda _scope: None)])
    answered = TestClient(app).get("/x")
    assert (answered.status_code, "m.gguf: is cut" in answered.text) == (500, not traced)
    [record] = [record for record in caplog.records if record.name == "sotol.server"]
    assert (record.exc_info is not None) is traced
    assert vars(record)["fields"] == ({} if traced else {"error": "m.gguf: is cut"})


def test_a_wrong_value_is_blamed_on_its_field() -> None:
    cases = {
        "max_tokens is 0; it must be more": ("max_output_tokens is 0; it must be more", "max_output_tokens"),
        "logit_bias[3] is inf": ("logit_bias[3] is inf", "logit_bias"),
        "the prompt is empty": ("the prompt is empty", "prompt"),
    }
    names = {"max_tokens": "max_output_tokens", "logit_bias": "logit_bias"}
    for message, (said, param) in cases.items():
        with pytest.raises(Problem) as refused, refusing("prompt", names=names):
            raise ValueError(message)
        assert (refused.value.status, refused.value.message, refused.value.param) == (400, said, param)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ('{"a": [1, 2', {"a": [1, 2]}),
        ('{"a": "x", "b', {"a": "x"}),
        ("[1]", {INVALID: "[1]"}),
        ("{a: 1}", {INVALID: "{a: 1}"}),
    ],
)
def test_arguments_as_an_object(text: str, arguments: dict[str, Any]) -> None:
    assert call_arguments(text) == arguments
