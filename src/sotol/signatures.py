"""Signatures that say what they take: `help` and notebooks show `**options: Unpack[Options]` without its names."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, get_args

__all__ = ["spelled_out"]

F = TypeVar("F", bound=Callable[..., Any])


def spelled_out(function: F) -> F:
    """The function, which ends in `**options: Unpack[…]`; its signature has a keyword for each, by default None."""
    signature = inspect.signature(function)
    *before, last = signature.parameters.values()
    (options,) = get_args(last.annotation)
    function.__signature__ = signature.replace(parameters=[*before, *_keywords(options)])  # type: ignore[attr-defined]
    return function


@cache
def _keywords(options: type) -> tuple[inspect.Parameter, ...]:
    return tuple(
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in options.__annotations__.items()
    )
