"""The parser of answers: what each format's answers say, the same however they are cut, and nothing is lost."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.answers import CASES, TOOLS, Case, cut, read

from sotol.answers.folding import fold
from sotol.answers.formats import FORMATS
from sotol.answers.forms import AnswerFormat
from sotol.answers.parser import AnswerParser
from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning
from sotol.answers.tools import Tool

MANY = settings(max_examples=300, deadline=None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.format}-{case.text[:30]!r}")
def test_what_answers_say(case: Case) -> None:
    answer = read(case.format, [case.text])
    assert answer.content == case.content
    assert answer.reasoning == case.reasoning
    assert [(call.name, call.arguments) for call in answer.calls] == list(case.calls)
    assert len({call.id for call in answer.calls}) == len(answer.calls)
    assert read(case.format, case.text) == answer  # a character at a time
    for place in range(1, len(case.text)):
        assert read(case.format, cut(case.text, [place])) == answer


def test_every_format_has_a_case() -> None:
    assert {case.format for case in CASES} == set(FORMATS)


@MANY
@given(st.sampled_from(CASES), st.lists(st.integers(0, 400)), st.booleans(), st.booleans())
def test_cuts_change_nothing(case: Case, places: list[int], thinking: bool, hidden: bool) -> None:
    markers = FORMATS[case.format].markers if hidden else ()
    whole, parts = (
        read(case.format, parts, thinking=thinking, hidden=markers) for parts in ([case.text], cut(case.text, places))
    )
    assert parts == whole


def fragments(row: AnswerFormat) -> list[str]:
    """What answers of a format are made of, whole and in halves; words of digits are what must not be lost."""
    markers = [*row.markers, *(m.strip() for form in row.calls for m in form.markers), "<think>", "</think>"]
    halves = [part for m in markers for part in (m[: len(m) // 2], m[len(m) // 2 :])]
    json = ['{"name": "now", "arguments": {', "{", "}", "[", "]", '"', "\\", ":", ",", '"name"', '"arguments"', "now"]
    return [part for part in {*markers, *halves, *json, " ", "\n", "get_weather", "#"} if part]


@st.composite
def scrambled(draw: st.DrawFn) -> tuple[AnswerFormat, str]:
    row = FORMATS[draw(st.sampled_from(sorted(FORMATS)))]
    parts = draw(st.lists(st.sampled_from(sorted(fragments(row))), max_size=25))
    numbers = iter(range(10**6))
    return row, re.sub("#", lambda _: f"#{next(numbers)}#", "".join(parts))


@MANY
@given(scrambled(), st.lists(st.integers(0, 300)), st.booleans())
def test_whatever_comes_is_read_the_same_in_any_cuts(
    made: tuple[AnswerFormat, str], places: list[int], thinking: bool
) -> None:
    row, text = made
    whole = read(row, [text], thinking=thinking)
    assert read(row, cut(text, places), thinking=thinking) == whole
    assert read(row, text, thinking=thinking) == whole


@MANY
@given(scrambled(), st.booleans())
def test_nothing_is_lost(made: tuple[AnswerFormat, str], thinking: bool) -> None:
    """Each word is in one place; without calls and thoughts, all is said as it was written, but for silent markers."""
    row, text = made
    answer = read(row, [text], thinking=thinking)
    found = answer.content + answer.reasoning + "".join(call.arguments for call in answer.calls)
    assert sorted(re.findall("#[0-9]+#", found)) == sorted(re.findall("#[0-9]+#", text))
    if not answer.calls and not answer.reasoning and not thinking and not row.silent and not row.messages:
        rest = text.lstrip()
        while (pair := next((p for p in row.thinking if rest.startswith(p.open)), None)) is not None:
            rest = rest.removeprefix(pair.open).lstrip()  # thoughts of nothing
            rest = next((rest.removeprefix(p.close) for p in row.thinking if rest.startswith(p.close)), "").lstrip()
        assert answer.content.lstrip() == rest


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("thinking", [True, False])
def test_hidden_markers_never_show(name: str, thinking: bool) -> None:
    """Those that are control tokens of a model: a call that is none shows what is between them."""
    row = FORMATS[name]
    for marker in row.markers:
        answer = read(row, [f"A {marker} B{marker}"], thinking=thinking and bool(row.thinking), hidden=row.markers)
        shown = answer.reasoning + answer.content + "".join(call.arguments for call in answer.calls)
        assert not any(marker in shown for marker in row.markers)
        assert re.findall("[AB]", shown) == ["A", "B"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("functionary-v3.1", "<function=" + "a" * 300 + "<function=now>{}</function>"),
        ("functionary-v3.1", "<function=" * 40 + "now>{}"),
        ("hermes", '<tool_call>{"' + "a" * 300 + '": {"name": "now"}}'),
        ("hermes", '<tool_call>{"' + "<tool_call>" * 40 + '": {"name": "now"}}'),
        ("hermes", '<tool_call>{"name": "' + 'a\\"' * 150 + '<tool_call>{"name": "now"}}'),
    ],
)
def test_names_that_are_too_long_end_at_one_place(name: str, text: str) -> None:
    whole = read(name, [text])
    for place in range(1, len(text)):
        assert read(name, cut(text, [place])) == whole
    assert read(name, text) == whole


def test_without_tools_calls_are_text() -> None:
    for case in CASES:
        answer = read(case.format, [case.text], tools=())
        assert answer.calls == ()
        assert answer.reasoning == case.reasoning


def test_calls_come_as_soon_as_they_are_known() -> None:
    """And no text waits that can't be the beginning of something."""
    parser = AnswerParser(FORMATS["hermes"], TOOLS, ids=lambda: "id")
    assert parser.push("<think>\nSo") == [Reasoning("So")]
    assert parser.reasoning
    assert parser.push(" what </thin") == [Reasoning(" what")]
    assert parser.push("k>\n\nHi") == [Content("Hi")]
    assert not parser.reasoning
    assert parser.push(" <") == []
    assert parser.push("b> \n<tool_call>\n") == [Content(" <b>")]
    assert parser.push('{"name": "get_weather", "arguments": ') == []
    assert parser.push('{"ci') == [CallBegun(0, "id", "get_weather"), CallArguments(0, '{"ci')]
    assert parser.push('ty": "x') == [CallArguments(0, 'ty": "x')]
    assert parser.push('"}}</tool_call> Yes') == [CallArguments(0, '"}'), Content(" \nYes")]
    assert parser.finish() == []


