"""Replacements for some filters and globals of Jinja: they preserve the provenance of text and bound the work.

Results are those of Jinja's own. What needs the meter of a rendering is in `sandbox.py`.
"""

import re
from datetime import datetime
from typing import Any

import jinja2.filters
from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace
from markupsafe import Markup

from sotol.tokenizers.provenance import Marked, marked, mask_of, trusted

__all__ = ["Safe", "Variables", "indent", "new_dict", "replace", "strftime_now"]


class Variables(Namespace):
    """`namespace()`, without names that begin with an underscore, and with a constant, short text form."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N805, RUF100  # `self` may be an attribute's name, as in jinja2
        self, *rest = args
        given = dict(*rest, **kwargs)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"it stores an attribute {name!r} that begins with an underscore")


def replace(s: Any, old: Any, new: Any, count: int | None = None) -> str:
    """Jinja's `replace`."""
    text, new = str(s), str(new)
    return (marked(text) if type(new) is Marked else text).replace(str(old), new, -1 if count is None else count)


def indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """Jinja's `indent`; the white space that it inserts is the template's, so trusted."""
    if type(s) is not Marked:
        return jinja2.filters.do_indent(s, width, first, blank)
    newline, indention = trusted("\n"), width if isinstance(width, str) else trusted(" " * width)
    start, *lines = (s + newline).splitlines()
    text = newline.join([start, *(indention + line if line or blank else line for line in lines)])
    return indention + text if first else text


class Safe(Markup):
    """Jinja's `safe`: text added with `+` is escaped. Where escaping changes text, the result is untrusted."""

    __slots__ = ("_mask",)
    _mask: bytes

    def __new__(cls, value: Any, mask: bytes | None = None) -> "Safe":
        made = super().__new__(cls, value)
        made._mask = mask or (mask_of(value) if isinstance(value, str) else bytes(len(made)))
        return made

    def __str__(self) -> str:
        return self

    def __add__(self, other: Any) -> Any:
        return self._joined(super().__add__(other), self, other)

    def __radd__(self, other: Any) -> Any:
        return self._joined(super().__radd__(other), other, self)

    def _joined(self, text: Any, left: Any, right: Any) -> Any:
        if text is NotImplemented or len(text) != len(left) + len(right):  # longer: something was escaped
            return text
        return Safe(text, mask_of(left) + mask_of(right))


def new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """`dict()` as a function, so that a template can't reach the class and its attributes."""
    return dict(*args, **kwargs)


def strftime_now(form: str) -> str:
    """The local time, formatted by `strftime`."""
    if len(form) > 200 or re.search(r"%[^a-zA-Z%]*\d", form):
        raise SecurityError("it asks for the time in too long a form")
    return datetime.now().strftime(form)
