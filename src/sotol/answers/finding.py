"""Which format a model answers in: found by the markers in its chat template, or named."""

from collections.abc import Callable
from typing import NamedTuple

from sotol.answers.formats import FORMATS, THINKING
from sotol.answers.forms import TEXT, AnswerFormat, Thinking
from sotol.errors import plain

__all__ = ["find_format", "named_format"]


class Sign(NamedTuple):
    """A format, and texts that its templates have, all of them, and have not. tokens: what a vocabulary has for a model
    that writes so whatever its prompt is.
    """

    format: str
    present: tuple[str, ...]
    absent: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()


# Tried in this order: rarer markers come first.
SIGNS = (
    Sign("harmony", ("<|channel|>analysis<|message|>",), tokens=("<|channel|>", "<|call|>", "<|return|>")),
    Sign("gemma4", ("<|tool_call>call:",), tokens=("<|tool_call>", "<|channel>")),
    Sign("apertus", ("<|tools_prefix|>",), tokens=("<|tools_prefix|>", "<|inner_prefix|>")),
    Sign("gigachat3.1", ("<|role_sep|>", "<|function_call|>")),
    Sign("gigachat3", ("<|role_sep|>", "function call")),
    Sign("kimi-k3", ("<|open|>", "<|sep|>", "'argument'"), tokens=("<|open|>", "<|close|>", "<|end_of_msg|>")),
    Sign("minimax-m3", ("]<]minimax[>[",)),
    Sign("deepseek-v3.2", ("｜DSML｜", "function_calls>")),
    Sign("deepseek-v4", ("｜DSML｜", "tool_calls>")),
    Sign("functionary-v3.2", (">>>all",)),
    Sign("muse", ("<atem:invoke",)),
    Sign("minicpm5", ('<function name="', '<param name="')),
    Sign("hy3", ("<tool_calls{}>", "<arg_key{}>")),
    Sign("solar-open", ("<|tool_call:args|>",), tokens=("<|tool_call:args|>", "<|calls|>")),
    Sign("llama4", ("<|header_start|>",)),
    Sign("kimi-k2", ("<|tool_calls_section_begin|>",)),
    Sign("deepseek", ("<｜tool▁sep｜>", "```json")),
    Sign("deepseek-v3.1", ("<｜tool▁sep｜>",)),
    Sign("glm", ("<arg_key>", "<tool_call>")),
    Sign("seed-oss", ("<seed:tool_call>",)),
    Sign("minimax-m2", ("<minimax:tool_call>",)),
    Sign("qwen3-coder", ("<tool_call>", "<function=", "<parameter=")),
    Sign("mistral-v11", ("[TOOL_CALLS]", "[ARGS]")),
    Sign("mistral", ("[TOOL_CALLS]",)),
    Sign("command-r7b", ("<|START_ACTION|>",)),
    Sign("command-r", ("Action:", "tool_name", "<|CHATBOT_TOKEN|>")),
    Sign("lfm2", ("<|tool_call_start|>",)),
    Sign("lfm2", ("<|tool_list_start|>",)),
    Sign("lfm2", ("<|im_start|>", "List of tools: [")),
    Sign("phi4-mini", ("<|/tool|>",)),
    Sign("granite3", ("<|tool_call|>", "<|start_of_role|>")),
    Sign("nemotron", ("<TOOLCALL>",)),
    Sign("apriel", ("<tool_calls>[",)),
    Sign("minimax-m1", ("<tool_calls>", "<beginning_of_sentence>")),
    Sign("hermes", ("<tool_call>", "</tool_call>"), absent=("]<]minimax[>[",)),
    Sign("firefunction", ("functools[",)),
    Sign("functionary-v3.1", ("<function=", "</function>")),
    Sign("llama3", ("<|start_header_id|>", '"parameters": ')),
    Sign("llama3", ("<|python_tag|>",)),
    Sign("gemma", ("<start_of_turn>",)),
)


def find_format(template: str, has_token: Callable[[str], bool] = lambda _: False) -> AnswerFormat:
    """The format of a chat template's source; text if it is none that is known. Reasoning is marked as the template
    knows it; without a template (""), as the vocabulary does: has_token(text) says whether it has a token.
    """
    if not template and (sign := next((s for s in SIGNS if s.tokens and all(map(has_token, s.tokens))), None)):
        return FORMATS[sign.format]
    found = next((sign for sign in SIGNS if _fits(sign, template)), None)
    format_ = TEXT if found is None else FORMATS[found.format]
    return format_._replace(thinking=_thinking(template.__contains__ if template else has_token))


def _fits(sign: Sign, template: str) -> bool:
    return all(text in template for text in sign.present) and not any(text in template for text in sign.absent)


def named_format(name: str, template: str) -> AnswerFormat:
    """A format by its name, with the reasoning that the template knows besides its own; "text" leaves all as text.

    ValueError for one that there is not.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown answer format {plain(repr(name), 60)}; these are: {', '.join(FORMATS)}")
    row = FORMATS[name]
    known = () if row is TEXT else _thinking(template.__contains__)
    return row._replace(thinking=tuple(dict.fromkeys((*row.thinking, *known))))


def _thinking(has: Callable[[str], bool]) -> tuple[Thinking, ...]:
    """All marks of reasoning of which one is there: templates may write only those that end it."""
    return tuple(pair for pair in THINKING if any(map(has, [pair.sign] if pair.sign else pair[:2])))
