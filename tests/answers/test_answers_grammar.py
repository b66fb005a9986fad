"""Grammars of calls: whatever they allow, the parser of the format reads as calls with valid arguments."""

import json
import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.support.random_answers import random_answer
from tests.support.scripted import scripted_model

from sotol import LLM
from sotol.answers.formats import FORMATS
from sotol.answers.forms import AnswerFormat, ElementCalls, QuotedCalls, TaggedCalls
from sotol.answers.parser import AnswerParser
from sotol.answers.pieces import CallArguments, CallBegun, Content, Reasoning
from sotol.answers.tools import AUTO, Choice, Tool
from sotol.constraints import constraint_of
from sotol.engine.constrain import Constraint, Grammars
from sotol.engine.options import Sampling
from sotol.loading import Loaded
from sotol.prompts import Turn
from sotol.tokenizers import Tokenizer

WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city"],
    },
)
NESTED = Tool(
    "book.table",
    {
        "properties": {
            "at": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 24}, {"type": "null"}]},
            "guests": {"type": "array", "items": {"$ref": "#/$defs/guest"}, "maxItems": 2},
            "outside": {"type": "boolean"},
        },
        "required": ["guests", "outside"],
        "$defs": {"guest": {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}},
    },
)
NOTHING = Tool("stop", {"type": "object", "properties": {}})
TOOLS = (WEATHER, NESTED, NOTHING)
CALLING = [row for row in FORMATS.values() if row.calls]
MUST = Choice("required")


def turn_of(
    format_: AnswerFormat,
    tools: tuple[Tool, ...] = TOOLS,
    tool_choice: Choice = MUST,
    *,
    thinking: bool = False,
    parallel: bool = True,
) -> Turn:
    """A turn that must call."""
    return Turn([], format_, thinking, tools, tool_choice, parallel)


def read(turn: Turn, text: str) -> tuple[str, str, list[tuple[str, str]]]:
    """What an answer thinks, says and calls."""
    parser = AnswerParser(turn.format, turn.callable, thinking=turn.thinking)
    thought, said, calls = "", "", list[tuple[str, str]]()
    for piece in [*parser.push(text), *parser.finish()]:
        if isinstance(piece, Content):
            said += piece.text
        elif isinstance(piece, Reasoning):
            thought += piece.text
        elif isinstance(piece, CallBegun):
            calls.append((piece.name, ""))
        elif isinstance(piece, CallArguments):
            calls[-1] = calls[-1][0], calls[-1][1] + piece.text
    return thought, said, calls


def model_of(row: AnswerFormat, *, control: bool) -> Loaded:
    """A model with the format's marks as tokens, which answers show or not."""
    marks = [mark for mark in row.markers if mark.startswith(("<", "["))]
    marks += [form.mark for form in row.calls if isinstance(form, ElementCalls)]
    return scripted_model("", special=marks if control else (), shown=() if control else marks, end="<|im_end|>")


def answers(turn: Turn, count: int, *, control: bool, sampling: Sampling | None = None) -> list[str]:
    """Complete ones, at random. control: marks are tokens that answers do not show."""
    model = model_of(turn.format, control=control)
    constraint = constraint_of(Grammars(model.tokenizer), model.tokenizer, sampling or Sampling(), turn)
    assert constraint is not None
    rng = random.Random(0)
    phrases = [pair.close for pair in turn.format.thinking]
    phrases += [form.value_end for form in turn.format.calls if isinstance(form, TaggedCalls)]
    phrases += [form.quote for form in turn.format.calls if isinstance(form, QuotedCalls)]
    phrases += [form.mark for form in turn.format.calls if isinstance(form, ElementCalls)]
    drawn = [random_answer(constraint, model.tokenizer, rng, phrases=phrases, most=1000) for _ in range(count)]
    return [text for text in drawn if text is not None]


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("row", CALLING, ids=lambda row: row.name)
def test_what_a_grammar_allows_are_calls(row: AnswerFormat, control: bool) -> None:
    turn = turn_of(row)
    given = answers(turn, 30, control=control)
    assert len(given) >= 20
    seen = set()
    for text in given:
        _, said, calls = read(turn, text)
        assert not said.strip(), text
        assert calls, text
        for name, arguments in calls:
            tool = next(tool for tool in TOOLS if tool.name == name)
            Draft202012Validator({"type": "object", **tool.parameters}).validate(json.loads(arguments))
            seen.add(name)
    assert seen == {tool.name for tool in TOOLS}


