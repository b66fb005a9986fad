"""Anthropic's messages with its own client: every option, whole and as a stream, and conversations of every kind."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic
from tests.server.conftest import WEATHER
from tests.support.serving import served

from sotol import LLM
from sotol.server import create_app

HI: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [
    {
        "name": "weather",
        "description": "It…",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
        "cache_control": {"type": "ephemeral"},
    },
    {"name": "time", "type": "custom", "input_schema": {"type": "object", "properties": {}}},
]


@pytest.fixture(scope="module")
def claude(url: str) -> Iterator[Anthropic]:
    with Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message(claude: Anthropic) -> None:
    message = claude.messages.create(model="greeting", max_tokens=100, messages=HI)
    assert text_of(message) == "Hello, wörld! 👋"
    assert (message.role, message.type, message.model) == ("assistant", "message", "greeting")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.id.startswith("msg_")
    assert message._request_id is not None
    again = claude.messages.create(model="greeting", max_tokens=100, messages=HI).usage
    assert (again.input_tokens, again.cache_read_input_tokens, again.output_tokens) == (1, 4, 19)
    assert again.cache_creation_input_tokens == 0


def test_a_stream(claude: Anthropic) -> None:
    with claude.messages.create(model="greeting", max_tokens=100, messages=HI, stream=True) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    deltas = kinds.count("content_block_delta")
    assert kinds == [
        "message_start", "content_block_start", *["content_block_delta"] * deltas, "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    with claude.messages.stream(model="greeting", max_tokens=100, messages=HI) as helper:
        assert "".join(helper.text_stream) == "Hello, wörld! 👋"
        final = helper.get_final_message()
    whole = claude.messages.create(model="greeting", max_tokens=100, messages=HI)
    assert final.content[0].to_dict()["text"] == text_of(whole)
    assert (final.stop_reason, final.stop_sequence) == (whole.stop_reason, whole.stop_sequence)
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens) == (1, 4)


@pytest.mark.parametrize(
    ("options", "text", "reason", "stop"),
    [
        ({"max_tokens": 5}, "Hello", "max_tokens", None),
        ({"stop_sequences": ["ld", "wö", "x"]}, "Hello, ", "stop_sequence", "wö"),
        ({"stop_sequences": ["<|end|>"]}, "Hello, wörld! 👋", "stop_sequence", "<|end|>"),
        ({"stop_sequences": ["nothing"]}, "Hello, wörld! 👋", "end_turn", None),
        ({"extra_body": {"temperature": 0.5, "top_k": 5, "top_p": 0.9}}, "Hello, wörld! 👋", "end_turn", None),
        ({"metadata": {"user_id": "u"}, "service_tier": "auto"}, "Hello, wörld! 👋", "end_turn", None),
        ({"system": "s", "cache_control": {"type": "ephemeral"}}, "Hello, wörld! 👋", "end_turn", None),
    ],
)
def test_options(claude: Anthropic, options: Any, text: str, reason: str, stop: str | None) -> None:
    asked = {"model": "greeting", "max_tokens": 100, "messages": HI, **options}
    whole = claude.messages.create(**asked)
    assert (text_of(whole), whole.stop_reason, whole.stop_sequence) == (text, reason, stop)
    with claude.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert (text_of(final), final.stop_reason, final.stop_sequence) == (text, reason, stop)


def test_the_end_of_the_context(claude: Anthropic) -> None:
    messages: Any = [{"role": "user", "content": "x" * 1000}]
    message = claude.messages.create(model="long", max_tokens=4000, messages=messages)
    assert (message.stop_reason, message.usage.output_tokens) == ("model_context_window_exceeded", 2048 - 1003)


def test_conversations(claude: Anthropic) -> None:
    messages: Any = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "c"},
                {"type": "tool_use", "id": "t1", "name": "time", "input": {"zone": "ö"}},
                {"type": "tool_use", "id": "t2", "name": "time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "noon"}]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "no such zone", "is_error": True},
                {"type": "text", "text": "d", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]
    system: Any = [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "t"}]
    said = text_of(claude.messages.create(model="echo", max_tokens=1000, messages=messages, system=system))
    assert said.startswith("<system>s\n\nt<end><user>a\nb<end><assistant>c{")
    assert '"zone": "ö"' in said or '"zone": "\\u00f6"' in said
    assert said.endswith("<end><tool>noon<end><tool>Error: no such zone<end><user>d<end><assistant>")


def test_an_answer_that_has_begun(claude: Anthropic) -> None:
    """The last message of the assistant is continued, and not repeated."""
    messages: Any = [*HI, {"role": "assistant", "content": "Hello, "}]
    assert text_of(claude.messages.create(model="greeting", max_tokens=100, messages=messages)) == "wörld! 👋"


def test_tools(claude: Anthropic) -> None:
    message = claude.messages.create(model="tools", max_tokens=1000, messages=HI, tools=TOOLS)
    assert message.stop_reason == "tool_use"
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    assert [block.to_dict().get("name") for block in message.content[1:]] == ["weather", "time"]
    assert [block.to_dict()["input"] for block in message.content[1:]] == [WEATHER["arguments"], {}]
    with claude.messages.stream(model="tools", max_tokens=1000, messages=HI, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()

    def told(answer: Any) -> list[Any]:
        return [{**block.to_dict(), "id": None} for block in answer.content]

    assert [(block["type"], block.get("input")) for block in told(final)] == [
        (block["type"], block.get("input")) for block in told(message)
    ]
    assert kinds.count("input_json") > 5
    result: Any = {"type": "tool_result", "tool_use_id": final.content[1].to_dict()["id"], "content": "sunny"}
    conversation: Any = [*HI, message.to_param(), {"role": "user", "content": [result]}]
    answer = claude.messages.create(model="tools", max_tokens=1000, messages=conversation, tools=TOOLS)
    assert (text_of(answer), answer.stop_reason) == ("It is sunny.", "end_turn")


def test_tool_choice(claude: Anthropic) -> None:
    asked: Any = {"model": "tools", "max_tokens": 1000, "messages": HI, "tools": TOOLS}
    none = claude.messages.create(**asked, tool_choice={"type": "none"})
    assert (none.stop_reason, [block.type for block in none.content]) == ("end_turn", ["text"])
    auto = claude.messages.create(**asked, tool_choice={"type": "auto"})
    assert auto.stop_reason == "tool_use"


def test_thinking(claude: Anthropic) -> None:
    asked: Any = {"model": "thinks", "max_tokens": 1000, "messages": HI}
    thinking: Any = {"type": "enabled", "budget_tokens": 500}
    message = claude.messages.create(**asked, thinking=thinking)
    thought, _text = message.content
    assert thought.type == "thinking"
    assert "A number… two?" in thought.thinking
    assert (text_of(message), len(thought.signature) > 20) == ("Two.", True)
    with claude.messages.stream(**asked, thinking=thinking) as stream:
        streamed = stream.get_final_message().content
    assert next(block.to_dict() for block in streamed) == thought.to_dict()
    brief: Any = claude.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": 5}).content
    assert brief[0].thinking == "A nu"  # and there it is closed
    quiets: Any = ({}, {"thinking": {"type": "disabled"}})
    for quiet in quiets:
        assert [block.type for block in claude.messages.create(**asked, **quiet).content] == ["text"]
        with claude.messages.stream(**asked, **quiet) as stream:
            assert [block.type for block in stream.get_final_message().content] == ["text"]
    hidden: Any = {**thinking, "display": "omitted"}
    omitted = claude.messages.create(**asked, thinking=hidden).content[0].to_dict()
    assert omitted == {"type": "thinking", "thinking": "", "signature": thought.signature}


def test_counting(claude: Anthropic) -> None:
    for messages, system in ((HI, "s"), ([*HI, {"role": "assistant", "content": "Hel"}], "long" * 2000)):
        counted = claude.messages.count_tokens(model="greeting", messages=messages, system=system)
        expected = 5 + len(system) + 2 + 3 * (len(messages) - 1)
        assert counted.input_tokens == expected
    used = claude.messages.create(model="greeting", max_tokens=1, messages=HI, tools=TOOLS, system="x").usage
    counted = claude.messages.count_tokens(model="greeting", messages=HI, tools=TOOLS, system="x")
    assert counted.input_tokens == used.input_tokens + (used.cache_read_input_tokens or 0)


IMAGE = {"type": "image", "source": {"type": "url", "url": "http://localhost/x.png"}}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no limit": ({"max_tokens": None}, "max_tokens"),
    "a limit": ({"max_tokens": 0}, "max_tokens"),
    "no messages": ({"messages": []}, "messages"),
    "a role": ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    "an image": ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content.0: blocks of type 'image'"),
    "a block without text": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages.0.content.0.text.text: Field",
    ),
    "a call without an id": (
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "x", "input": {}}]}]},
        "messages.0.content.0.tool_use.id: Field required",
    ),
    "a call's input": (
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "i", "name": "x", "input": "y"}]}]},
        "messages.0.content.0.tool_use.input: Input should be a valid dictionary",
    ),
    "a result's image": (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": [IMAGE]}]}]},
        "messages.0.content.0.content.0",
    ),
    "an unknown field": ({"colour": 1}, "colour: Extra inputs are not permitted"),
    "a temperature": ({"temperature": 1.1}, "temperature"),
    "a server's tool": ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
    "a tool without a schema": ({"tools": [{"name": "x"}]}, "tools.0.input_schema: Field required"),
    "a choice without tools": ({"tool_choice": {"type": "any"}}, "tool_choice"),
    "a choice of no tool": ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"),
    "thinking without an end": ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "max_tokens"),
    "thinking of what is said": (
        {"messages": [*HI, {"role": "assistant", "content": "x"}], "thinking": {"type": "adaptive"}},
        "has begun",
    ),
    "no budget": ({"thinking": {"type": "enabled"}}, "thinking.enabled.budget_tokens"),
    "a blank stop": ({"stop_sequences": [" "]}, "stop_sequences"),
    "edits": ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management"),
    "a container": ({"container": "x"}, "container"),
    "too long": ({"messages": [{"role": "user", "content": "x" * 5000}]}, "5003"),
}


@pytest.mark.parametrize(("body", "said"), BAD.values(), ids=BAD)
def test_bad_requests(http: httpx.Client, body: dict[str, Any], said: str) -> None:
    for stream in (False, True):
        asked = {"model": "greeting", "max_tokens": 100, "messages": HI, "stream": stream, **body}
        answer = http.post("/v1/messages", json=asked)
        assert answer.status_code == 400, answer.text
        told = answer.json()
        assert (told["type"], told["error"]["type"]) == ("error", "invalid_request_error")
        assert said in told["error"]["message"]


def test_what_the_client_raises(claude: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        claude.messages.create(model="claude-4", max_tokens=1, messages=HI)


def test_what_agents_send(http: httpx.Client) -> None:
    """A beta's fields and headers that ask for nothing that sotol lacks."""
    body = {
        "model": "greeting",
        "max_tokens": 32000,
        "messages": HI,
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "thinking": {"type": "adaptive"},
    }
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "context-management-2025-06-27", "x-api-key": "x"}
    answer = http.post("/v1/messages?beta=true", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["request-id"].startswith("req_")


def test_with_a_real_model(smollm2: LLM) -> None:
    expected = smollm2.chat([{"role": "user", "content": "Name three rivers."}], max_tokens=12, temperature=0)
    messages: Any = [{"role": "user", "content": "Name three rivers."}]
    with served(create_app(smollm2)) as url, Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        asked: Any = {
            "model": smollm2.path.stem,
            "messages": messages,
            "max_tokens": 12,
            "extra_body": {"temperature": 0},
        }
        assert text_of(client.messages.create(**asked)) == expected.text
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream) == expected.text
