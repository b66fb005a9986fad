"""Turns of a conversation: prompts whose answers are taken apart."""

import asyncio
import re
import time
from typing import Any

import pytest
from tests.support.answers import CASES, DESCRIBED, Case, read
from tests.support.conversations import TOOL
from tests.support.scripted import TEMPLATE, scripted

from sotol import LLM
from sotol.answers.folding import fold
from sotol.answers.formats import FORMATS
from sotol.answers.pieces import Content, Reasoning

MESSAGES = [{"role": "user", "content": "Hi"}]


def test_a_turn_is_a_prompt() -> None:
    with scripted("héllo") as llm:
        turn = llm.turn(MESSAGES)
        assert turn.ids == llm.chat_prompt(MESSAGES)
        assert [a.text for a in llm.generate([turn, turn])] == ["héllo"] * 2
        assert "".join(llm.stream(turn)) == llm.generate(turn).text == "héllo"


def test_deltas_are_events() -> None:
    """One for each token, and the end; also where a token is half a character."""
    with scripted("hé!") as llm:
        stream = llm.stream(llm.turn(MESSAGES), logprobs=0)
        deltas = list(stream.deltas())
        assert [d.tokens for d in deltas] == [1, 1, 1, 1, 0]
        assert [d.pieces for d in deltas] == [(Content("h"),), (), (Content("é"),), (Content("!"),), ()]
        assert stream.completion is not None
        assert stream.completion.logprobs == tuple(one for d in deltas for one in d.logprobs)

        async def ask() -> list[Any]:
            return [delta async for delta in llm.astream(llm.turn(MESSAGES), logprobs=0).deltas()]

        assert asyncio.run(ask()) == deltas


def test_who_leaves_the_deltas_stops_the_work() -> None:
    with scripted("a" * 4000) as llm:

        async def ask() -> None:
            async for _ in llm.astream("hello").deltas():
                break

        asyncio.run(ask())
        for _ in llm.stream("hello").deltas():
            break
        end = time.monotonic() + 20  # of what takes a step
        while llm.load().running:
            assert time.monotonic() < end
            time.sleep(0.001)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "x"}, "unknown answer format 'x'; these are: text, hermes"),
        ({"tool_choice": "always", "tools": [TOOL]}, "tool_choice is 'always'; it must be 'auto'"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": [TOOL]}, "none of the tools: sum"),
        ({"tools": [TOOL, TOOL]}, r"tools\[1\] is a second sum"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\] has no name"),
        ({"tools": [{"name": "f", "parameters": 3}]}, r"parameters of tools\[0\], f, are no mapping"),
    ],
)
def test_malformed_turns(options: Any, message: str) -> None:
    with scripted("") as llm, pytest.raises(ValueError, match=message):
        llm.chat(MESSAGES, **options)


def test_tools_of_a_turn() -> None:
    other = {"name": "f", "input_schema": {"type": "object"}}
    with scripted("") as llm:
        turn = llm.turn(MESSAGES, tools=[TOOL, other])
        assert [tool.name for tool in turn.callable] == ["sum", "f"]
        assert "sum" in llm.detokenize(turn.ids)
        named = llm.turn(MESSAGES, tools=[TOOL, other], tool_choice={"type": "function", "function": {"name": "f"}})
        assert [tool.name for tool in named.callable] == ["f"]
        assert (named.tool_choice.mode, named.ids) == ("required", turn.ids)
        none = llm.turn(MESSAGES, tools=[TOOL, other], tool_choice="none")
        assert (none.callable, none.ids) == ((), llm.turn(MESSAGES).ids)


# ---- formats, by models that have their special tokens

# For each format: what its templates show of it, its control tokens, and further tokens that text shows.
HARMONY = ("<|start|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>", "<|constrain|>")
MODELS = {
    "hermes": ("<tool_call></tool_call><think>", (), ("<tool_call>", "</tool_call>", "<think>", "</think>")),
    "llama3": ("<|python_tag|>", ("<|python_tag|>",), ()),
    "mistral": ("[TOOL_CALLS]", ("[TOOL_CALLS]",), ()),
    "mistral-v11": ("[TOOL_CALLS][ARGS][THINK]",
                    ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"), ()),
    "deepseek": ("<｜tool▁sep｜>```json<think>",
                 ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
                  "<｜tool▁sep｜>"), ("<think>", "</think>")),
    "glm": ("<tool_call><arg_key><think>", (),
            ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<think>",
             "</think>")),
    "command-r7b": ("<|START_ACTION|><|START_THINKING|>",
                    ("<|START_ACTION|>", "<|END_ACTION|>", "<|START_THINKING|>", "<|END_THINKING|>",
                     "<|START_RESPONSE|>", "<|END_RESPONSE|>"), ()),
    "kimi-k2": ("<|tool_calls_section_begin|><think>",
                tuple(m for m in FORMATS["kimi-k2"].markers if "|" in m), ("<think>", "</think>")),
    "harmony": ("<|channel|>analysis<|message|>", (*HARMONY, "<|end|>"), ()),
    "gemma4": ("<|tool_call>call:<|channel>thought",
               ("<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>"), ()),
    "kimi-k3": ("<|open|><|sep|>'argument'close_tag('think')", ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
                ()),
    "solar-open": ("<|tool_call:args|><|begin|>assistant<|think|>",
                   (*(m for m in FORMATS["solar-open"].markers if m != "<|begin|>assistant"), "<|begin|>"), ()),
    "minimax-m3": ("]<]minimax[>[<mm:think>", ("]<]minimax[>[", "<mm:think>", "</mm:think>"), ()),
    "functionary-v3.2": (">>>all", (), ()),
}  # fmt: skip