RICH = Tool(
    "rich",
    {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a b", "c", 3, None, True]},
            "fixed": {"const": "so"},
            "maybe": {"type": ["string", "null"]},
            "either": {"oneOf": [{"type": "integer", "minimum": 10}, {"type": "boolean"}]},
            "pairs": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
            "words": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 2},
            "inner": {
                "type": "object",
                "properties": {"z": {"type": "string"}, "deep": {"$ref": "#/$defs/deep"}},
                "required": ["z"],
                "additionalProperties": False,
            },
            "free": {"type": "object"},
            "any": {},
            "nothing": {"type": "object", "additionalProperties": False},
        },
        "required": ["kind", "pairs", "inner"],
        "$defs": {
            "deep": {"type": "array", "items": {"$ref": "#/$defs/leaf"}, "maxItems": 2},
            "leaf": {"type": "number"},
        },
    },
)


@pytest.mark.parametrize("name", ["gemma4", "minimax-m3", "hermes", "qwen3-coder", "llama3"])
def test_arguments_of_all_kinds(name: str) -> None:
    turn = turn_of(FORMATS[name], (RICH,), parallel=False)
    given = answers(turn, 40, control=True)
    assert len(given) > 10
    seen = set[str]()
    for text in given:
        _, said, ((_, arguments),) = read(turn, text)
        assert not said.strip()
        value = json.loads(arguments)
        Draft202012Validator(RICH.parameters).validate(value)
        seen |= value.keys()
    assert seen == RICH.parameters["properties"].keys()


@pytest.mark.parametrize("name", ["gemma4", "minimax-m3"])
@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "string", "pattern": "a"}, "pattern"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "patternProperties": {}}, "patternProperties"),
        ({"allOf": [{"type": "string"}]}, "allOf"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"oneOf": [{"type": "array"}, {}]}, "oneOf"),
        ({"$ref": "#/$defs/nowhere"}, "refers to nothing"),
    ],
)
def test_what_nested_arguments_can_not_say(name: str, schema: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=rf"tools: odd: .*{word}"):
        answers(turn_of(FORMATS[name], (Tool("odd", {"properties": {"x": schema}}),)), 1, control=True)


@pytest.mark.parametrize(("name", "end"), [("gigachat3", "<|message_sep|>"), ("apertus", "<|tools_suffix|>")])
def test_a_mark_may_be_what_ends_answers(name: str, end: str) -> None:
    """Then a call ends with the answer."""
    turn = turn_of(FORMATS[name], parallel=False)
    marks = [mark for mark in turn.format.markers if mark.startswith("<") and mark != end]
    model = scripted_model("", special=marks, end=end)
    constraint = constraint_of(Grammars(model.tokenizer), model.tokenizer, Sampling(), turn)
    assert constraint is not None
    closing = [pair.close for pair in turn.format.thinking]
    drawn = [random_answer(constraint, model.tokenizer, random.Random(i), phrases=closing, most=1000) for i in range(8)]
    given = [text for text in drawn if text is not None]
    assert given
    assert all(read(turn, text)[2] for text in given)


@pytest.mark.parametrize("row", CALLING, ids=lambda row: row.name)
def test_one_call_of_the_named_tool(row: AnswerFormat) -> None:
    turn = turn_of(row, (NESTED,), Choice("required", "book.table"), parallel=False)
    given = answers(turn, 12, control=True)
    assert given
    for text in given:
        _, said, calls = read(turn, text)
        assert not said.strip()
        assert [name for name, _ in calls] == ["book.table"]


@pytest.mark.parametrize("row", [row for row in CALLING if row.thinking], ids=lambda row: row.name)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("control", [False, True])
def test_models_think_before_they_call(row: AnswerFormat, begun: bool, control: bool) -> None:
    turn = turn_of(row, (WEATHER,), thinking=begun)
    given = answers(turn, 16, control=control)
    assert given
    thoughts = 0
    for text in given:
        thought, said, calls = read(turn, text)
        assert not said.strip(), text
        assert calls, text
        thoughts += bool(thought.strip())
    assert thoughts


