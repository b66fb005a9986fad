"""Ollama's API with its own client: chats and prompts, whole and as lines, and what models there are."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest
from ollama import Client
from tests.server.conftest import WEATHER
from tests.support.serving import served

from sotol import LLM
from sotol.server import create_app

HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def llama(url: str) -> Iterator[Client]:
    client = Client(host=url)
    yield client
    client._client.close()


def test_a_chat(llama: Client) -> None:
    answer = llama.chat("greeting", messages=HI)
    assert (answer.message.role, answer.message.content) == ("assistant", "Hello, wörld! 👋")
    assert (answer.model, answer.done, answer.done_reason) == ("greeting", True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count, answer.load_duration) == (5, 19, 0)
    assert answer.total_duration is not None
    assert answer.eval_duration is not None
    assert answer.total_duration >= answer.eval_duration > 0
    assert answer.created_at is not None
    assert answer.created_at.endswith("Z")


def test_lines(llama: Client) -> None:
    *lines, last = llama.chat("greeting:latest", messages=HI, stream=True)
    assert "".join(line.message.content or "" for line in lines) == "Hello, wörld! 👋"
    assert {(line.done, line.done_reason, line.eval_count) for line in lines} == {(False, None, None)}
    assert (last.message.content, last.done, last.done_reason, last.eval_count) == ("", True, "stop", 19)
    *parts, end = llama.generate("greeting", "hi", stream=True)
    assert "".join(part.response or "" for part in parts) == "Hello, wörld! 👋"
    assert (end.response, end.done) == ("", True)


def test_a_stream_is_the_default(http: httpx.Client) -> None:
    answer = http.post("/api/chat", json={"model": "greeting", "messages": HI})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert all(json.loads(line)["model"] == "greeting" for line in answer.text.splitlines())
    whole = http.post("/api/chat", json={"model": "greeting", "messages": HI, "stream": False})
    assert whole.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"num_predict": 5}, "Hello", "length"),
        ({"num_predict": -1}, "Hello, wörld! 👋", "stop"),
        ({"num_predict": -2, "num_ctx": 4096}, "Hello, wörld! 👋", "stop"),
        ({"stop": ["wö"]}, "Hello, ", "stop"),
        ({"temperature": 0, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "seed": 42}, "Hello, wörld! 👋", "stop"),
        ({"repeat_penalty": 1.1, "repeat_last_n": -1, "presence_penalty": 0.1}, "Hello, wörld! 👋", "stop"),
        ({"mirostat": 0, "typical_p": 1.0, "num_gpu": 99, "unknown": "ignored"}, "Hello, wörld! 👋", "stop"),
    ],
)
def test_options(llama: Client, options: Any, text: str, reason: str) -> None:
    chat = llama.chat("greeting", messages=HI, options=options, keep_alive="5m")
    assert (chat.message.content, chat.done_reason) == (text, reason)
    answer = llama.generate("greeting", "hi", options=options, keep_alive=-1)
    assert (answer.response, answer.done_reason) == (text, reason)


def test_prompts(llama: Client) -> None:
    assert llama.generate("echo", "hi", system="s").response == "<system>s<end><user>hi<end><assistant>"
    raw = llama.generate("echo", "<|user|>a<|end|><|assistant|>", raw=True)
    assert (raw.response, raw.prompt_eval_count) == ("<user>a<end><assistant>", 4)


def test_tools(llama: Client, functions: Any) -> None:
    answer = llama.chat("tools", messages=HI, tools=functions)
    calls: Any = answer.message.tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("weather", WEATHER["arguments"]), ("time", {}),
    ]  # fmt: skip
    lines = list(llama.chat("tools", messages=HI, tools=functions, stream=True))
    streamed = [call for line in lines for call in line.message.tool_calls or ()]
    assert streamed == calls
    assert (lines[-1].done_reason, lines[-1].message.tool_calls) == ("stop", None)
    conversation = [*HI, answer.message, {"role": "tool", "tool_name": "weather", "content": "sunny"}]
    assert llama.chat("tools", messages=conversation, tools=functions).message.content == "It is sunny."


def test_thinking(llama: Client) -> None:
    for think in (True, None, "low"):
        answer: Any = llama.chat("thinks", messages=HI, think=think)
        assert "A number… two?" in answer.message.thinking
        assert answer.message.content == "Two."
    quiet = llama.chat("thinks", messages=HI, think=False)
    assert (quiet.message.thinking, quiet.message.content) == (None, "Two.")
    lines = list(llama.chat("thinks", messages=HI, think=True, stream=True))
    assert "A number… two?" in "".join(line.message.thinking or "" for line in lines)
    assert "".join(line.message.content or "" for line in lines) == "Two."
    generated = llama.generate("thinks", "hi", think=True)
    assert "A number… two?" in (generated.thinking or "")
    assert generated.response == "Two."


def test_logprobs(llama: Client) -> None:
    answer = llama.generate("greeting", "hi", logprobs=True, top_logprobs=2, options={"num_predict": 2})
    assert answer.logprobs is not None
    assert [entry.token for entry in answer.logprobs] == ["H", "e"]
    assert [len(entry.top_logprobs or ()) for entry in answer.logprobs] == [2, 2]
    lines = llama.chat("greeting", messages=HI, logprobs=True, options={"num_predict": 2}, stream=True)
    assert [entry.token for line in lines for entry in line.logprobs or ()] == ["H", "e"]


def test_models(llama: Client) -> None:
    listed = llama.list().models
    assert [model.model for model in listed] == [
        f"{name}:latest" for name in ("greeting", "echo", "long", "tools", "thinks")
    ]
    assert len({model.digest for model in listed}) == 1  # one file, by its name, size and options
    assert [model.context_length for model in llama.ps().models] == [4096, 4096, 2048, 4096, 4096]
    shown = llama.show("thinks")
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert shown.details is not None
    assert (shown.details.family, shown.details.format) == ("llama", "gguf")
    assert shown.modelinfo is not None
    assert (shown.modelinfo["general.architecture"], shown.modelinfo["tokenizer.ggml.tokens"]) == ("llama", None)
    assert "<|assistant|>" in (shown.template or "")


def test_the_version(http: httpx.Client) -> None:
    assert http.get("/api/version").json()["version"].startswith("0.12.0+sotol.")


def test_nothing_to_answer(llama: Client) -> None:
    """How clients load a model, and let it go; here it stays."""
    assert llama.generate("greeting", "").done_reason == "load"
    assert llama.chat("greeting", messages=[]).done_reason == "load"
    assert llama.generate("greeting", "", keep_alive=0).done_reason == "unload"


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "a context": ("/api/chat", {"options": {"num_ctx": 8192}}, "num_ctx is 8192.*4096"),
    "a sampler": ("/api/chat", {"options": {"mirostat": 2}}, "mirostat is not supported"),
    "a temperature": ("/api/chat", {"options": {"temperature": "hot"}}, "options.temperature"),
    "no tokens": ("/api/chat", {"options": {"num_predict": 0}}, "num_predict is 0"),
    "a role": ("/api/chat", {"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
    "an image": ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": ["x"]}]}, "images"),
    "too long": ("/api/chat", {"messages": [{"role": "user", "content": "x" * 5000}]}, "5003.*4096"),
    "a format": ("/api/chat", {"format": "xml"}, "format"),
    "a template": ("/api/generate", {"prompt": "x", "template": "y"}, "template is not supported"),
    "a suffix": ("/api/generate", {"prompt": "x", "suffix": "y"}, "suffix is not supported"),
    "a history": ("/api/generate", {"prompt": "x", "context": [1]}, "context is not supported"),
    "no model": ("/api/generate", {"model": ""}, "model"),
    "nothing to show": ("/api/show", {"model": None}, "model is required"),
}


@pytest.mark.parametrize(("path", "body", "said"), BAD.values(), ids=BAD)
def test_bad_requests(http: httpx.Client, path: str, body: dict[str, Any], said: str) -> None:
    import re

    asked = {"model": "greeting", **({"messages": HI} if path == "/api/chat" else {}), **body}
    answer = http.post(path, json=asked)
    assert answer.status_code == 400, answer.text
    (error,) = answer.json().values()
    assert re.search(said, error)


def test_what_the_client_raises(llama: Client) -> None:
    with pytest.raises(ollama.ResponseError, match="does not exist") as unknown:
        llama.chat("nobody", messages=HI)
    assert unknown.value.status_code == 404


def test_an_error_between_lines() -> None:
    from tests.support.scripted import scripted
    from tests.support.serving import served

    from sotol.errors import SotolError
    from sotol.server import Served, create_app

    with scripted("abc " * 300) as llm, served(create_app([Served("model", llm)])) as url:
        runner: Any = llm._loaded.runner

        def fail(_: Any) -> None:
            if runner.steps > 20:
                runner.before = lambda _: None
                raise SotolError("the machine is on fire")

        runner.before = fail
        client = Client(host=url)
        with pytest.raises(ollama.ResponseError, match="on fire"):
            list(client.chat("model", messages=HI, stream=True))
        client._client.close()


def test_with_a_real_model(smollm2: LLM) -> None:
    messages = [{"role": "user", "content": "Name three rivers."}]
    expected = smollm2.chat(messages, max_tokens=12, temperature=0)
    with served(create_app(smollm2)) as url:
        client, options = Client(host=url), {"num_predict": 12, "temperature": 0}
        (model,) = client.list().models
        assert (model.details and model.details.family, model.size) == ("llama", smollm2.path.stat().st_size)
        assert client.chat(str(model.model), messages=messages, options=options).message.content == expected.text
        prompt = messages[0]["content"]
        lines = client.generate(str(model.model), prompt, options=options, stream=True)
        assert "".join(line.response or "" for line in lines) == expected.text
        client._client.close()
