"""Any pieces of an answer, however they are cut: each dialect's stream adds up to what they say."""

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sotol import Completion
from sotol.answers.folding import Fold
from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning
from sotol.results import Delta, Timings, Usage
from sotol.server.anthropic.fields import MessagesRequest
from sotol.server.anthropic.messages import _events, _Form
from sotol.server.openai.shapes import delta as chat_delta
from sotol.server.responses.building import Building

TEXT = st.text(min_size=1, max_size=4)
ASKED = MessagesRequest.model_validate(
    {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9, "thinking": {"type": "adaptive"}}
)


@st.composite
def deltas(draw: st.DrawFn) -> list[Delta]:
    """Reasoning, then content and calls in any order, cut into deltas anywhere."""
    pieces: list[Piece] = [Reasoning(text) for text in draw(st.lists(TEXT, max_size=3))]
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["content", "call"]), max_size=5)):
        if kind == "content":
            pieces += [Content(text) for text in draw(st.lists(TEXT, min_size=1, max_size=3))]
            continue
        pieces.append(CallBegun(calls, f"id{calls}", f"name{calls}"))
        arguments = json.dumps({"key": draw(TEXT)})
        cut = draw(st.integers(0, len(arguments)))
        pieces += [CallArguments(calls, part) for part in (arguments[:cut], arguments[cut:]) if part]
        calls += 1
    cuts = sorted(draw(st.lists(st.integers(0, len(pieces)), max_size=6)))
    bounds = [0, *cuts, len(pieces)]
    return [Delta(tuple(pieces[a:b]), (), 1) for a, b in itertools.pairwise(bounds)]


def folded(given_deltas: list[Delta]) -> Completion:
    fold = Fold()
    for delta in given_deltas:
        for piece in delta.pieces:
            fold.take(piece)
    said = fold.answer
    timings, usage = Timings(0, 0, 0), Usage(1, 1)
    return Completion(said.content, (), "stop", None, usage, timings, 0, said.reasoning, said.calls)


def parsed(events: Iterator[str]) -> Iterator[dict[str, Any]]:
    for text in events:
        for event in filter(None, text.split("\n\n")):
            yield json.loads(event.split("data: ", 1)[1])


@given(deltas())
def test_chat_completions(given_deltas: list[Delta]) -> None:
    content = reasoning = ""
    calls: dict[int, dict[str, str]] = {}
    for delta in given_deltas:
        said = chat_delta(delta.pieces)
        content += said.get("content", "")
        reasoning += said.get("reasoning_content", "")
        indices = [call["index"] for call in said.get("tool_calls", [])]
        assert len(set(indices)) == len(indices)  # clients join what has one index, of different deltas
        for call in said.get("tool_calls", []):
            if "id" in call:
                calls[call["index"]] = {"id": call["id"], "name": call["function"]["name"], "arguments": ""}
            calls[call["index"]]["arguments"] += call["function"]["arguments"]
    whole = folded(given_deltas)
    assert (content, reasoning) == (whole.text, whole.reasoning)
    assert [tuple(call.values()) for call in calls.values()] == [(c.id, c.name, c.arguments) for c in whole.tool_calls]


@given(deltas())
def test_responses(given_deltas: list[Delta]) -> None:
    whole = folded(given_deltas)
    building = Building({"id": "resp_1", "output": []}, lambda _: [])
    events = list(parsed(building.begin()))
    for delta in given_deltas:
        events += parsed(building.take(delta))
    events += parsed(building.end(whole))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    output: list[dict[str, Any]] = building.response["output"]
    texts = [item["content"][0]["text"] for item in output if item["type"] == "message"]
    assert "".join(texts) == whole.text
    assert "".join(i["content"][0]["text"] for i in output if i["type"] == "reasoning") == whole.reasoning
    calls = [(i["call_id"], i["name"], i["arguments"]) for i in output if i["type"] == "function_call"]
    assert calls == [(c.id, c.name, c.arguments) for c in whole.tool_calls]
    assert {item["status"] for item in output} == {"completed"}
    for i, item in enumerate(output):  # its events are together, and add up to it
        own = [event for event in events if event.get("output_index") == i]
        assert (own[0]["type"], own[-1]["type"]) == ("response.output_item.added", "response.output_item.done")
        assert own[-1]["item"] == item
        text = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        assert text == (item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])


@given(deltas())
def test_messages(given_deltas: list[Delta]) -> None:
    whole = folded(given_deltas)
    form = _Form(ASKED, 9, "m", 1)

    async def coming() -> AsyncIterator[Any]:
        for delta in given_deltas:
            yield 0, delta
        yield 0, whole

    async def read() -> list[str]:
        return [text async for text in _events(form, coming())]

    import asyncio

    events = list(parsed(iter(asyncio.run(read()))))
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in events[2:-2]:
        if event["type"] == "content_block_start":
            assert (event["index"], is_open) == (len(blocks), False)
            blocks.append({**event["content_block"], "json": ""})
            is_open = True
        elif event["type"] == "content_block_stop":
            assert (event["index"], is_open) == (len(blocks) - 1, True)
            is_open = False
        else:
            change, block = event["delta"], blocks[event["index"]]
            assert is_open
            for name, field in (("text", "text"), ("thinking", "thinking"), ("partial_json", "json")):
                block[field] = block.get(field, "") + change.get(name, "")
            block["signature"] = change.get("signature", "")
    assert not is_open
    assert "".join(block["text"] for block in blocks if block["type"] == "text") == whole.text
    thoughts = [block for block in blocks if block["type"] == "thinking"]
    assert "".join(block["thinking"] for block in thoughts) == whole.reasoning
    assert all(block["signature"] for block in thoughts)
    calls = [(block["id"], block["name"], block["json"]) for block in blocks if block["type"] == "tool_use"]
    assert calls == [(c.id, c.name, c.arguments) for c in whole.tool_calls]
    message = form.message(whole)
    kinds = [block["type"] for block in message["content"]]
    assert kinds == sorted(kinds, key=["thinking", "text", "tool_use"].index)
    assert (
        message["content"][:1] == [] or not thoughts or message["content"][0]["signature"] == thoughts[0]["signature"]
    )
