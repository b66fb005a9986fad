"""Loading a model for a command, with a bar in the terminal while that takes long."""

from typing import TYPE_CHECKING, Unpack

from sotol.cli.bars import bars

if TYPE_CHECKING:
    from sotol.llm import LLM
    from sotol.load_options import LoadSettings
    from sotol.loading import Loaded

__all__ = ["load", "loaded_model"]


def load(model: str | None, *, quiet: bool = False, color: bool = True, **options: "Unpack[LoadSettings]") -> "LLM":
    """The model of a path or a name, None for the default. Options and errors as of `LLM`."""
    loaded = loaded_model(model, quiet=quiet, color=color, **options)
    try:
        from sotol.llm import LLM  # noqa: PLC0415  (imported while the backend's threads load weights)

        return LLM(loaded)
    except BaseException:
        loaded.close()
        raise


def loaded_model(
    model: str | None, *, quiet: bool = False, color: bool = True, **options: "Unpack[LoadSettings]"
) -> "Loaded":
    """The same without an engine: for steps of one's own."""
    from sotol.loading import LoadOptions, load  # noqa: PLC0415  (NumPy and more: `sotol --help` does without)

    with bars(quiet=quiet, color=color) as progress:
        return load(model, LoadOptions.of(options), progress)
