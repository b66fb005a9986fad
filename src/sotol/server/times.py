"""Lengths of time as people and Ollama's clients write them: "5m", "1h30m", "-1", 300."""

import math
import re

__all__ = ["seconds_of"]

# As Go writes them (https://pkg.go.dev/time#ParseDuration); a number alone is seconds.
TIME = re.compile(r"[+-]?(?:\d{1,15}(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+|[+-]?\d{1,15}(?:\.\d*)?", re.ASCII)
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def seconds_of(given: str | float) -> float | None:
    """The seconds of a length of time, math.inf for a negative one, which means for ever; None for what is none."""
    if isinstance(given, str):
        if not TIME.fullmatch(given.strip()):
            return None
        parts = re.findall(r"(\d+(?:\.\d*)?)([^\d.]*)", given.strip())
        total = sum(float(number) * UNITS[unit] for number, unit in parts)
        given = -total if given.strip().startswith("-") and total else total
    if math.isnan(given):
        return None
    return math.inf if given < 0 else float(given)
