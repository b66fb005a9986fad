"""The errors that a user of sotol can meet; each message is one sentence that says what is wrong and what to do."""

import copy
import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "FormatError",
    "ModelError",
    "ModelNotFoundError",
    "SotolError",
    "TemplateError",
    "again",
    "explained",
    "plain",
]

# What a terminal obeys, or what shows other text than there is: control characters (C0, DEL, C1), line and paragraph
# separators, marks and overrides of the writing direction (Unicode Standard Annex 9), tags, halves of surrogate pairs.
# A pattern that is compiled with the first error, not at each start.
UNSHOWN = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]+"


class SotolError(Exception):
    """Base of every error that sotol raises about files, models and machines (bad arguments raise ValueError)."""


class FormatError(SotolError):
    """A file that is not what it claims to be: names the file, the field and the offset."""


class ModelError(SotolError):
    """A well-formed model that can't be run: an unknown architecture, a missing weight, a wrong shape or encoding."""


class ModelNotFoundError(SotolError, FileNotFoundError):
    """A name that is no model's, or a path where there is no file."""


class TemplateError(SotolError):
    """A chat template that fails, or a conversation that the model's template refuses."""


@contextmanager
def explained(doing: str, advice: str = "") -> Iterator[None]:
    """Where the system refuses memory, a file or a thread meanwhile: a SotolError that says what was being done.

    doing: as "reading m.gguf"; advice: what the user can do, added where it is memory that was refused.
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


def again(error: Exception) -> Exception:
    """A new exception that says the same, caused by the first.

    For an error that several callers hear of: raised in each of them, one object would gather all their tracebacks.
    """
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001  (an exception's own constructor may want anything)
        twin = SotolError(f"{type(error).__name__}: {error}")
    twin.__cause__ = error
    return twin


def plain(text: object, limit: int = 200) -> str:
    """What comes from outside (a file, a message, another library), as a sentence may quote it: one line, short.

    Runs of white space, control characters and direction marks become one space; what is longer than `limit`
    characters ends in "…". Looks only at the first 4 * `limit` characters.
    """
    whole = str(text)
    seen = whole[: 4 * limit]
    shown = " ".join(re.sub(UNSHOWN, " ", seen).split())
    return shown if len(shown) <= limit and len(seen) == len(whole) else shown[: limit - 1] + "…"
