"""Requests that mean harm, or come from broken programs: refused within limits, and the server answers the next."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.serving import served

from sotol.server import Models, create_app
from sotol.server.service import Limits, longer_than

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens",
         "/api/chat", "/api/generate", "/api/show", "/tokenize", "/detokenize", "/apply-template"]  # fmt: skip
MESSAGES = [{"role": "user", "content": "hi"}]
FINE: dict[str, Any] = {"model": "greeting", "messages": MESSAGES, "max_tokens": 2}


@pytest.fixture(autouse=True)
def _alive(http: httpx.Client) -> Iterator[None]:
    """After each test, the server answers."""
    yield
    assert http.post("/v1/chat/completions", json=FINE).status_code == 200


def is_error(path: str, data: Any) -> bool:
    """Whether a body is an error in the dialect of a path."""
    if path.startswith("/api/"):
        return list(data) == ["error"] and isinstance(data["error"], str)
    if path.startswith("/v1/messages"):
        return data["type"] == "error" and isinstance(data["error"]["message"], str)
    return set(data["error"]) == {"message", "type", "param", "code"} and isinstance(data["error"]["message"], str)


BODIES = {
    "nothing": b"",
    "no JSON": b"hello",
    "a list": b"[1, 2]",
    "null": b"null",
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "half a pair": b'{"model": "\\ud800"}',
    "NaN": b'{"model": "greeting", "temperature": NaN}',
    "twice": b'{"model": "greeting", "model": "echo"}',
    "deep": b'{"model": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "very deep": b'{"a":' * 1_000_000,
    "digits": b'{"model": ' + b"1" * 100_000 + b"}",
    "an exponent": b'{"model": 1e99999}',
    "wrong types": b'{"model": {"a": 1}, "messages": 5, "prompt": 5, "input": 5, "tokens": 5}',
    "a long name": b'{"model": "' + b"x" * 10_000_000 + b'"}',
    "a path": b'{"model": "../../../etc/passwd"}',
    "a zero": b'{"model": "a\\u0000b"}',
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies(http: httpx.Client, path: str, body: bytes) -> None:
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert is_error(path, answer.json()), answer.text
    assert len(answer.text) < 1000


def test_a_huge_body(models: Models) -> None:
    with served(create_app(models, Limits(body_bytes=1000))) as url, httpx.Client(base_url=url) as limited:
        body = {**FINE, "messages": [{"role": "user", "content": "x" * 2000}]}
        assert limited.post("/v1/chat/completions", json=body).status_code == 413

        def pieces() -> Iterator[bytes]:
            yield json.dumps(FINE).encode()
            for _ in range(20):
                yield b" " * 100

        assert limited.post("/v1/chat/completions", content=pieces()).status_code == 413
        assert limited.post("/v1/chat/completions", json=FINE).status_code == 200


def test_limits_of_an_operator(models: Models) -> None:
    limits = Limits(choices=2, prompt_tokens=10, answer_tokens=3, schema_bytes=50)
    with served(create_app(models, limits)) as url, httpx.Client(base_url=url) as http:

        def asked(**body: Any) -> Any:
            return http.post("/v1/chat/completions", json={"model": "greeting", "messages": MESSAGES, **body})

        assert asked(n=2).status_code == 200
        assert "up to 2" in asked(n=3).json()["error"]["message"]
        answer = asked().json()["choices"][0]
        assert (answer["message"]["content"], answer["finish_reason"]) == ("Hel", "length")
        assert asked(max_tokens=100).json()["choices"][0]["message"]["content"] == "Hel"
        assert asked(max_tokens=2).json()["choices"][0]["message"]["content"] == "He"
        long = asked(messages=[{"role": "user", "content": "12345678"}])
        assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"title": "x" * 60}}}
        assert "more than 50 characters" in asked(response_format=schema).json()["error"]["message"]
        tools = [{"type": "function", "function": {"name": "x", "description": "x" * 60}}]
        assert "more than 50 characters" in asked(tools=tools).json()["error"]["message"]


LONG = "x" * 10_000_000
LONG_PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": LONG}]},
    "/v1/completions": {"prompt": LONG},
    "/v1/responses": {"input": LONG},
    "/v1/messages": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": LONG}]},
    "/api/chat": {"messages": [{"role": "user", "content": LONG}]},
    "/api/generate": {"prompt": LONG},
    "/tokenize": {"content": LONG},
}


@pytest.mark.parametrize("path", LONG_PROMPTS)
def test_long_prompts(http: httpx.Client, path: str) -> None:
    """Refused without tokenising them."""
    answer = http.post(path, json={"model": "greeting", **LONG_PROMPTS[path]})
    assert answer.status_code == 400
    assert "the prompt has at least" in answer.text
    assert "4096" in answer.text


@pytest.mark.parametrize(
    "fields",
    [{"stop": LONG}, {"stop": ["x" * 1025]}, {"stop": ["x"] * 65}, {"logit_bias": {str(i): 1 for i in range(5000)}}],
    ids=["a stop", "one of several", "many", "biases"],
)
def test_what_would_be_built_of_it(http: httpx.Client, fields: dict[str, Any]) -> None:
    answer = http.post("/v1/chat/completions", json={**FINE, **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].split("[")[0] in fields


def test_how_long_data_is() -> None:
    data = {"key": ["text", 12.5, True, None, {"a": {}}]}
    assert not longer_than(data, 60)
    assert longer_than(data, 20)
    assert longer_than("x" * 11, 10)
    assert longer_than([0] * 1000, 1000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)
FIELDS = ["messages", "prompt", "input", "tools", "tool_choice", "stop", "n", "max_tokens", "temperature", "options",
          "logit_bias", "response_format", "stream_options", "system", "thinking", "format", "seed", "tokens",
          "logprobs", "metadata", "text", "reasoning", "json_schema", "structured_outputs"]  # fmt: skip
START: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/completions": {"prompt": "hi", "max_tokens": 2},
    "/v1/responses": {"input": "hi", "max_output_tokens": 2},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/api/chat": {"messages": MESSAGES, "stream": False},
    "/api/generate": {"prompt": "hi", "stream": False},
    "/tokenize": {"content": "hi"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": MESSAGES},
}


@given(st.sampled_from(sorted(START)), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2))
def test_fields_of_any_kind(http: httpx.Client, path: str, fields: dict[str, Any]) -> None:
    """Answered, or refused in the dialect; never an error of the server's own."""
    answer = http.post(path, json={"model": "greeting", **START[path], **fields})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert is_error(path, answer.json())


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_a_body_that_ends_early(url: str) -> None:
    for path in PATHS:
        with connect(url) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{" % path.encode())


def test_two_requests_at_once(url: str) -> None:
    """Pipelined on one connection: each is answered, in order."""
    data = json.dumps(FINE).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)
    with connect(url) as connection:
        connection.sendall(request * 3)
        seen = b""
        while seen.count(b'"finish_reason":"length"') < 3:
            data = connection.recv(65536)
            assert data
            seen += data
    assert seen.count(b"HTTP/1.1 200") == 3


def test_a_template_that_never_ends(serve: Any) -> None:
    loops = 3
    template = "{% for i in range(10000) %}" * loops + "{% endfor %}" * loops
    with httpx.Client(base_url=serve("x", template=template), timeout=60) as http:
        answer = http.post("/v1/chat/completions", json={"messages": MESSAGES})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")


def test_an_error_of_the_servers_own(models: Models, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """The client learns nothing of it, the log everything."""
    from sotol import LLM

    def broken(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(LLM, "turn", broken)
    with served(create_app(models)) as url:
        for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
            answer = httpx.post(url + path, json={**START[path], "model": "greeting"})
            assert answer.status_code == 500
            assert is_error(path, answer.json())
            assert "secret" not in answer.text
    assert "KeyError: 'secret'" in caplog.text
    monkeypatch.undo()