def test_values_between_tags_stream() -> None:
    parser = AnswerParser(FORMATS["qwen3-coder"], TOOLS, ids=lambda: "id")
    assert parser.push("<tool_call>\n<function=get_weather>\n<parameter=city>\nLong") == [
        CallBegun(0, "id", "get_weather"), CallArguments(0, '{"city": "Long'),
    ]  # fmt: skip
    assert parser.push(' "\n') == [CallArguments(0, ' \\"')]
    assert parser.push("b\n</parameter>\n") == [CallArguments(0, '\\nb"')]
    assert parser.push("</function>") == [CallArguments(0, "}")]


def test_the_template_may_have_opened_the_thoughts() -> None:
    assert read("hermes", ["\nA\n</think>\n\nB"], thinking=True)[:2] == ("B", "A")
    assert read("hermes", ["<think>A</think>B"], thinking=True)[:2] == ("B", "A")
    assert read("hermes", ["</think>B"], thinking=True)[:2] == ("B", "")
    assert read("hermes", ["A"], thinking=True)[:2] == ("", "A")


def test_one_call_at_most() -> None:
    """The first; all others are dropped, and what is said stays."""
    text = '<tool_call>{"name": "now"}</tool_call>\n<tool_call>{"name": "now", "arguments": {"a": 1}}</tool_call>Bye'
    answer = read("hermes", [text], parallel=False)
    assert [call.arguments for call in answer.calls] == ["{}"]
    assert answer.content == "Bye"


def ids(format_: str, text: str) -> list[str]:
    return [call.id for call in read(format_, [text]).calls]


def test_ids() -> None:
    assert ids("mistral-v11", "[TOOL_CALLS]now[CALL_ID]abc123def[ARGS]{}[TOOL_CALLS]now[ARGS]{}") == ["abc123def", "0"]
    assert ids("mistral", '[TOOL_CALLS][{"id": "abc123def", "name": "now", "arguments": {}}]') == ["abc123def"]
    begin, middle = "<|tool_call_begin|>", "<|tool_call_argument_begin|>"
    kimi = f"{begin}functions.now:3{middle}{{}}<|tool_call_end|>{begin}now{middle}{{}}{begin}now:3{middle}{{}}"
    assert ids("kimi-k2", kimi) == ["functions.now:3", "0", "now:3"]
    assert ids("kimi-k2", f"{begin}functions.now:3{middle}{{}}" * 2) == ["functions.now:3", "0"]
    (long, *_) = AnswerParser(FORMATS["hermes"], TOOLS).push('<tool_call>{"name": "now"}')
    (nine, *_) = AnswerParser(FORMATS["mistral"], TOOLS).push("[TOOL_CALLS]now{}")
    assert isinstance(long, CallBegun)
    assert isinstance(nine, CallBegun)
    assert re.fullmatch("call_[0-9a-f]{24}", long.id)
    assert re.fullmatch("[0-9a-zA-Z]{9}", nine.id)


@pytest.mark.parametrize(
    ("name", "begin", "more", "end"),
    [
        ("hermes", "", "{", ""),
        ("hermes", "<think>", "\n", "x"),
        ("hermes", "x", " \n", "x"),
        ("hermes", "", "<tool_call>", ""),
        ("hermes", "", '<tool_call>{"name', ""),
        ("hermes", '<tool_call>{"', "n", ""),
        ("hermes", '<tool_call>{"arguments": "', "\\n", '", "name": "now"}'),
        ("hermes", '<tool_call>{"arguments": {"a": [', "[", ""),
        ("hermes", '<tool_call>{"name": "now", "arguments": {"a": "', "\\", ""),
        ("hermes", '<tool_call>{"name": "now", "arguments": ', '{"":', ""),
        ("llama3", "", "{\n", ""),
        ("llama3", "<|python_tag|>", "now(", ""),
        ("lfm2", "<|tool_call_start|>[now(a=", "[", ""),
        ("mistral-v11", "", "[TOOL_CALLS]now", ""),
        ("qwen3-coder", "<function=get_weather><parameter=city>", "\n", ""),
        ("qwen3-coder", "<function=get_weather><parameter=tags>", "[", "</parameter>"),
        ("glm", "<tool_call>", "a", ""),
    ],
)
def test_long_answers(name: str, begin: str, more: str, end: str) -> None:
    """A character at a time: what has come is not looked at again and again, so there is never much to look at."""
    parser, pieces = AnswerParser(FORMATS[name], TOOLS), list[Piece]()
    for character in begin + more * 20_000 + end:
        pieces += parser.push(character)
        assert parser.source.waiting < 100
    answer = fold(pieces + parser.finish())
    said = len(answer.content) + len(answer.reasoning) + sum(len(call.arguments) for call in answer.calls)
    assert said >= len(more.strip()) * 20_000


def test_a_tool_of_any_name() -> None:
    tool = Tool('a "b".c', {})
    assert [c.name for c in read("hermes", ['<tool_call>{"name": "a \\"b\\".c"}'], tools=[tool]).calls] == [tool.name]
