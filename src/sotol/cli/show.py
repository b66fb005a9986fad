"""`sotol show`: what `sotol info` tells, under the name that ollama has for it."""

from sotol.cli.info import info
from sotol.cli.options import Context, Json, Model, NoColor

__all__ = ["show"]


def show(model: Model = None, ctx: Context = None, json: Json = False, no_color: NoColor = False) -> None:
    """Describe a model by name, or a file: as `sotol info`."""
    info(model, ctx, json, no_color)
