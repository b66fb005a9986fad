"""What a prompt may be: text, token ids in any list, or messages; and what makes ids valid for a model."""

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

__all__ = ["Ids", "Message", "Prompt", "checked_ids", "is_list", "is_prompt"]

Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
Prompt: TypeAlias = str | Ids
Message: TypeAlias = Mapping[str, Any]


def is_prompt(prompt: Any) -> TypeGuard[Prompt]:
    """One prompt, and not a list of them (as [] is); ValueError for what is neither."""
    if isinstance(prompt, str):
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