def model(name: str, answer: str, generation: str = "") -> LLM:
    """A model of a format, whose template ends with `generation`."""
    shown, special, user = MODELS[name]
    template = "{# " + shown + " #}" + TEMPLATE.replace("<|assistant|>{% endif", f"<|assistant|>{generation}{{% endif")
    template = template.replace("<|end|>", "<|im_end|>")
    return scripted(generation + answer, template=template, special=special, shown=user, end="<|im_end|>")


@pytest.mark.parametrize("case", [case for case in CASES if case.format in MODELS], ids=lambda case: case.text[:40])
def test_answers_of_models(case: Case) -> None:
    """What the parser says of the text, control tokens and all; streamed, and whole."""
    special = MODELS[case.format][1]
    text = re.split("<\\|(?:call|return|end_of_msg|calls)\\|>", case.text)[
        0
    ]  # of gpt-oss and its kind: the answer ends there
    wanted = read(case.format, [text], hidden=special)
    with model(case.format, case.text) as llm:
        done = llm.chat(MESSAGES, tools=DESCRIBED)
        calls = [(call.name, call.arguments) for call in done.tool_calls]
        assert (done.text, done.reasoning) == (wanted.content, wanted.reasoning)
        assert calls == [(call.name, call.arguments) for call in wanted.calls]
        assert done.finish_reason == ("tool_calls" if calls else "stop")
        assert not any(token in done.text for token in special)

        stream = llm.stream_chat(MESSAGES, tools=DESCRIBED)
        folded = fold(piece for delta in stream.deltas() for piece in delta.pieces)
        assert folded[:2] == (done.text, done.reasoning)
        assert [(call.name, call.arguments) for call in folded.calls] == calls
        assert "".join(llm.stream_chat(MESSAGES, tools=DESCRIBED)) == done.text


def test_without_tools_calls_are_text() -> None:
    call = '<tool_call>{"name": "now"}</tool_call>'
    with model("hermes", f"<think>So</think>{call}") as llm:
        options: Any
        for options in ({}, {"tools": DESCRIBED, "tool_choice": "none"}):
            done = llm.chat(MESSAGES, **options)
            assert (done.text, done.reasoning, done.tool_calls, done.finish_reason) == (call, "So", (), "stop")
        assert llm.generate(llm.chat_prompt(MESSAGES)).text == f"<think>So</think>{call}"
        named = llm.chat(MESSAGES, tools=DESCRIBED, format="text")
        assert (named.text, named.tool_calls) == (f"<think>So</think>{call}", ())


def test_a_named_format() -> None:
    with scripted('{"name": "now", "arguments": {}}') as llm:
        assert llm.turn(MESSAGES).format.name == "text"
        assert llm.chat(MESSAGES, tools=DESCRIBED).tool_calls == ()
        (call,) = llm.chat(MESSAGES, tools=DESCRIBED, format="json").tool_calls
        assert (call.name, call.arguments) == ("now", "{}")


def test_thoughts_that_the_template_opened() -> None:
    with model("hermes", "\nSo.\n</think>\n\nHi", generation="<think>") as llm:
        assert llm.turn(MESSAGES).thinking
        done = llm.chat(MESSAGES)
        assert (done.text, done.reasoning) == ("Hi", "So.")
        assert done.usage.reasoning_tokens == len("\nSo.\n</think>") - len("</think>") + 1  # a byte is a token here
        cut = llm.chat(MESSAGES, max_tokens=4)
        assert (cut.text, cut.reasoning, cut.finish_reason, cut.usage.reasoning_tokens) == ("", "So.", "length", 4)
    with model("hermes", "So.</think>Hi") as llm:
        said = [{"role": "user", "content": "a <think>"}]
        assert not llm.turn(said, template={"add_generation_prompt": False}).thinking
        assert llm.chat(MESSAGES).text == "So.</think>Hi"
    with model("hermes", "Hi", generation="<think>\n\n</think>\n\n") as llm:
        assert not llm.turn(MESSAGES).thinking
        assert (llm.chat(MESSAGES).text, llm.chat(MESSAGES).usage.reasoning_tokens) == ("Hi", 0)


