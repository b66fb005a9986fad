"""What a command's errors become: one sentence on standard error, and an exit code for scripts."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from sotol.errors import SotolError

__all__ = ["FAILED", "INTERRUPTED", "NO_READER", "USAGE", "guarded", "sentence"]

FAILED, USAGE, INTERRUPTED, NO_READER = 1, 2, 130, 141
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its errors caught, and with an option `--debug` that lets them through."""

    @functools.wraps(command)
    def wrapper(*, debug: bool = False, **options: object) -> None:
        try:
            command(**options)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Python flushes once more when it ends: into nothing, then
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(NO_READER) from None
        except Exception as error:
            if debug:
                raise
            typer.echo(f"sotol: {sentence(error)}", err=True)
            raise typer.Exit(USAGE if isinstance(error, ValueError) else FAILED) from None

    # Typer reads the options off the signature
    extra = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    signature = inspect.signature(command)
    parameters = [*signature.parameters.values(), extra]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {**command.__annotations__, "debug": Debug}
    return wrapper


def sentence(error: Exception) -> str:
    """An error as one line for a user. Those that nobody foresaw are named as such."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror.lower()}"
    if isinstance(error, SotolError | ValueError | OSError):
        return " ".join(str(error).split())
    text = " ".join(str(error).split())
    return f"a bug in sotol, {type(error).__name__}: {text} (add --debug to see where, and please report it)"
