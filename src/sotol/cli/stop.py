"""`sotol stop`: a model of a server out of memory. It asks as `ollama stop` does: for nothing, with keep_alive 0."""

import sys
from typing import Annotated

import typer

from sotol.cli.options import ServerAddress, ServerKey
from sotol.cli.output import write_piece
from sotol.errors import plain

__all__ = ["stop"]


def stop(
    model: Annotated[str, typer.Argument(help="As `sotol ps` shows it.", show_default=False)],
    server: ServerAddress = None,
    api_key: ServerKey = None,
) -> None:
    """Unload a model of a server.

    Answers that are under way come to their end first. The next request for the model loads it again.
    """
    from sotol.cli.server_client import ServerClient  # noqa: PLC0415  (`sotol --help` does without)

    ServerClient(server, api_key).ask("/api/generate", {"model": model, "keep_alive": 0, "stream": False})
    write_piece(f"{plain(model)} is unloaded as soon as nobody uses it\n", sys.stdout)