def test_thoughts_stream() -> None:
    with model("hermes", "<think>So</think>Hi") as llm:
        pieces = [delta.pieces for delta in llm.stream_chat(MESSAGES).deltas()]
        assert pieces == [(), (Reasoning("S"),), (Reasoning("o"),), (), (Content("H"),), (Content("i"),), ()]
        assert llm.chat(MESSAGES).usage.reasoning_tokens == 4


def test_one_call_at_most() -> None:
    with model("hermes", '<tool_call>{"name": "now"}</tool_call>' * 3) as llm:
        assert len(llm.chat(MESSAGES, tools=DESCRIBED).tool_calls) == 3
        assert len(llm.chat(MESSAGES, tools=DESCRIBED, parallel_tool_calls=False).tool_calls) == 1


def test_what_was_called_goes_back_into_the_conversation() -> None:
    """In OpenAI's form; what the template makes of it is what the model wrote."""
    call = '{"type": "function", "id": "1", "function": {"name": "get_weather", "arguments": {"city": "é", "days": 2}}}'

    def answer(prompt: str) -> str:
        written = '<think>Hm</think>\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "é", "days": 2}}'
        return "Two." if "<|tool|>" in prompt else written

    with scripted(answer, template="{# <tool_call></tool_call><think> #}" + TEMPLATE) as llm:
        done = llm.chat(MESSAGES, tools=DESCRIBED)
        (called,) = done.tool_calls
        messages: list[dict[str, Any]] = [
            *MESSAGES,
            {
                "role": "assistant",
                "content": done.text,
                "reasoning_content": done.reasoning,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": called.name, "arguments": called.arguments}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "warm"},
        ]
        assert call in llm.detokenize(llm.turn(messages).ids)
        assert llm.chat(messages, tools=DESCRIBED).text == "Two."


def test_answers_of_asyncio() -> None:
    async def ask(llm: LLM) -> None:
        done = await llm.achat(MESSAGES, tools=DESCRIBED, seed=1)
        assert (done.text, done.reasoning, done.tool_calls[0].arguments) == ("", "So", "{}")
        streams = llm.astream_chat(MESSAGES, tools=DESCRIBED, n=2)
        for stream in streams:
            folded = fold([piece async for delta in stream.deltas() for piece in delta.pieces])
            assert (folded.reasoning, len(folded.calls)) == ("So", 1)
            assert stream.completion is not None
            assert stream.completion.tool_calls == folded.calls

    with model("hermes", '<think>So</think><tool_call>{"name": "now"}</tool_call>') as llm:
        asyncio.run(ask(llm))


def test_a_model_without_a_template_writes_as_its_vocabulary_says() -> None:
    """gpt-oss's, whose answers have channels whatever the prompt is; a preset makes that."""
    with scripted("x", template=None, special=HARMONY) as llm:
        turn = llm.turn([{"role": "system", "content": "S"}, *MESSAGES])
        prompt = llm.detokenize(turn.ids, special=True)
        assert llm.template.source == "gpt-oss"
    assert prompt.endswith("<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant")
    assert "<|start|>developer<|message|># Instructions\n\nS\n\n<|end|>" in prompt
    assert (turn.format.name, turn.thinking) == ("harmony", False)


def test_what_is_said_may_be_begun_by_the_template() -> None:
    """Kimi K3's prompts without thinking end where the model says something."""
    kimi = TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><|open|>{{ 'think' if thinking else 'response' }}"
                            "<|sep|>{% endif %}{# <|close|> 'argument' close_tag('think') #}")  # fmt: skip
    said = "<|open|>response<|sep|>yes<|close|>response<|sep|><|close|>message<|sep|>"
    with scripted(said, template=kimi, special=("<|open|>", "<|close|>", "<|sep|>")) as llm:
        for thinking in (False, True):
            turn = llm.turn(MESSAGES, template={"thinking": thinking})
            assert (turn.format.name, turn.thinking) == ("kimi-k3", thinking)
            assert turn.format.said[0] == ("" if not thinking else FORMATS["kimi-k3"].said[0])
        answer = llm.generate(llm.turn(MESSAGES, template={"thinking": False}), regex="(yes|no)!?", seed=1)
        assert answer.text == "yes"
