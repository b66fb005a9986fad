"""What a prompt may be: text, ids in any list, or a turn of a conversation; and what makes ids valid for a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from sotol.answers.forms import TEXT, AnswerFormat
from sotol.answers.tools import AUTO, Choice, Tool

__all__ = ["Ids", "Message", "Prompt", "Turn", "checked_ids", "is_list", "is_prompt"]


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A conversation up to where the model answers, and how its answer is read: what `LLM.turn` makes.

    ids: the prompt. format: how the model writes calls and reasoning. thinking: the template has opened a thinking
    block. tools: those that the conversation declares. tool_choice: whether the model calls them. parallel: whether it
    may call several at once.
    """

    ids: list[int]
    format: AnswerFormat = TEXT
    thinking: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: Choice = AUTO
    parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The tools that the model may call: none, the named one, or all."""
        mode, name = self.tool_choice
        return () if mode == "none" else tuple(tool for tool in self.tools if name in (None, tool.name))


Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
Prompt: TypeAlias = str | Ids | Turn
Message: TypeAlias = Mapping[str, Any]


def is_prompt(prompt: Any) -> TypeGuard[Prompt]:
    """One prompt, and not a list of them (as [] is); ValueError for what is neither."""
    if isinstance(prompt, str | Turn):
        return True
    if not is_list(prompt):
        raise ValueError(f"a prompt is text or a list of token ids; it may be a list of those: not {prompt!r:.100}")
    return len(prompt) > 0 and isinstance(prompt[0], int | np.integer)


def is_list(value: Any) -> bool:
    """A list in a wide sense. Bytes are numbers, but no ids."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview)


def checked_ids(prompt: Any, longest: int, *, context: int, vocabulary: int) -> list[int]:
    """A prompt's ids, valid and at most `longest`; ValueError says what is wrong."""
    try:
        ids = [index(i) for i in prompt] if is_list(prompt) else None
    except TypeError:
        ids = None
    if ids is None:
        raise ValueError(f"a prompt is text or a list of token ids, whole numbers: not {prompt!r:.100}")
    if not ids:
        raise ValueError("the prompt is empty: give at least one token")
    if len(ids) > longest:
        room = "" if longest == context else f" before an answer, {context} with it"
        raise ValueError(
            f"the prompt has {len(ids)} tokens, but the context holds {longest}{room}:"
            " shorten it, or load the model with a larger ctx"
        )
    bad = next((i for i in ids if not 0 <= i < vocabulary), None)
    if bad is not None:
        said = bad if abs(bad) < 2**64 else "beyond 64 bits"
        raise ValueError(f"token id {said} is not in the vocabulary of {vocabulary}")
    return ids
