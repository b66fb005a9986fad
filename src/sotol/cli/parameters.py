"""Options given by name, with a value as text: `-o temperature 0`, `/set parameter seed 7`, `--logit-bias 42=-1.5`.

Each function raises ValueError for what it can't understand.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sotol.cli.constraints import parse_schema
from sotol.errors import plain

__all__ = ["LOADING", "known", "merged", "parse_bias", "parse_memory", "parse_parameter", "parse_size",
           "parse_template", "parse_time"]  # fmt: skip

# What ollama and llama.cpp call the same parameters.
OTHER_NAMES = {
    "temp": "temperature",
    "num_predict": "max_tokens",
    "n_predict": "max_tokens",
    "num_ctx": "ctx",
    "ctx_size": "ctx",
    "num_thread": "threads",
    "parallel": "sequences",
    "num_batch": "step_tokens",
    "ubatch_size": "step_tokens",
}
# What a model is loaded with, as fields of `LoadOptions`; all others are `Sampling`'s.
LOADING = ("ctx", "threads", "sequences", "step_tokens", "kv_memory", "prefix_cache", "backend")
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
RESERVED = frozenset({"self", "messages"})  # what `LLM.chat_prompt` itself takes


def known() -> list[str]:
    """The names of all parameters."""
    from sotol.engine.options import Options  # noqa: PLC0415  (only where somebody names one)

    return [*Options.__annotations__, *LOADING]


def parse_parameter(name: str, text: str) -> tuple[str, Any]:
    """A parameter's own name and its value; 0 threads are None, as many as there are cores."""
    from sotol.engine.options import RANGES  # noqa: PLC0415  (only where somebody names one)

    own = OTHER_NAMES.get(name.casefold().replace("-", "_"), name.casefold().replace("-", "_"))
    names = known()
    if own not in names:
        from difflib import get_close_matches  # noqa: PLC0415  (only where something is wrong)

        near = get_close_matches(own, [*names, *OTHER_NAMES])
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"no parameter {plain(repr(name))}: {hint}the parameters are {', '.join(names)}")
    if own == "stop":
        return own, [text]
    if own == "logit_bias":
        return own, parse_bias([text])
    if own in ("schema", "regex", "grammar"):
        return own, _constraint(own, text)
    if own in ("ignore_eos", "json", "prefix_cache"):
        return own, _yes_or_no(own, text)
    if own == "kv_memory":
        return own, parse_memory(text)
    if own == "backend":
        return own, text
    kind = int if own in LOADING else RANGES[own][0]
    try:
        value: Any = kind(text)
    except ValueError:
        sort = "whole number" if kind is int else "number"
        raise ValueError(f"{own} is {plain(repr(text))}; it must be a {sort}") from None
    if own == "threads":
        return own, value or None
    return own, value


def parse_memory(text: str) -> int | float:
    """`2GB`, `512MiB` or `1000000` as bytes, `25%` as a share of the free memory."""
    share = re.fullmatch(r"(\d{1,18}(?:\.\d+)?) ?%", text.strip(), re.ASCII)
    if share:
        return float(share[1]) / 100
    return parse_size("kv_memory", text, " as 2GB, or a share as 25%")


def parse_size(name: str, text: str, example: str = " as 2GB") -> int:
    """`2GB`, `512MiB` or `1000000` as bytes."""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?) ?([a-z]*)", text.strip().casefold(), re.ASCII)
    unit = found[2].removesuffix("b") if found else None
    if found is None or unit not in UNITS:
        raise ValueError(f"{name} is {plain(repr(text))}; it must be a size{example}")
    return int(float(found[1]) * UNITS[unit])


def parse_time(name: str, text: str) -> float:
    """`5m`, `1h30m` or `300` as seconds; what is negative, for ever, as -1."""
    from sotol.server.times import seconds_of  # noqa: PLC0415  (only `sotol serve` asks)

    seconds = seconds_of(text)
    if seconds is None:
        raise ValueError(f"{name} is {plain(repr(text))}; it must be seconds or a time as 5m, or -1 for ever")
    return -1.0 if seconds == float("inf") else seconds


def merged(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Parameters by name: the last of several values counts, and of those that are lists, all."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name == "stop":
            values[name] = [*values.get(name, []), *value]
        elif name == "logit_bias":
            values[name] = {**values.get(name, {}), **value}
        else:
            values[name] = value
    return values


def parse_bias(given: Sequence[str]) -> dict[int, float]:
    """`ID=X` options as `Sampling.logit_bias`."""
    biases = {}
    for item in given:
        token, _, number = item.partition("=")
        try:
            biases[int(token)] = float(number)
        except ValueError:
            raise ValueError(f"--logit-bias is {plain(repr(item))}; it must be ID=X, for instance 42=-1.5") from None
    return biases


def parse_template(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` options as variables of a chat template: a value is JSON where it can be, and text otherwise."""
    variables = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name.isidentifier() or name in RESERVED:
            raise ValueError(
                f"--template-option is {plain(repr(item))}; it must be NAME=VALUE, for instance enable_thinking=false"
            )
        try:
            variables[name] = json.loads(text)
        except (ValueError, RecursionError):
            variables[name] = text
    return variables


def _constraint(name: str, text: str) -> Any:
    """What the answer must be; none: it is free again."""
    if text in ("", "none"):
        return None
    return parse_schema(text) if name == "schema" else text


def _yes_or_no(name: str, text: str) -> bool:
    known = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}
    if text.casefold() not in known:
        raise ValueError(f"{name} is {plain(repr(text))}; it must be true or false")
    return known[text.casefold()]
