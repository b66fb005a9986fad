"""`sotol run`: a prompt's answer, streamed; or a conversation, where there is no prompt."""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotol.catalog import DEFAULT_MODEL, PACKAGED, find_model
from sotol.cli.loading import load, prepare
from sotol.cli.options import (
    Context,
    Json,
    Model,
    NoColor,
    Precision,
    PrecisionOption,
    Quiet,
    Threads,
    parse_bias,
    standard_input,
)
from sotol.cli.output import as_json, console, write_piece
from sotol.cli.report import speeds, summary
from sotol.errors import SotolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sotol.engine.options import Sampling
    from sotol.llm import LLM
    from sotol.stream import Stream

__all__ = ["run"]

Number = float | None
Whole = int | None


# Typer wants a parameter for each option.
def run(
    model: Model = DEFAULT_MODEL,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="What to ask. Without it, or for '-', standard input is read to its end; in a terminal, a conversation"
            " begins instead.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="The system message, before the prompt.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")
    ] = False,
    max_tokens: Annotated[
        Whole,
        typer.Option(
            "--max-tokens",
            "-n",
            metavar="N",
            help="Tokens to generate at most; to the end of the context if not given.",
        ),
    ] = None,
    temperature: Annotated[
        Number,
        typer.Option(
            "--temperature",
            "-t",
            metavar="X",
            help="0 takes the likeliest token, 1 draws as the model says. [default: 0.8]",
        ),
    ] = None,
    top_k: Annotated[
        Whole, typer.Option("--top-k", metavar="N", help="Keep the k likeliest tokens; 0 keeps all. [default: 40]")
    ] = None,
    top_p: Annotated[
        Number,
        typer.Option(
            "--top-p", metavar="X", help="Keep the fewest tokens whose probabilities reach p. [default: 0.95]"
        ),
    ] = None,
    min_p: Annotated[
        Number,
        typer.Option(
            "--min-p", metavar="X", help="Keep tokens at least this times as likely as the best. [default: 0.05]"
        ),
    ] = None,
    repeat_penalty: Annotated[
        Number,
        typer.Option(
            "--repeat-penalty", metavar="X", help="Against the last tokens, by division; 1 is off. [default: 1.0]"
        ),
    ] = None,
    repeat_last_n: Annotated[
        Whole,
        typer.Option("--repeat-last-n", metavar="N", help="How many tokens that looks at; -1 is all. [default: 64]"),
    ] = None,
    frequency_penalty: Annotated[
        Number,
        typer.Option("--frequency-penalty", metavar="X", help="Against generated tokens, each time. [default: 0.0]"),
    ] = None,
    presence_penalty: Annotated[
        Number, typer.Option("--presence-penalty", metavar="X", help="Against generated tokens, once. [default: 0.0]")
    ] = None,
    seed: Annotated[
        Whole, typer.Option("--seed", metavar="N", help="The same seed gives the same text; random if not given.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="End before this text. May be given several times."),
    ] = None,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(
            "--logit-bias",
            metavar="ID=X",
            help="Add X to a token's logit, -inf forbids it. May be given several times.",
        ),
    ] = None,
    logprobs: Annotated[
        Whole,
        typer.Option(
            "--logprobs", metavar="N", help="With --json: log-probabilities, and those of so many alternatives."
        ),
    ] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on where the model would end.")] = False,
    threads: Threads = None,
    ctx: Context = None,
    precision: PrecisionOption = Precision.INT8,
    json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say how long it took, on standard error.")] = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Answer a prompt, or hold a conversation.

    `sotol run` talks to the default model, `sotol run smollm2 "Why?"` answers, `sotol run smollm2 < file` reads a file.
    """
    talking = prompt is None and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if raw and system is not None:
        raise ValueError("--raw takes no --system: without the chat template there is no place for it")
    if talking and (raw or json):
        raise ValueError("--raw and --json need a prompt: give it after the model, or on standard input")
    if logprobs is not None and not json:
        raise ValueError("--logprobs shows in JSON only: add --json")
    given: dict[str, Any] = {
        "max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repeat_penalty": repeat_penalty, "repeat_last_n": repeat_last_n, "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty, "seed": seed, "stop": stop or None, "logprobs": logprobs,
        "logit_bias": parse_bias(logit_bias or []), "ignore_eos": ignore_eos,
    }  # fmt: skip
    _find(model)
    if not talking and prompt in (None, "-"):
        prompt = standard_input().removesuffix("\n")  # the one of `echo` is not part of the question
    if prompt is not None and not prompt.strip():
        raise ValueError("the prompt is empty: give it after the model, or on standard input")
    prepare()
    from sotol.engine.options import Sampling  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    sampling = Sampling.of(**{name: value for name, value in given.items() if value is not None})
    opened = partial(load, threads=threads, ctx=ctx, precision=precision, quiet=quiet, color=not no_color)
    if prompt is None:
        _talk(model, opened, system, sampling, verbose=verbose, quiet=quiet, color=not no_color)
        return
    with opened(model) as llm, _begin(llm, prompt, system, raw=raw, sampling=sampling) as stream:
        if json:
            completion = stream.result()
            record = {"model": str(llm.path), **asdict(completion), "tokens_per_second": speeds(completion)}
            write_piece(as_json(record) + "\n", sys.stdout)
        else:
            try:
                for piece in stream:
                    write_piece(piece, sys.stdout)
            finally:
                write_piece("\n", sys.stdout)
        if verbose and stream.completion is not None:
            typer.echo(summary(stream.completion), err=True)


def _find(model: str) -> None:
    """Look for the model before anything slow; the error says where the prompt goes if it was given alone."""
    try:
        find_model(model)
    except SotolError as error:
        if model in PACKAGED or Path(model).exists():
            raise
        raise SotolError(f"{error}; a prompt comes after the model") from None


def _begin(llm: "LLM", prompt: str, system: str | None, *, raw: bool, sampling: "Sampling") -> "Stream":
    if raw:
        return llm.stream(prompt, sampling=sampling)
    messages = [{"role": "user", "content": prompt}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return llm.stream_chat(messages, sampling=sampling)


def _talk(
    model: str,
    opened: "Callable[[str], LLM]",
    system: str | None,
    sampling: "Sampling",
    *,
    verbose: bool,
    quiet: bool,
    color: bool,
) -> None:
    """A conversation, to the end of input."""
    from sotol.cli.repl import Repl, prompt_session  # noqa: PLC0415  (prompt_toolkit takes a fifth of a second)

    repl = Repl(opened(model), console(color=color), sampling, opened, system, verbose)
    try:
        if not quiet:
            repl.note(f"{model}: /help lists commands, Ctrl-D quits")
        repl.talk(prompt_session(color=color))
    finally:
        repl.llm.close()
