"""The errors that users of sotol can see. Each message is one sentence that says what is wrong and what to do."""

import copy
import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = [
    "FormatError",
    "ModelError",
    "ModelNotFoundError",
    "NotPulledError",
    "QueueFullError",
    "SotolError",
    "TemplateError",
    "explained",
    "meant",
    "own_copy",
    "plain",
]

# Characters that a terminal obeys, or that disguise a text: control characters (C0, DEL, C1), line and paragraph
# separators, marks and overrides of the writing direction (Unicode Standard Annex 9), tags, halves of surrogate pairs.
# A string, so that the pattern is compiled with the first error and not at each start.
UNSHOWN = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]+"


class SotolError(Exception):
    """Base of all errors about files, models and machines (bad arguments raise ValueError)."""


class FormatError(SotolError):
    """A file that is not valid in its format. Names the file, the field and the offset."""


class ModelError(SotolError):
    """A valid file with a model that can't be run: unknown architecture, missing weight, wrong shape or encoding."""


class ModelNotFoundError(SotolError, FileNotFoundError):
    """There is no model of this name, or no file at this path."""


class NotPulledError(ModelNotFoundError):
    """A model of the Hub that is not on this machine yet. name: by which it can be pulled."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class QueueFullError(SotolError):
    """Too many requests wait already: try again later."""


class TemplateError(SotolError):
    """A chat template that fails, or a conversation that the model's template refuses."""


@contextmanager
def explained(doing: str, advice: str = "") -> Iterator[None]:
    """Turns an OSError or MemoryError of its block into a SotolError that says what was being done.

    doing: such as "reading m.gguf". advice: what the user can do if memory is short.
    """
    try:
        yield
    except SotolError:
        raise
    except OSError as error:
        hint = advice if error.errno == errno.ENOMEM else ""
        raise SotolError(f"{doing}: {error.strerror or error}{hint and ': ' + hint}") from error
    except MemoryError as error:
        raise SotolError(f"{doing}: out of memory{advice and ': ' + advice}") from error


def own_copy(error: Exception) -> Exception:
    """A copy of an exception, with the original as its cause.

    For an error that is raised to several callers: a single object would collect the tracebacks of all of them.
    """
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001  (an exception's own constructor may want anything)
        twin = SotolError(f"{type(error).__name__}: {error}")
    twin.__cause__ = error
    return twin


def meant(name: str, known: Sequence[str]) -> str:
    """For an error about an unknown option: the one that was meant, or all that there are."""
    from difflib import get_close_matches  # noqa: PLC0415  (only where something is wrong)

    close = get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(known)}"


def plain(text: object, limit: int = 200) -> str:
    """Text from outside (a file, a message, another library) in a form that is safe to quote: short, and one line.

    Runs of white space, control characters and direction marks become one space; a text longer than `limit` characters
    ends in "…". Only the first 4 * `limit` characters are examined.
    """
    whole = str(text)
    seen = whole[: 4 * limit]
    shown = " ".join(re.sub(UNSHOWN, " ", seen).split())
    return shown if len(shown) <= limit and len(seen) == len(whole) else shown[: limit - 1] + "…"
