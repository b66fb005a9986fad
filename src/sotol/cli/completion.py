"""`sotol completion`: what a shell needs to complete sotol's commands, options, models and paths."""

import sys
from typing import Annotated, Literal

import typer

from sotol.cli.guard import COMPLETE_VARIABLE
from sotol.cli.output import write_piece

__all__ = ["completion"]


def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish", "powershell"],
        typer.Argument(metavar="bash|zsh|fish|powershell", help="The shell.", show_default=False),
    ],
) -> None:
    """Write the script that teaches a shell to complete.

    bash: eval "$(sotol completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc, after compinit; fish: sotol
    completion fish > ~/.config/fish/completions/sotol.fish.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # noqa: PLC0415

    script = get_completion_script(prog_name="sotol", complete_var=COMPLETE_VARIABLE, shell=shell)
    write_piece(script + "\n", sys.stdout)