def test_without_a_call_it_is_the_options_that_count() -> None:
    sampling = Sampling(regex="(yes|no)!")
    turn = turn_of(FORMATS["hermes"], (), AUTO)
    said = {read(turn, text)[1] for text in answers(turn, 80, control=False, sampling=sampling)}
    assert said == {"yes!", "no!"}


@pytest.mark.parametrize("row", CALLING, ids=lambda row: row.name)
def test_an_answer_that_may_call_is_what_the_options_say_or_calls(row: AnswerFormat) -> None:
    """All that may be said, and all calls that may be made; nothing else."""
    closed = {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": False}
    sampling = Sampling(schema={**closed, "required": ["a"]})
    tools = (WEATHER, NOTHING)
    said = answers(turn_of(row, (), AUTO), 8, control=True, sampling=sampling)
    calls = answers(turn_of(row, tools), 8, control=True)
    model = model_of(row, control=True)
    constraint = constraint_of(Grammars(model.tokenizer), model.tokenizer, sampling, turn_of(row, tools, AUTO))
    assert constraint is not None
    assert said
    assert calls
    for text in said:
        assert isinstance(json.loads(read(turn_of(row), text)[1])["a"], bool)
        assert accepts(constraint, model.tokenizer, text)
        assert not accepts(constraint, model.tokenizer, text.replace('"a"', '"b"'))
    assert all(accepts(constraint, model.tokenizer, text) for text in calls)
    assert not accepts(constraint, model.tokenizer, "Hello")


def accepts(constraint: Constraint, tokenizer: Tokenizer, text: str) -> bool:
    """Whether a grammar allows a text, and may end there."""
    matcher = constraint.matcher()
    for token in tokenizer.encode(text, special=True, add_special=False, continued=True):
        mask = matcher.mask()
        if mask is None or mask[token] != 0:
            return False
        matcher.accept(token)
    mask = matcher.mask()
    return mask is None or bool(mask[256] == 0)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (turn_of(FORMATS["text"]), "answers in the format 'text' have no tool calls"),
        (
            turn_of(FORMATS["hermes"], (WEATHER, Tool("b", {"properties": {"x": {"uniqueItems": True}}}))),
            'tools: b: schema at #/properties/x: "uniqueItems" is not supported',
        ),
        (
            turn_of(FORMATS["qwen3-coder"], (Tool("b", {"properties": {"x": {"type": "string", "pattern": "a"}}}),)),
            "tools: b: pattern of x is not supported where models write text without quotes",
        ),
        (turn_of(FORMATS["lfm2"], (Tool("a-b", {}),)), "tools: a-b is no name in Python"),
    ],
)
def test_what_can_not_be_demanded(turn: Turn, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answers(turn, 1, control=False)


def test_any_arguments() -> None:
    turn = turn_of(FORMATS["hermes"], (Tool("free", {}),))
    given = answers(turn, 10, control=False)
    assert given
    for text in given:
        for _, arguments in read(turn, text)[2]:
            value: Any = json.loads(arguments)
            assert isinstance(value, dict)


def test_a_model_that_knows_no_tools_calls_one() -> None:
    """SmolLM2 must call, and does, whatever it would rather say."""
    described = [{"type": "function", "function": {"name": t.name, "parameters": t.parameters}} for t in TOOLS]
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    with LLM("smollm2", ctx=512) as llm:
        answers = llm.chat(asked, n=6, seed=1, max_tokens=200, tools=described, tool_choice="required")
    done = [answer for answer in answers if answer.finish_reason != "length"]
    assert len(done) >= 5
    for answer in done:
        assert answer.finish_reason == "tool_calls"
        assert not answer.text.strip()
        assert answer.tool_calls
        for call in answer.tool_calls:
            tool = next(tool for tool in TOOLS if tool.name == call.name)
            Draft202012Validator({"type": "object", **tool.parameters}).validate(json.loads(call.arguments))
