"""Which format a template belongs to. Real templates are judged in tests/parity/test_answers.py."""

import pytest

from sotol.answers.finding import SIGNS, find_format, named_format
from sotol.answers.formats import FORMATS, THINKING


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ messages[0].content }}", "text"),
        ("", "text"),
        ("<tool_call>\n{{ call | tojson }}\n</tool_call>", "hermes"),
        ("<tool_call>\n<function=a>\n<parameter=b>\n</tool_call>", "qwen3-coder"),
        ("<tool_call>{{ name }}\n<arg_key>{{ key }}</arg_key></tool_call>", "glm"),
        ("[TOOL_CALLS]{{ calls | tojson }}", "mistral"),
        ("[TOOL_CALLS]{{ name }}[ARGS]{{ arguments }}", "mistral-v11"),
        ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ name }}\n```json\n", "deepseek"),
        ("<｜tool▁call▁begin｜>{{ name }}<｜tool▁sep｜>", "deepseek-v3.1"),
        ('<|start_header_id|>…{"name": function name, "parameters": dictionary}', "llama3"),
        ("<start_of_turn>user", "gemma"),
        ("<|start_of_role|>… respond only with <|tool_call|> followed by a JSON list", "granite3"),
        ("<|start_of_role|><tool_call></tool_call>", "hermes"),
        ("<|system|>…<|tool|>{{ tools }}<|/tool|>", "phi4-mini"),
    ],
)
def test_templates(template: str, name: str) -> None:
    assert find_format(template).name == name


def test_reasoning_is_marked_as_the_template_marks_it() -> None:
    assert find_format("<tool_call></tool_call>").thinking == ()
    assert [pair.open for pair in find_format("{{ content.split('</think>')[-1] }}").thinking] == ["<think>"]
    assert [pair.open for pair in find_format("[TOOL_CALLS][ARGS][THINK]").thinking] == ["[THINK]"]
    by_vocabulary = find_format("", {"<think>", "</think>"}.__contains__)
    assert (by_vocabulary.name, [pair.open for pair in by_vocabulary.thinking]) == ("text", ["<think>"])
    assert find_format("a template", {"<think>", "</think>"}.__contains__).thinking == ()


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (("<|channel|>", "<|call|>", "<|return|>", "<|start|>"), "harmony"),
        (("<|tool_call>", "<|channel>", "<channel|>"), "gemma4"),
        (("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"), "kimi-k3"),
        (("<|tool_call:args|>", "<|calls|>"), "solar-open"),
        (("<|start|>", "<|channel|>"), "text"),
    ],
)
def test_without_a_template_the_vocabulary_tells(tokens: tuple[str, ...], name: str) -> None:
    """Of models that write so whatever they are told."""
    row = find_format("", set(tokens).__contains__)
    assert row.name == name
    assert row.thinking == FORMATS[name].thinking
    assert find_format("a template", set(tokens).__contains__).name == "text"


def test_names() -> None:
    assert named_format("hermes", "") == FORMATS["hermes"]
    assert [pair.open for pair in named_format("llama3", "<think>").thinking] == ["<think>"]
    assert named_format("text", "<think>") == FORMATS["text"]
    with pytest.raises(ValueError, match="unknown answer format 'Hermes'; these are: text, hermes"):
        named_format("Hermes", "")


def test_all_signs_are_of_formats() -> None:
    assert {sign.format for sign in SIGNS} | {"text", "json"} == set(FORMATS)
    for row in FORMATS.values():
        assert set(row.thinking) <= set(THINKING)
