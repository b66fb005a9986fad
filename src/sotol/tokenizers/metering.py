"""Limits on what a chat template spends: a meter of time, ticks and text, and estimates of operations in advance."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import SecurityError

__all__ = ["Meter", "RenderLimits", "estimate_call", "estimate_percent"]

MAX_TICKS = 1_000_000  # in one rendering
ELEMENT = 16  # an element of a list counts as this many characters of output, and as this many bytes of memory
OBJECT = 128  # bytes of a new object in a list
ASCII, WIDE = 2, 5  # bytes of a character at most, plus the byte that says whether it is trusted
INTERMEDIATE = 128  # bytes that all intermediate values may take, for each character of the output's limit
AMPLIFIED = 8  # the estimated cost of one operation may be this many times the output's limit
LARGEST_NUMBER = 65_536  # bits of an integer
LONGEST_PATH = 32  # names in an attribute such as "function.name", which is looked up for each element of a list
LONGEST_WRAPPED = 100_000  # characters of a text for `wordwrap`, which can take quadratic time
MOST_DIGITS = 400  # digits that a number is rounded to; the largest float has 309


# Filters that take the name of an attribute, and its index among their arguments.
NAMING = {"groupby": 0, "join": 1, "map": 9, "max": 1, "min": 1, "rejectattr": 0, "selectattr": 0, "sort": 2, "sum": 0,
          "unique": 1}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """The limits of one rendering: seconds of its thread's CPU time, and characters of output.

    By the clock, a crowded machine or one that slept would make a plain template fail.
    """

    seconds: float = 2.0
    characters: int = 4_000_000


class Meter:
    """What one rendering has spent so far. Its methods raise SecurityError once a limit is exceeded."""

    def __init__(self, limits: RenderLimits) -> None:
        self._limits = limits
        self.characters = limits.characters
        self._clock, self._deadline = time.monotonic() + limits.seconds, time.thread_time() + limits.seconds
        self._ticks = 0
        self._made = 0

    @property
    def exhausted(self) -> bool:
        """Whether a limit is exceeded, so that nothing more can be rendered."""
        too_large = self._made > INTERMEDIATE * self.characters
        return self._ticks > MAX_TICKS or too_large or self._late()

    def watched(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, with a tick for each."""
        for item in items:
            self.tick()
            yield item

    def tick(self) -> None:
        """Count one tick, and check the clock: that is cheap, compared with anything that Jinja does."""
        self._ticks += 1
        if self._ticks > MAX_TICKS:
            raise SecurityError(f"it takes more than {MAX_TICKS:,} steps")
        if self._late():
            raise SecurityError(f"it takes more than {self._limits.seconds:g} seconds")

    def _late(self) -> bool:
        """Whether the time is over. The clock is asked first, since that is ten times as quick."""
        return time.monotonic() > self._clock and time.thread_time() > self._deadline

    def tick_for(self, value: Any) -> Any:
        """Count one tick, and return the value."""
        self.tick()
        return value

    def size(self, value: object) -> int:
        """The length of a value as text, approximately: shared parts count as often as they appear."""
        if isinstance(value, str):
            total = len(value)
        else:
            total, waiting = ELEMENT, [value]
            while waiting and total <= self.characters:
                item = waiting.pop()
                if isinstance(item, str):
                    total += len(item)
                elif isinstance(item, int):
                    self.check_bits(item.bit_length())
                elif isinstance(item, Mapping):
                    total += 2 * ELEMENT * len(item)
                    waiting += [*item, *item.values()]
                elif isinstance(item, (list, tuple)):
                    total += ELEMENT * len(item)
                    waiting += item
        if total > self.characters:
            raise SecurityError(f"it makes a value of more than {self.characters:,} characters")
        return total

    def count(self, value: Any) -> Any:
        """Count the memory of a new value, and return it."""
        self.size(value)
        return self.count_part(value)

    def count_part(self, value: Any) -> Any:
        """The same for a value that can't be longer, as text, than one that was measured already."""
        if isinstance(value, str):
            self._made += len(value) * (ASCII if value.isascii() else WIDE)
        elif isinstance(value, (list, tuple, Mapping)):
            self._made += ELEMENT * len(value)  # its elements exist already
        if self._made > INTERMEDIATE * self.characters:
            raise SecurityError("it makes too many large values")
        return value

    def count_list(self, value: list[Any]) -> list[Any]:
        """The same for a new list of new values."""
        self._made += OBJECT * len(value)
        self.count(value)
        return value

    def grow(self) -> None:
        """Count what a list takes more for one more element, which exists already."""
        self._made += ELEMENT
        if self._made > INTERMEDIATE * self.characters:
            raise SecurityError("it makes too many large values")

    def estimate(self, cost: int) -> None:
        """Refuse an operation that could produce, or search, too many characters. cost: how many at most."""
        if cost > AMPLIFIED * self.characters:
            raise SecurityError("one of its operations would make or search too much text")

    def check_bits(self, bits: int) -> None:
        """Refuse an integer with too many bits."""
        if bits > LARGEST_NUMBER:
            raise SecurityError(f"it makes a number of more than {LARGEST_NUMBER:,} bits")


