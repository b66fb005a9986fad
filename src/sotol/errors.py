"""The errors that a user of sotol can meet; each message is one sentence that says what is wrong and what to do."""

import copy
import errno
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["FormatError", "ModelError", "ModelNotFoundError", "SotolError", "TemplateError", "again", "explained"]


class SotolError(Exception):
    """Base of every error that sotol raises about files, models and machines (bad arguments raise ValueError)."""


class FormatError(SotolError):
    """A file that is not what it claims to be: names the file, the field and the offset."""


class ModelNotFoundError(SotolError, FileNotFoundError):
    """No model of this name, and no file at this path."""


class ModelError(SotolError):
    """A well-formed model that can't be run: an unknown architecture, a missing weight, a wrong shape or encoding."""


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
