"""`sotol perplexity`: how well a model predicts a text, and how far it is from another one."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotol.cli.options import Json, Model, NoColor, Precision, PrecisionOption, Quiet, Threads
from sotol.cli.output import as_json, write_piece
from sotol.cli.reading import read_text
from sotol.cli.streams import say
from sotol.cli.tool_options import Force, ModelOption, TextFile, WindowCount, one_model, work

if TYPE_CHECKING:
    from sotol.tools.choices import Choices
    from sotol.tools.perplexity import Scores

__all__ = ["perplexity"]


def perplexity(
    model: Model = None,
    named: ModelOption = None,
    file: TextFile = None,
    size: Annotated[
        int | None,
        typer.Option("--ctx", "-c", min=8, metavar="N", help="Tokens of a window of the text; 512 if not given."),
    ] = None,
    most: WindowCount = None,
    save_logits: Annotated[
        Path | None,
        typer.Option(
            "--save-logits",
            metavar="FILE",
            readable=False,
            help="Write the predictions, for --baseline of another model.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            readable=False,
            help="Predictions to compare with, on the text that they are of.",
        ),
    ] = None,
    choices: Annotated[
        Path | None,
        typer.Option(
            "--choices",
            metavar="FILE",
            readable=False,
            help="Questions with several endings, such as HellaSwag's, in JSON.",
        ),
    ] = None,
    threads: Threads = None,
    precision: PrecisionOption = Precision.INT8,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Measure how well a model predicts a text.

    The second half of each window is scored. With a baseline also how far the predictions are from its own:
    Kullback-Leibler divergence. Files of predictions are those of llama.cpp's perplexity. With questions instead of a
    text, how often the right ending is the likeliest.
    """
    if sum(given is not None for given in (file, baseline, choices)) != 1:
        raise ValueError("give a text with -f FILE, or --baseline FILE, or --choices FILE, one of them")
    if choices is not None and save_logits is not None:
        raise ValueError("--save-logits goes with a text, not with --choices")
    if baseline is not None and size is not None:
        raise ValueError("--ctx goes with a text or --choices: windows are those of the --baseline")
    size = 512 if size is None else size
    path = one_model(model, named)
    if choices is not None:
        with work(quiet=quiet, color=not no_color) as progress:
            found = _asked(
                path, choices, None if quiet or json else say, most, size=size, precision=precision.value,
                threads=threads, progress=progress,
            )  # fmt: skip
        write_piece((as_json(found._asdict()) if json else _shares(found)) + "\n", sys.stdout)
        return
    text = None if file is None else read_text(str(file))
    from sotol.tools.outputs import check_outputs  # noqa: PLC0415
    from sotol.tools.perplexity import perplexity as measured  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    if save_logits is not None:
        check_outputs([save_logits], force=force, inputs=[path, file, baseline])

    def told(window: int, scores: "Scores") -> None:
        if not quiet and not json:
            say(f"[{window + 1}] {_short(scores)}")

    with work(quiet=quiet, color=not no_color) as progress:
        scores = measured(
            path, text, size=size, most=most, save=save_logits, baseline=baseline, precision=precision.value,
            threads=threads, progress=progress, told=told,
        )  # fmt: skip
    write_piece((as_json(_facts(scores)) if json else _said(scores)) + "\n", sys.stdout)


def _asked(path: Path, file: Path, say: Callable[[str], None] | None, most: int | None, **options: Any) -> "Choices":
    """The questions of a file, asked; say: of the shares so far."""
    from sotol.tools.choices import choices, read_questions  # noqa: PLC0415  (NumPy: `sotol --help` does without)

    questions = read_questions(read_text(str(file)), str(file))[:most]

    def told(so_far: "Choices") -> None:
        if say is not None:
            say(f"[{so_far.questions}] {_shares(so_far)}")

    return choices(path, questions, told=told, **options)


def _shares(found: "Choices") -> str:
    return (
        f"right {100 * found.accuracy:.2f} ± {100 * found.error:.2f} %, by length {100 * found.by_length:.2f}"
        f" ± {100 * found.by_length_error:.2f} %, of {found.questions} questions"
    )


def _short(scores: "Scores") -> str:
    line = f"perplexity {scores.perplexity:.4f}"
    return line if scores.divergence is None else f"{line}, divergence {scores.divergence.mean:.6f}"


def _said(scores: "Scores") -> str:
    lines = [
        f"perplexity {scores.perplexity:.4f} ± {scores.error:.4f}, {scores.tokens:,} tokens in"
        f" {scores.windows} windows of {scores.size}"
    ]
    if (d := scores.divergence) is not None:
        percentiles = ", ".join(f"{at} % {value:.6f}" for at, value in d.percentiles.items())
        lines += [
            f"baseline   {d.baseline:.4f}, ratio to it {d.ratio:.5f} ± {d.ratio_error:.5f}",
            f"divergence {d.mean:.6f} ± {d.error:.6f}, median {d.median:.6f}, {percentiles}, most {d.most:.6f}",
            f"same top   {100 * d.same_top:.2f} %",
        ]
    return "\n".join(lines)


def _facts(scores: "Scores") -> dict[str, object]:
    facts = scores._asdict()
    if scores.divergence is not None:
        facts["divergence"] = scores.divergence._asdict()
    return facts
