"""Chat completions with OpenAI's own client: every option, whole and as a stream."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from tests.server.conftest import WEATHER
from tests.support.serving import served

from sotol import LLM
from sotol.server import Served, create_app

HI: Any = [{"role": "user", "content": "hi"}]


def test_an_answer(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="greeting", messages=HI)
    (choice,) = answer.choices
    assert choice.message.content == "Hello, wörld! 👋"
    assert (choice.message.role, choice.finish_reason, choice.logprobs) == ("assistant", "stop", None)
    assert choice.message.tool_calls is None
    assert choice.message.refusal is None
    assert (answer.object, answer.model) == ("chat.completion", "greeting")
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 19, 24)
    again = client.chat.completions.create(model="greeting-alias", messages=HI)
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert again.usage.prompt_tokens_details.cached_tokens == 4  # all but the last
    timings = again.model_dump()["timings"]
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (4, 1, 19)
    assert (again.model, again.id != answer.id) == ("greeting", True)


def test_a_stream(client: OpenAI) -> None:
    options: Any = {"stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="greeting", messages=HI, stream=True, **options))
    first, *middle, last, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    assert first.choices[0].delta.content == ""
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == "Hello, wörld! 👋"
    assert {chunk.choices[0].finish_reason for chunk in middle} == {None}
    assert last.choices[0].finish_reason == "stop"
    assert last.model_dump()["timings"]["predicted_n"] == 19
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 19
    assert {chunk.usage for chunk in chunks[:-1]} == {None}
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1


def test_events_on_the_wire(http: httpx.Client) -> None:
    body = {"model": "greeting", "messages": HI, "stream": True}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    parsed = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert not any("usage" in event for event in parsed)
    body["stream_options"] = {"include_usage": True}
    events = http.post("/v1/chat/completions", json=body).text.split("\n\n")
    assert [json.loads(event[6:])["usage"] is None for event in events[:-2]] == [True] * len(parsed) + [False]


def test_several_answers(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="greeting", messages=HI, n=3, max_tokens=4)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert {choice.message.content for choice in whole.choices} == {"Hell"}
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 12)
    texts, ends = ["", "", ""], []
    for chunk in client.chat.completions.create(model="greeting", messages=HI, n=3, max_tokens=4, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason == "length" else []
    assert texts == ["Hell"] * 3
    assert sorted(ends) == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"max_tokens": 5}, "Hello", "length"),
        ({"max_completion_tokens": 5}, "Hello", "length"),
        ({"max_tokens": 9, "max_completion_tokens": 5}, "Hello", "length"),
        ({"extra_body": {"n_predict": 5}}, "Hello", "length"),
        ({"max_tokens": None}, "Hello, wörld! 👋", "stop"),
        ({"max_tokens": -1}, "Hello, wörld! 👋", "stop"),
        ({"stop": "wö"}, "Hello, ", "stop"),
        ({"stop": ["rl", ", w"]}, "Hello", "stop"),
        ({"stop": []}, "Hello, wörld! 👋", "stop"),
        ({"logit_bias": {str(ord("H")): -100, str(ord("J")): 10}, "max_tokens": 1}, "J", "length"),
        ({"extra_body": {"ignore_eos": True}, "max_tokens": 20}, "Hello, wörld! 👋", "length"),
        ({"temperature": 0, "top_p": 0.5, "seed": -5, "frequency_penalty": 0.1, "presence_penalty": 0.1}, None, "stop"),
        ({"extra_body": {"top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1, "repeat_last_n": 3}}, None, "stop"),
        (
            {"extra_body": {"top_k": None, "cache_prompt": True, "id_slot": -1, "mirostat": 0, "tfs_z": 1.0}},
            None,
            "stop",
        ),
        (
            {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "safety_identifier": "x"},
            None,
            None,
        ),
        ({"response_format": {"type": "text"}, "parallel_tool_calls": True, "modalities": ["text"]}, None, "stop"),
    ],
)
def test_options(client: OpenAI, options: Any, text: str | None, reason: str | None) -> None:
    whole = client.chat.completions.create(model="greeting", messages=HI, **options)
    assert whole.choices[0].message.content == (text or "Hello, wörld! 👋")
    assert whole.choices[0].finish_reason == (reason or "stop")
    chunks = list(client.chat.completions.create(model="greeting", messages=HI, stream=True, **options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_logprobs(client: OpenAI) -> None:
    options: Any = {"logprobs": True, "top_logprobs": 2, "max_tokens": 10}
    whole = client.chat.completions.create(model="greeting", messages=HI, **options).choices[0]
    assert whole.logprobs is not None
    assert whole.logprobs.content is not None
    tokens = whole.logprobs.content
    assert bytes(b for token in tokens for b in token.bytes or ()).decode() == "Hello, wö"
    assert [token.token for token in tokens[:3]] == ["H", "e", "l"]
    assert tokens[0].bytes == [72]
    assert [len(token.top_logprobs) for token in tokens] == [2] * 10
    assert tokens[0].top_logprobs[0].token == "H"
    assert tokens[0].top_logprobs[0].logprob == tokens[0].logprob > -0.1
    streamed: list[Any] = []
    for chunk in client.chat.completions.create(model="greeting", messages=HI, stream=True, **options):
        if chunk.choices[0].logprobs is not None:
            streamed += chunk.choices[0].logprobs.content or []
    assert streamed == tokens
    named = client.chat.completions.create(model="greeting", messages=HI, extra_body={"n_probs": 1}, max_tokens=1)
    assert named.choices[0].logprobs is not None


def test_roles_and_parts(client: OpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Ann"},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "user", "content": "c"},
    ]
    answer = client.chat.completions.create(model="echo", messages=messages)
    assert answer.choices[0].message.content == (
        "<system>Be brief.<end><user>ab<end><assistant>no<end><user>c<end><assistant>"
    )


def test_tool_calls(client: OpenAI, functions: Any) -> None:
    whole = client.chat.completions.create(model="tools", messages=HI, tools=functions)
    (choice,) = whole.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is not None
    assert choice.message.content.strip() == "I'll look."
    calls: Any = choice.message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "time"]
    assert json.loads(calls[0].function.arguments) == WEATHER["arguments"]
    assert len({call.id for call in calls}) == 2
    messages = [*HI, choice.message, {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}]
    answer = client.chat.completions.create(model="tools", messages=messages, tools=functions)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("It is sunny.", "stop")


def test_tool_calls_in_a_stream(client: OpenAI, functions: Any) -> None:
    with client.chat.completions.stream(model="tools", messages=HI, tools=functions) as stream:
        chunks = [event.chunk for event in stream if event.type == "chunk"]
        final: Any = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "time"]
    assert json.loads(calls[0].function.arguments) == WEATHER["arguments"]
    assert final.choices[0].finish_reason == "tool_calls"
    parts = [part for chunk in chunks for choice in chunk.choices for part in choice.delta.tool_calls or ()]
    begun = [part for part in parts if part.id]
    assert [(part.index, part.function and part.function.name) for part in begun] == [(0, "weather"), (1, "time")]
    assert len([part for part in parts if part.index == 0]) > 5  # arguments come as they are written


def test_which_tools(client: OpenAI, functions: Any) -> None:
    none = client.chat.completions.create(model="tools", messages=HI, tools=functions, tool_choice="none")
    assert none.choices[0].message.tool_calls is None
    assert none.choices[0].finish_reason == "stop"
    allowed: Any = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "time"}}]},
    }
    answer = client.chat.completions.create(model="tools", messages=HI, tools=functions, tool_choice=allowed)
    calls: Any = answer.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["time"]
    for choice in ("required", {"type": "function", "function": {"name": "nobody"}}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(
                model="tools", messages=HI, tool_choice=choice, **({} if choice == "required" else {"tools": functions})
            )  # type: ignore[call-overload]
        assert refused.value.param == "tool_choice"


def test_reasoning(client: OpenAI) -> None:
    whole: Any = client.chat.completions.create(model="thinks", messages=HI)
    message = whole.choices[0].message
    assert (message.reasoning_content.strip(), message.content) == ("A number… two?", "Two.")
    assert whole.usage.completion_tokens_details.reasoning_tokens > 10
    thoughts = text = ""
    for chunk in client.chat.completions.create(model="thinks", messages=HI, stream=True):
        delta: Any = chunk.choices[0].delta
        thoughts += getattr(delta, "reasoning_content", None) or ""
        text += delta.content or ""
    assert (thoughts, text) == (message.reasoning_content, message.content)


def test_thoughts_have_a_budget(client: OpenAI) -> None:
    answer: Any = client.chat.completions.create(model="thinks", messages=HI, extra_body={"thinking_budget": 4})
    assert answer.choices[0].message.reasoning_content == "A n"
    with pytest.raises(openai.BadRequestError, match="thinking_budget is given twice"):
        client.chat.completions.create(
            model="thinks", messages=HI, extra_body={"thinking_budget": 4, "thinking_budget_tokens": 5}
        )


def test_what_the_template_is_told(serve: Callable[..., str]) -> None:
    template = "{{ enable_thinking }} {{ reasoning_effort }} {{ style }}<|assistant|>"
    url = serve(lambda prompt: prompt.removesuffix("<|assistant|>"), template=template)
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        def told(**options: Any) -> Any:
            return client.chat.completions.create(model="model", messages=HI, **options).choices[0].message.content

        assert told(reasoning_effort="none") == "False  "
        assert told(extra_body={"reasoning_budget_tokens": 0}) == "False  "
        assert told(extra_body={"thinking_budget": -1}) == "  "
        assert told(reasoning_effort="low") == "True low "
        kwargs = {"enable_thinking": True, "style": "x"}
        assert told(reasoning_effort="none", extra_body={"chat_template_kwargs": kwargs}) == "True  x"


def test_nothing_said_is_the_servers_sampling(models: Any) -> None:
    """What a request does not say is as `Served.sampling` has it."""
    (greeting,) = [model.served for model in models if model.name == "greeting"]
    from sotol import Sampling

    with served(create_app([Served("g", greeting.llm, sampling=Sampling(max_tokens=3))])) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": HI}).json()
        assert answer["choices"][0]["message"]["content"] == "Hel"
        answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": HI, "max_tokens": 2}).json()
        assert answer["choices"][0]["message"]["content"] == "He"


BAD = {
    "no messages": ({"messages": []}, "messages"),
    "messages is no list": ({"messages": "hi"}, "messages"),
    "a role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "content": ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]},
        "messages[0].content[0].type",
    ),
    "an unknown field": ({"colour": 1}, "colour"),
    "a sampler that sotol lacks": ({"mirostat": 2}, "mirostat"),
    "true is no 1": ({"typical_p": True}, "typical_p"),
    "a temperature": ({"temperature": -0.1}, "temperature"),
    "text for a number": ({"temperature": "1"}, "temperature"),
    "true for a number": ({"n": True}, "n"),
    "a float for a whole number": ({"max_tokens": 1.5}, "max_tokens"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "a huge number": ({"max_tokens": 10**30}, "max_tokens"),
    "a huge seed": ({"seed": 2**63}, "seed"),
    "many answers": ({"n": 17}, "n"),
    "too many answers": ({"n": 129}, "n"),
    "alternatives without logprobs": ({"top_logprobs": 2}, "top_logprobs"),
    "alternatives": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "an empty stop": ({"stop": ""}, "stop"),
    "a bias's key": ({"logit_bias": {"x": 1}}, "logit_bias"),
    "a bias": ({"logit_bias": {"1": 101}}, "logit_bias"),
    "no such token": ({"logit_bias": {"100000": 1}}, "logit_bias"),
    "two names": ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, "repeat_penalty"),
    "two limits": ({"max_tokens": 3, "n_predict": 4}, "max_tokens"),
    "two formats": ({"grammar": 'root ::= "a"', "guided_regex": "a"}, "guided_regex"),
    "a schema without one": ({"response_format": {"type": "json_schema"}}, "response_format"),
    "a tool without a name": ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    "another kind of tool": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "a stream's options": ({"stream_options": {"x": 1}}, "stream_options.x"),
    "audio": ({"modalities": ["audio"]}, "modalities[0]"),
}


@pytest.mark.parametrize(("body", "param"), BAD.values(), ids=BAD)
def test_bad_requests(http: httpx.Client, body: dict[str, Any], param: str | None) -> None:
    for stream in (False, True):
        answer = http.post("/v1/chat/completions", json={"model": "greeting", "messages": HI, "stream": stream, **body})
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert 10 < len(error["message"]) < 400


def test_what_the_client_raises(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4o", messages=HI)
    assert unknown.value.code == "model_not_found"
    assert "'greeting'" in unknown.value.message
    long: Any = [{"role": "user", "content": "x" * 5000}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="greeting", messages=long)
    assert refused.value.code == "context_length_exceeded"
    assert "5003" in refused.value.message
    assert "4096" in refused.value.message


def test_an_error_in_a_stream() -> None:
    """The client hears of it, and the server goes on."""
    from tests.support.scripted import scripted

    from sotol.errors import SotolError

    with scripted("abc " * 300) as llm, served(create_app([Served("model", llm)])) as url:
        runner: Any = llm._loaded.runner

        def fail(_: Any) -> None:
            if runner.steps > 20:
                runner.before = lambda _: None
                raise SotolError("the machine is on fire")

        runner.before = fail
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            texts: list[str] = []

            def read() -> None:
                for chunk in client.chat.completions.create(model="model", messages=HI, stream=True):
                    texts.append(chunk.choices[0].delta.content or "")  # noqa: PERF401  (what came before the error)

            with pytest.raises(openai.APIError, match="on fire"):
                read()
            assert "".join(texts).startswith("abc abc ")
            runner.steps = 0
            runner.before = fail
            with pytest.raises(openai.InternalServerError, match="on fire"):
                client.chat.completions.create(model="model", messages=HI)
            assert client.chat.completions.create(model="model", messages=HI, max_tokens=3).choices


def test_with_a_real_model(smollm2: LLM) -> None:
    messages: Any = [{"role": "user", "content": "Name three rivers."}]
    expected = smollm2.chat(messages, max_tokens=12, seed=3)
    with (
        served(create_app(smollm2)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        (model,) = client.models.list().data
        whole = client.chat.completions.create(model=model.id, messages=messages, max_tokens=12, seed=3)
        assert whole.choices[0].message.content == expected.text
        chunks = client.chat.completions.create(model=model.id, messages=messages, max_tokens=12, seed=3, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text