def estimate_call(
    meter: Meter, name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Refuse a method or filter that would produce, or search, far too much. Returns `args`, with iterators as lists.

    name: of a filter or method; "str.format" and "str.join" are methods whose filters of that name mean something else.
    """
    given = [*args, *kwargs.values()]
    numbers = [abs(x) for x in given if isinstance(x, int)]
    _refuse_unbounded(meter, name, value, args, kwargs)
    if name in ("center", "ljust", "rjust", "zfill", "batch", "slice", "truncate"):
        meter.estimate(ELEMENT * max(numbers, default=0))
    elif name in ("indent", "wordwrap"):
        meter.estimate((meter.size(value) + 1) * max([1, *_sizes(meter, given), *numbers]))
    elif name in ("rfind", "rindex", "rsplit", "rpartition"):  # quadratic in CPython
        meter.estimate(meter.size(value) * max(_sizes(meter, given), default=1) // 4)
    elif name == "replace":
        if len(args) < 2:
            raise SecurityError("it replaces text without naming both texts in order")
        meter.estimate(meter.size(value) + str(value).count(str(args[0])) * meter.size(args[1]))
    elif name == "str.format":
        _estimate_braces(meter, value, given)
    elif name == "format":
        estimate_percent(meter, str(value), given)
    elif name == "str.join" and args:
        items = list(meter.watched(args[0]))
        meter.estimate(meter.size(items) + len(value) * len(items))
        return (items, *args[1:])
    elif name == "sum" and any(not isinstance(x, (int, float, str)) for x in given):
        raise SecurityError("it sums what are not numbers")
    return args


def _refuse_unbounded(meter: Meter, name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse filters whose work is not bounded by the size of their arguments."""
    if name in NAMING:
        path = kwargs.get("attribute", args[NAMING[name]] if len(args) > NAMING[name] else "")
        if isinstance(path, str) and path.count(".") + path.count(",") >= LONGEST_PATH:
            raise SecurityError(f"it looks for an attribute of more than {LONGEST_PATH} names")
    elif name == "indent" and isinstance(value, str):
        meter.size(str.splitlines(value))
    elif name == "wordwrap" and isinstance(value, str) and len(value) > LONGEST_WRAPPED:
        raise SecurityError(f"it wraps a text of more than {LONGEST_WRAPPED:,} characters")
    elif name == "round" and any(isinstance(x, int) and abs(x) > MOST_DIGITS for x in (*args, *kwargs.values())):
        raise SecurityError(f"it rounds a number to more than {MOST_DIGITS} digits")


def _sizes(meter: Meter, values: Iterable[Any]) -> list[int]:
    """The lengths of all values that are not numbers."""
    return [meter.size(x) for x in values if not isinstance(x, (int, float))]


def estimate_percent(meter: Meter, template: str, given: Any) -> None:
    """Estimate `%`: widths, precisions, and each field as long as all arguments. Computed widths are refused."""
    if re.search(r"%[^a-zA-Z%]*\*", template):
        raise SecurityError("it formats with a width that is computed")
    specs = re.findall(r"%(?:\([^)%]*\))?[-+ #0]*(\d*)\.?(\d*)", template)
    _estimate_fields(meter, template, [digits for spec in specs for digits in spec], len(specs), given)


def _estimate_braces(meter: Meter, template: str, given: Any) -> None:
    """The same for `str.format`."""
    if re.search(r"\{[^}]*\{", template.replace("{{", "")):
        raise SecurityError("it formats with a width that is computed")
    specs = re.findall(r"\{[^{}]*\}", template)
    _estimate_fields(meter, template, re.findall(r"\d+", "".join(specs)), len(specs), given)


def _estimate_fields(meter: Meter, template: str, numbers: list[str], fields: int, given: Any) -> None:
    widths = sum(int(digits or 0) if len(digits) < 9 else 10**9 for digits in numbers)
    meter.estimate(len(template) + widths + fields * sum(meter.size(x) for x in given))
