"""Sotol: an LLM inference engine in Python all the way down."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sotol.engine.sampling import Sampling
    from sotol.errors import FormatError, ModelError, SotolError, TemplateError
    from sotol.llm import LLM
    from sotol.results import Completion

__version__ = "0.1.0"
__all__ = ["LLM", "Completion", "FormatError", "ModelError", "Sampling", "SotolError", "TemplateError", "__version__"]

_HOMES = {"LLM": "llm", "Sampling": "engine.sampling", "Completion": "results"}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: `import sotol` itself takes a millisecond."""
    if name not in __all__:
        raise AttributeError(f"module 'sotol' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"sotol.{_HOMES.get(name, 'errors')}"), name)
