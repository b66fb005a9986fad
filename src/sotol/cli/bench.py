"""`sotol bench`: tokens per second of prompts and answers."""

import sys
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from sotol import __version__
from sotol.catalog import find_model
from sotol.cli.loading import loaded_model
from sotol.cli.options import Json, Model, NoColor, Precision, PrecisionOption, PromptTokens, Quiet, Repeats, Threads
from sotol.cli.output import as_json, console, show, write_piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sotol.loading import Loaded
    from sotol.program.step import Step

__all__ = ["bench", "measure"]


def bench(
    model: Model = None,
    prompt: PromptTokens = 512,
    generate: Annotated[int, typer.Option("--generate", "-n", min=1, metavar="N", help="Tokens of the answer.")] = 64,
    repeats: Repeats = 5,
    threads: Threads = None,
    precision: PrecisionOption = Precision.INT8,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Measure the speed of the engine.

    Token ids are the same on every machine; nothing is sampled or turned into text.
    """
    from statistics import median  # noqa: PLC0415  (other commands start without)

    find_model(model)
    with loaded_model(
        model, threads=threads, ctx=prompt + generate, precision=precision, quiet=quiet, color=not no_color
    ) as loaded:
        times = measure(loaded, prompt, generate, repeats)
        record = {
            "sotol": __version__,
            "model": str(loaded.path),
            "threads": loaded.runner.threads,
            "precision": precision.value,
            "repeats": repeats,
            "tests": [
                {
                    "test": test,
                    "tokens": tokens,
                    "best": tokens / min(seconds),
                    "median": tokens / median(seconds),
                    "seconds": seconds,
                }
                for test, tokens, seconds in times
            ],
        }
    if json:
        write_piece(as_json(record) + "\n", sys.stdout)
    else:
        _show(record, times, color=not no_color)


def measure(model: "Loaded", prompt: int, generate: int, repeats: int) -> list[tuple[str, int, list[float]]]:
    """The tests, each with its tokens and the seconds of every repeat."""
    from sotol.cli.workload import decode_steps, prompt_steps, pseudo_random_ids  # noqa: PLC0415  (NumPy)

    runner = model.runner
    asked = prompt_steps(pseudo_random_ids(prompt, model.vocabulary), runner)
    answer = pseudo_random_ids(generate, model.vocabulary, seed=7)
    tests: list[tuple[str, int, Sequence[Step], list[float]]] = [
        (f"prompt of {prompt}", prompt, asked, []),
        (f"answer of {generate}, after {prompt}", generate, decode_steps(answer, prompt, runner), []),
        (f"answer of {generate}, after nothing", generate, decode_steps(answer, 0, runner), []),
    ]
    for step in (asked[0], *decode_steps(answer[:1], 0, runner)):  # the first run touches memory for the first time
        runner.run(step)
    for _ in range(repeats):
        for _test, _tokens, steps, seconds in tests:
            begin = perf_counter()
            for step in steps:
                runner.run(step)
            seconds.append(perf_counter() - begin)
    return [(test, tokens, seconds) for test, tokens, _, seconds in tests]


def _show(record: dict[str, object], times: list[tuple[str, int, list[float]]], *, color: bool) -> None:
    from statistics import median  # noqa: PLC0415  (other commands start without)

    from rich.table import Table  # noqa: PLC0415  (see output.py)

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("tokens/s", style="cyan")
    table.add_column("best", justify="right")
    table.add_column("median", justify="right")
    for test, tokens, seconds in times:
        table.add_row(test, f"{tokens / min(seconds):.1f}", f"{tokens / median(seconds):.1f}")
    out = console(color=color)
    show(out, f"{record['model']}, {record['threads']} threads, {record['precision']}, {record['repeats']} repeats\n")
    show(out, table)
