"""Responses with OpenAI's own client: events in their order, items, what is kept, conversations that go on."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from tests.server.conftest import WEATHER
from tests.support.scripted import scripted
from tests.support.serving import served

from sotol.conversations import DatabaseFile, Responses
from sotol.server import Served, create_app
from sotol.server.store import Kept, Memory, Record

FUNCTIONS: Any = [
    {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": None},
    {"type": "function", "name": "time", "parameters": {"type": "object", "properties": {}}, "strict": None},
]


def test_a_response(client: OpenAI) -> None:
    response = client.responses.create(model="greeting", input="hi", metadata={"a": "b"}, temperature=0.5)
    assert response.output_text == "Hello, wörld! 👋"
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert (response.object, response.model, response.metadata) == ("response", "greeting", {"a": "b"})
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (5, 19, 24)
    (message,) = response.output
    assert message.to_dict() == {
        "id": message.id,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello, wörld! 👋", "annotations": [], "logprobs": []}],
    }
    assert (response.temperature, response.top_p, response.truncation) == (0.5, 0.95, "disabled")


def test_a_stream(client: OpenAI) -> None:
    events = list(client.responses.create(model="greeting", input="hi", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        *["response.output_text.delta"] * deltas, "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    first, last = events[0], events[-1]
    assert first.type == "response.created"
    assert (first.response.status, first.response.output) == ("in_progress", [])
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello, wörld! 👋"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello, wörld! 👋"
    with client.responses.stream(model="greeting", input="hi") as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == "Hello, wörld! 👋"


def test_an_answer_that_is_cut(client: OpenAI) -> None:
    response = client.responses.create(model="greeting", input="hi", max_output_tokens=5)
    assert (response.output_text, response.status) == ("Hello", "incomplete")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    *_, last = client.responses.create(model="greeting", input="hi", max_output_tokens=5, stream=True)
    assert last.type == "response.incomplete"


def test_an_answer_without_a_word() -> None:
    with (
        scripted("") as llm,
        served(create_app([Served("model", llm)])) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        response = client.responses.create(input="hi", model="model")
        assert (response.output_text, [item.type for item in response.output]) == ("", ["message"])


def test_logprobs(client: OpenAI) -> None:
    options: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 1, "max_output_tokens": 3}
    response = client.responses.create(model="greeting", input="hi", **options)
    part: Any = response.output[0].to_dict()["content"]
    assert [entry["token"] for entry in part[0]["logprobs"]] == ["H", "e", "l"]
    assert [entry["top_logprobs"][0]["token"] for entry in part[0]["logprobs"]] == ["H", "e", "l"]


def test_items(client: OpenAI) -> None:
    """Every kind of input is a message to the model."""
    items: Any = [
        {"role": "developer", "content": "s"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "c1", "name": "time", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "noon"},
        {"role": "user", "content": "c"},
    ]
    said = client.responses.create(model="echo", input=items, instructions="i").output_text
    assert said.startswith("<system>i<end><system>s<end><user>a<end><assistant>b{")
    assert said.endswith("<end><tool>noon<end><user>c<end><assistant>")


def test_functions(client: OpenAI) -> None:
    response = client.responses.create(model="tools", input="hi", tools=FUNCTIONS)
    text, weather, time = response.output
    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
    assert weather.type == "function_call"
    assert (weather.name, json.loads(weather.arguments)) == ("weather", WEATHER["arguments"])
    answers: Any = [{"type": "function_call_output", "call_id": weather.call_id, "output": "sunny"}]
    items: Any = [{"role": "user", "content": "hi"}, text.to_dict(), weather.to_dict(), time.to_dict(), *answers]
    told = client.responses.create(model="tools", input=items, tools=FUNCTIONS)
    assert told.output_text == "It is sunny."
    goes_on = client.responses.create(model="tools", input=answers, tools=FUNCTIONS, previous_response_id=response.id)
    assert goes_on.output_text == "It is sunny."


def test_functions_in_a_stream(client: OpenAI) -> None:
    events = list(client.responses.create(model="tools", input="hi", tools=FUNCTIONS, stream=True))
    kinds = [event.type for event in events]
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 3
    assert kinds.count("response.function_call_arguments.delta") > 5
    done: list[Any] = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [(event.name, json.loads(event.arguments)) for event in done] == [
        ("weather", WEATHER["arguments"]), ("time", {}),
    ]  # fmt: skip
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == "".join(event.arguments for event in done)
    none = client.responses.create(model="tools", input="hi", tools=FUNCTIONS, tool_choice="none")
    assert [item.type for item in none.output] == ["message"]


def test_reasoning(client: OpenAI) -> None:
    response = client.responses.create(model="thinks", input="hi", reasoning={"effort": "low", "summary": "auto"})
    thought, _ = response.output
    assert thought.type == "reasoning"
    assert thought.content is not None
    assert "A number… two?" in thought.content[0].text
    assert response.output_text == "Two."
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens > 10
    kinds = [event.type for event in client.responses.create(model="thinks", input="hi", stream=True)]
    once = [kind for i, kind in enumerate(kinds) if kind != kinds[i - 1]]
    assert once == [
        "response.created", "response.in_progress",
        "response.output_item.added", "response.content_part.added", "response.reasoning_text.delta",
        "response.reasoning_text.done", "response.content_part.done", "response.output_item.done",
        "response.output_item.added", "response.content_part.added", "response.output_text.delta",
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.completed",
    ]  # fmt: skip


def test_what_is_kept(client: OpenAI) -> None:
    first = client.responses.create(model="echo", input="one", instructions="once")
    assert client.responses.retrieve(first.id) == first
    second = client.responses.create(model="echo", input="two", previous_response_id=first.id)
    assert second.output_text.startswith("<user>one<end><assistant>")
    assert second.output_text.endswith("<end><user>two<end><assistant>")
    assert second.previous_response_id == first.id
    items = list(client.responses.input_items.list(second.id, order="asc"))
    assert [item.type for item in items] == ["message"] * 3
    pages = list(client.responses.input_items.list(second.id, limit=1))  # the client asks for page after page
    assert [item.to_dict()["id"] for item in pages] == [item.to_dict()["id"] for item in reversed(items)]
    client.responses.delete(first.id)
    for call in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            call(first.id)
    assert client.responses.create(model="echo", input="x", previous_response_id=second.id).output_text
    unkept = client.responses.create(model="echo", input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="echo", input="x", previous_response_id=unkept.id)
    assert refused.value.code == "previous_response_not_found"
    *_, last = client.responses.create(model="echo", input="x", stream=True)
    assert last.type == "response.completed"
    assert client.responses.retrieve(last.response.id).output_text == last.response.output_text


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({"input": None}, "input"),
    "no items": ({"input": []}, "input"),
    "an unknown field": ({"colour": 1}, "colour"),
    "an item": ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
    "no item": ({"input": [{"id": "x"}]}, "input[0].type"),
    "a role": ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    "an image": ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
    "an output without a call": ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
    "a tool": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "a choice": ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
    "a cut prompt": ({"truncation": "auto"}, "truncation"),
    "the background": ({"background": True}, "background"),
    "a schema": ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    "metadata": ({"metadata": {"a": 1}}, "metadata.a"),
}


@pytest.mark.parametrize(("body", "param"), BAD.values(), ids=BAD)
def test_bad_requests(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    for stream in (False, True):
        answer = http.post("/v1/responses", json={"model": "greeting", "input": "hi", "stream": stream, **body})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param, answer.text


def test_bad_listings(client: OpenAI, http: httpx.Client) -> None:
    path = f"/v1/responses/{client.responses.create(model='greeting', input='hi').id}"
    for query in ("input_items?order=up", "input_items?limit=0", "input_items?limit=x", "input_items?after=x"):
        assert http.get(f"{path}/{query}").status_code == 400
    assert http.get(f"{path}?stream=true").status_code == 400


def test_a_response_that_fails() -> None:
    from sotol.errors import SotolError

    with scripted("abc " * 300) as llm, served(create_app([Served("model", llm)])) as url:
        runner: Any = llm._loaded.runner

        def fail(_: Any) -> None:
            if runner.steps > 20:
                runner.before = lambda _: None
                raise SotolError("the machine is on fire")

        runner.before = fail
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            *_, last = client.responses.create(model="model", input="hi", stream=True)
            assert last.type == "response.failed"
            assert last.response.error is not None
            assert "on fire" in last.response.error.message
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(last.response.id)


def test_the_memory_is_bounded() -> None:
    def record(number: int, owner: str = "a", text: str = "") -> Record:
        return Record(owner, {"id": str(number), "output": [], "text": text}, (), 0)

    async def scenario() -> None:
        memory = Memory(records=3, characters=10_000)
        for number in range(3):
            await memory.put(record(number))
        assert await memory.get("a", "0") is not None  # and so it was the latest to be used
        await memory.put(record(3))
        assert [await memory.get("a", str(n)) is not None for n in range(4)] == [True, False, True, True]
        assert await memory.get("b", "0") is None
        assert not await memory.delete("b", "0")
        assert await memory.delete("a", "0")
        assert not await memory.delete("a", "0")
        await memory.put(record(4, text="x" * 9_940))
        assert [await memory.get("a", str(n)) is not None for n in range(5)] == [False] * 4 + [True]

    asyncio.run(scenario())


def test_a_database_outlives_the_server(tmp_path: Path) -> None:
    """A conversation goes on, on another server of the same file."""
    asked = "One", "Two", "Three"
    before: str | None = None
    for number, text in enumerate(asked):
        file = DatabaseFile(tmp_path / "c.db")
        with scripted(lambda prompt: str(prompt.count("<|user|>"))) as llm:
            app = create_app([Served("m", llm)], store=Kept(Responses(file)))
            with served(app) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                response = client.responses.create(model="m", input=text, previous_response_id=before)
                assert response.output_text == str(number + 1)
                before = response.id
                listed = client.responses.input_items.list(before, order="asc").data
                assert [item.to_dict()["content"][0]["text"] for item in listed][::2] == list(asked[: number + 1])  # type: ignore[index]
                if number == 2:
                    client.responses.delete(before)
                    with pytest.raises(openai.NotFoundError):
                        client.responses.retrieve(before)
        file.close()
