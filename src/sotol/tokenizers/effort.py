"""How much a model is to think: the levels that callers know, by the names and the levels that its template has.

Levels are those of OpenAI's `reasoning_effort` and Anthropic's `effort`. Templates differ: gpt-oss's writes any word
into the prompt, of which its model knows three; Kimi K3's refuses all but three; DeepSeek V4's has one or two above
what it does by itself; most have none, but a switch.
"""

import re
from collections.abc import Mapping, Set
from typing import Any

__all__ = ["LEVELS", "level_among", "with_effort"]

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
NAMES = ("reasoning_effort", "thinking_effort")  # of the variable: gpt-oss and most others, Kimi K3
OFF = ("none", "no_think")  # the level of not thinking: Command A, Hunyuan 3
# What stands for a level that a template does not name: the first that it does, or else the last.
NEAREST: Mapping[str, tuple[str, ...]] = {
    "none": (*OFF, "minimal", "low"),
    "minimal": ("minimal", "low"),
    "low": ("low", "minimal", "low"),
    "medium": ("medium",),
    "high": ("high",),
    "xhigh": ("xhigh", "max", "high"),
    "max": ("max", "xhigh", "high"),
}


def level_among(level: str, named: Set[str]) -> str:
    """The level of a template that comes nearest to one of `LEVELS`. named: those that it names."""
    if level == "medium" and level not in named and {"low", "high"} <= named:
        return "high"  # it has a scale, without a middle
    choices = NEAREST[level]
    return next((choice for choice in choices if choice in named), choices[-1])


def with_effort(given: Mapping[str, Any], variables: Set[str], source: str, *, switch: bool) -> dict[str, Any]:
    """What a caller gives a template besides, with the level in `reasoning_effort` by what the template has for it.

    variables: the template's. source: its text, whose quoted words are the levels that it names. switch: whether it has
    another variable to turn thinking on and off. A level means that the model is to think, "none" that it is not to, as
    "minimal" does where there is nothing between; `enable_thinking` says otherwise, if it is given. Words that are no
    level are left as they are.
    """
    told = dict(given)
    level = told.get(NAMES[0])
    if level not in LEVELS:
        return told
    del told[NAMES[0]]
    name = next((name for name in NAMES if name in variables), None)
    silent = level == "none" or (level == "minimal" and name is None)
    told.setdefault("enable_thinking", not silent)
    if name is None or (silent and switch):
        return told
    named = {word for word in (*LEVELS, *OFF) if re.search(rf"""(["']){word}\1""", source)}
    if told["enable_thinking"] is False and not named.isdisjoint(OFF):
        level = "none"
    return {**told, name: level_among(level, named)}
