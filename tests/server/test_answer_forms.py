"""What a request says about the form of its answer, in each dialect, and what it means for `Sampling`."""

import json
from typing import Any

import httpx
import pytest
from tests.server.conftest import TOOLS, function

from sotol.server.anthropic.fields import MessagesRequest
from sotol.server.ollama.fields import ChatRequest as OllamaRequest
from sotol.server.openai.chat import ChatRequest
from sotol.server.openai.messages import format_of
from sotol.server.problems import Problem
from sotol.server.responses.fields import ResponseRequest

MESSAGES = [{"role": "user", "content": "hi"}]
SCHEMA: dict[str, Any] = {"type": "string", "enum": ["yes", "no"]}

CHAT = {
    "nothing": ({}, {}),
    "text": ({"response_format": {"type": "text"}}, {}),
    "json": ({"response_format": {"type": "json_object"}}, {"json": True}),
    "json_schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}},
        {"schema": SCHEMA},
    ),
    "llama-server's schema": ({"response_format": {"type": "json_object", "schema": SCHEMA}}, {"schema": SCHEMA}),
    "another of llama-server's": ({"json_schema": SCHEMA}, {"schema": SCHEMA}),
    "grammar": ({"grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
    "no grammar": ({"grammar": ""}, {}),
    "vLLM's json": ({"guided_json": SCHEMA}, {"schema": SCHEMA}),
    "vLLM's regex": ({"structured_outputs": {"regex": "a+"}}, {"regex": "a+"}),
    "vLLM's choice": ({"guided_choice": ["a", 'b"']}, {"grammar": 'start: "a" | "b\\""'}),
    "vLLM's newer choice": ({"structured_outputs": {"choice": ["a"]}}, {"grammar": 'start: "a"'}),
}


@pytest.mark.parametrize(("body", "expected"), CHAT.values(), ids=CHAT)
def test_chat(body: dict[str, Any], expected: dict[str, Any]) -> None:
    request = ChatRequest.model_validate({"messages": MESSAGES, **body})
    made = format_of(request.response_format)
    assert request.constraint(*([] if made is None else [("response_format", *made)])) == expected


def test_one_format_at_most() -> None:
    body = {"messages": MESSAGES, "json_schema": SCHEMA, "grammar": "x", "guided_regex": "y"}
    with pytest.raises(Problem, match="grammar and json_schema and guided_regex") as refused:
        ChatRequest.model_validate(body).constraint()
    assert refused.value.status == 400


def test_other_dialects() -> None:
    def set_by(changes: dict[str, Any]) -> dict[str, Any]:
        return {name: changes[name] for name in ("json", "schema") if changes.get(name) is not None}

    response = {"input": "x", "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}}
    assert set_by(ResponseRequest.model_validate(response).changes()) == {"schema": SCHEMA}
    response["text"] = {"format": {"type": "json_object"}}
    assert set_by(ResponseRequest.model_validate(response).changes()) == {"json": True}
    message = {"model": "m", "messages": MESSAGES, "max_tokens": 9}
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert set_by(MessagesRequest.model_validate({**message, "output_config": config}).changes()) == {"schema": SCHEMA}
    for form, expected in (("json", {"json": True}), (SCHEMA, {"schema": SCHEMA}), ("", {}), (None, {})):
        request = OllamaRequest.model_validate({"model": "m", "format": form})
        assert set_by(request.changes(100)) == expected


ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": MESSAGES,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    },
    "/v1/completions": {"prompt": "hi", "json_schema": SCHEMA},
    "/v1/responses": {"input": "hi", "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}},
    "/v1/messages": {
        "messages": MESSAGES,
        "max_tokens": 100,
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
    "/api/chat": {"messages": MESSAGES, "stream": False, "format": SCHEMA},
    "/api/generate": {"prompt": "hi", "stream": False, "format": SCHEMA},
}


def text_of(path: str, answer: Any) -> str:
    """What is said, in each dialect."""
    read: dict[str, Any] = {
        "/v1/chat/completions": lambda: answer["choices"][0]["message"]["content"],
        "/v1/completions": lambda: answer["choices"][0]["text"],
        "/v1/responses": lambda: answer["output"][0]["content"][0]["text"],
        "/v1/messages": lambda: answer["content"][0]["text"],
        "/api/chat": lambda: answer["message"]["content"],
        "/api/generate": lambda: answer["response"],
    }
    return str(read[path]())


@pytest.mark.parametrize("path", ASKED)
def test_answers_have_their_form(http: httpx.Client, path: str) -> None:
    """Whatever the model would say."""
    answer = http.post(path, json={"model": "greeting", **ASKED[path]})
    assert answer.status_code == 200, answer.text
    assert json.loads(text_of(path, answer.json())) in ("yes", "no")


@pytest.mark.parametrize("path", ASKED)
def test_a_schema_that_is_none(http: httpx.Client, path: str) -> None:
    """Refused before anything is said, by its name."""
    body = json.loads(json.dumps(ASKED[path]).replace('"string"', '"strong"'))
    for stream in (False, True):
        answer = http.post(path, json={"model": "greeting", **body, "stream": stream})
        assert answer.status_code == 400, answer.text
        assert "schema" in answer.text
        assert "strong" in answer.text


def test_a_call_that_must_come(serve: Any) -> None:
    """tool_choice: the model, which would say something else, calls."""
    url = serve("no", template=TOOLS)
    tools = [function("weather", city={"type": "string", "enum": ["Oslo"]}), function("time")]
    for tool in tools:
        tool["function"]["parameters"] |= {"additionalProperties": False}
        tool["function"]["parameters"]["required"] = list(tool["function"]["parameters"]["properties"])
    named = {"type": "function", "function": {"name": "weather"}}
    for choice, names in (("required", {"weather", "time"}), (named, {"weather"})):
        body = {"messages": MESSAGES, "tools": tools, "tool_choice": choice, "parallel_tool_calls": False}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
        (call,) = answer["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] in names
        expected = {"city": "Oslo"} if call["function"]["name"] == "weather" else {}
        assert json.loads(call["function"]["arguments"]) == expected
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
