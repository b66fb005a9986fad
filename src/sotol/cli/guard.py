"""What goes wrong in a command, as one sentence on standard error and an exit code for scripts."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from sotol.cli.interrupts import INTERRUPTED, TERMINATED, Terminated
from sotol.cli.other_names import OTHER_COMMANDS, OTHER_NAMES
from sotol.cli.streams import LONGEST, drop, listen, refused, say
from sotol.errors import SotolError, plain

__all__ = ["COMPLETE_VARIABLE", "FAILED", "INTERRUPTED", "NO_READER", "USAGE", "Commands", "guarded", "sentence"]

FAILED, USAGE, NO_READER = 1, 2, 141
COMPLETE_VARIABLE = "_SOTOL_COMPLETE"
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class Commands(TyperGroup):
    """`sotol` and its commands: Typer's group, but an error of use is one line like any other."""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_unused: Any, **extra: Any
    ) -> NoReturn:
        """Run the command of these arguments (None: those of the process; none at all: the help), then exit."""
        extra.pop("standalone_mode", None)
        name, words = prog_name or "sotol", list(sys.argv[1:] if args is None else args)
        try:
            if sys.stdout is None:
                raise SotolError("standard output is closed: there is no place for an answer")
            code = self._completed(name) if COMPLETE_VARIABLE in os.environ else self._run(name, words, extra)
        except (typer.TyperException, SotolError, KeyboardInterrupt) as error:
            code = told(error)
        except OSError as error:  # commands tell their own: this is the help
            code = told(refused(error))
        sys.exit(ended(code))

    def _run(self, name: str, words: list[str], extra: dict[str, Any]) -> int:
        try:
            with self.make_context(name, words or ["--help"], **extra) as ctx:
                self.invoke(ctx)
        except typer.Exit as end:
            return end.exit_code
        return 0

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As Typer's, but errors know what other programs call the same, too."""
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            if (near := OTHER_COMMANDS.get(args[0])) is not None:
                error.message = f"No such command {args[0]!r}. Did you mean {near!r}?"
            raise

    def _completed(self, name: str) -> int:
        """Tell a shell what may come next; its script (`sotol completion`) says in the environment what is typed."""
        from typer.completion import get_completion_inspect_parameters, shell_complete  # noqa: PLC0415

        get_completion_inspect_parameters()  # makes Typer's shells known
        return shell_complete(self, {}, name, COMPLETE_VARIABLE, os.environ[COMPLETE_VARIABLE])


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its errors caught, and with an option `--debug` that lets them through."""

    @functools.wraps(command)
    def wrapper(*, debug: bool = False, **options: object) -> None:
        listen(quiet=bool(options.get("quiet")))
        try:
            command(**options)
        except (Exception, KeyboardInterrupt) as error:
            if debug and not isinstance(error, KeyboardInterrupt | BrokenPipeError):
                raise
            raise typer.Exit(told(error)) from None

    # Typer reads the options off the signature
    extra = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    signature = inspect.signature(command)
    parameters = [*signature.parameters.values(), extra]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {**command.__annotations__, "debug": Debug}
    return wrapper


def told(error: BaseException) -> int:
    """The exit code of an error, after the sentence about it, if there is one to write."""
    if isinstance(error, KeyboardInterrupt):
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    if isinstance(error, BrokenPipeError):
        drop(sys.stdout)
        return NO_READER
    say(f"sotol: {sentence(error)}")
    return USAGE if isinstance(error, ValueError | typer.TyperException) else FAILED


def ended(code: int) -> int:
    """The exit code after all that was written is out: that a file or a reader did not take it is an error, too."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        code = code or told(refused(error))
        drop(sys.stdout)
    return code


def sentence(error: BaseException) -> str:
    """An error as one line for a user, with nothing in it that a terminal obeys. Bugs are named as such."""
    if isinstance(error, typer.TyperException):
        return _of_use(error)
    text = plain(error, LONGEST)
    if isinstance(error, SotolError | ValueError):
        return text
    if isinstance(error, OSError):
        if error.strerror is None:
            return text
        where = "" if error.filename is None else f"{plain(error.filename)}: "
        return where + plain(error.strerror).lower()
    if isinstance(error, MemoryError):
        return "there is not enough memory for this"
    return f"a bug in sotol, {type(error).__name__}: {text} (add --debug to see where, and please report it)"


def _of_use(error: typer.TyperException) -> str:
    """What is wrong with the options of a command line."""
    near = _near(error)
    said = plain(error.message if near else error.format_message(), LONGEST).rstrip(".")
    said = (said[:1].lower() + said[1:]).replace(". Did you mean", "; did you mean")
    said += f"; did you mean {' or '.join(near)}?" if near else ""
    context = getattr(error, "ctx", None)
    return said + (f" ({context.command_path} --help tells more)" if context is not None else "")


def _near(error: typer.TyperException) -> Sequence[str]:
    """Options that may have been meant, by their other names, too."""
    near: Sequence[str] = getattr(error, "possibilities", None) or []
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if option is None or context is None:
        return near
    from difflib import get_close_matches  # noqa: PLC0415  (only where something is wrong)

    known = {name for parameter in context.command.params for name in parameter.opts}
    others = [f"--{name}" for name, own in OTHER_NAMES.items() if f"--{own}" in known]
    return get_close_matches(option, [*known, *others]) or near
