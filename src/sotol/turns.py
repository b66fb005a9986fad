"""From a conversation to a turn: the template's text as ids, and how the answer to it is to be read."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from sotol.answers.forms import AnswerFormat
from sotol.answers.tools import ToolChoice, chosen, declared
from sotol.prompts import Message, Turn
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.chat import ChatTemplate
from sotol.tokenizers.messages import normalized_tools
from sotol.tokenizers.provenance import mask_of

__all__ = ["Tools", "Turning", "encoded", "make_turn"]

Tools: TypeAlias = Sequence[Mapping[str, Any]]


class Turning(TypedDict, total=False):
    """What `LLM.turn` takes besides messages; None stands for a default."""

    tools: Tools | None
    tool_choice: ToolChoice | None
    parallel_tool_calls: bool | None
    template: Mapping[str, Any] | None
    format: str | None


def make_turn(
    chat: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    tools: Tools | None = None,
    tool_choice: ToolChoice | None = None,
    parallel_tool_calls: bool | None = None,
    template: Mapping[str, Any] | None = None,
    format: str | None = None,  # noqa: A002  (as a keyword, it says what it is)
) -> Turn:
    """See `LLM.turn`."""
    from sotol.answers.finding import find_format, named_format  # noqa: PLC0415  (starts without chats do without)
    from sotol.answers.formats import FORMATS  # noqa: PLC0415  (as above)

    if format is None:
        form = find_format(chat.written, lambda text: tokenizer.id_of(text) is not None)
    else:
        form = named_format(format, chat.written)
    known = declared(normalized_tools(tools))
    choice = chosen("auto" if tool_choice is None else tool_choice, known)
    parallel = parallel_tool_calls is not False
    if choice.mode == "required" and not form.calls:  # a model that knows no tools can be held to one call in JSON
        form, parallel = FORMATS["json"]._replace(thinking=form.thinking), False
    told = None if choice.mode == "none" else tools
    text = chat.render(messages, **{**(template or {}), "tools": told})
    before, after = form.said
    if before and _ends_with(text, before):
        form = form._replace(said=("", after))
    return Turn(encoded(tokenizer, text), form, _thinks(form, text), known, choice, parallel)


def _thinks(form: AnswerFormat, prompt: str) -> bool:
    """Whether the template ends with the opening of a thinking block."""
    return any(_ends_with(prompt, pair.open) for pair in form.thinking)


def _ends_with(prompt: str, mark: str) -> bool:
    """Whether the template, and not what somebody said, ends with that mark."""
    text, mask = prompt.rstrip(), mask_of(prompt)
    return text.endswith(mark) and all(mask[len(text) - len(mark) : len(text)])


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of what a template gave. What looks like a control token in a message is text."""
    ids = tokenizer.encode(text, special=True, add_special=False)
    if tokenizer.adds_bos and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:  # or the template wrote it
        ids.insert(0, tokenizer.bos)
    return ids
