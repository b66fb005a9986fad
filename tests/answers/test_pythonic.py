"""Calls that are written as Python, against what Python makes of them."""

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.answers.pythonic import PythonCall, python_calls
from sotol.answers.source import Malformed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab'\"\\\n", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["a", "b_1", "größe"]), VALUES))
def test_values_are_pythons(arguments: dict[str, Any]) -> None:
    text = f"f({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
    assert python_calls(text) == [PythonCall("f", [], ast.literal_eval(repr(arguments)))]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("f()", [PythonCall("f", [], {})]),
        (" [ f ( 1 , [2,] , a = 'x' , ) , g() ] ", [PythonCall("f", [1, [2]], {"a": "x"}), PythonCall("g", [], {})]),
        ("f()\ng()", [PythonCall("f", [], {}), PythonCall("g", [], {})]),
        ("f(); g();", [PythonCall("f", [], {}), PythonCall("g", [], {})]),
        ("print(f(a=1))", [PythonCall("f", [], {"a": 1})]),
        ("print(1)", [PythonCall("print", [1], {})]),
        ("a.b.call(c=true)", [PythonCall("a.b", [], {"c": True})]),
        ('f(a="""x\n"y"\n""")', [PythonCall("f", [], {"a": 'x\n"y"\n'})]),
        (r"f(a='\d \x41 \u00e9 \\n \' \ud83c\udf89 \ud83c')", [PythonCall("f", [], {"a": "\\d A é \\n ' 🎉 \ufffd"})]),
        ("f(a=-1.5e3, b=.5, c=1_000)", [PythonCall("f", [], {"a": -1500.0, "b": 0.5, "c": 1000})]),
    ],
)
def test_calls(text: str, calls: list[PythonCall]) -> None:
    assert python_calls(text) == calls


@pytest.mark.parametrize(
    "text",
    [
        "", "f", "f(", "f(a", "f(a=)", "f(a=b)", "f(a=1 b=2)", "f(a=1, 2)", "f(a=1, a=2)", "[f()", "[f() g()]", "f()]",
        "f() + 1", "f(a={1: 2})", "f(a={'b'})", "f(a='x)", "f(a=1e999)", "f(a=" + "[" * 65 + "]" * 65 + ")", "f(1=2)",
        "f(a=" + "1" * 301 + ")", "print(f(1)", "f(**{})", "import os", "f(a=1)\nimport os", "@", "[]",
    ],
)  # fmt: skip
def test_what_are_no_calls(text: str) -> None:
    with pytest.raises(Malformed):
        python_calls(text)
