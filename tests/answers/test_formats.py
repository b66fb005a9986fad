"""The table of formats is one that the parser can read."""

import re

import pytest

from sotol.answers.formats import FORMATS
from sotol.answers.forms import JsonCalls, NamedCalls, PythonCalls


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_rows(name: str) -> None:
    row = FORMATS[name]
    assert row.name == name
    openers = {opener.strip() for form in row.calls for opener in form.openers} - {""}
    assert all(len(opener) > 2 for opener in openers), "shorter ones are no markers"
    assert openers <= set(row.markers)
    for opener in openers:
        shared = [form for form in row.calls if opener in [text.strip() for text in form.openers]]
        objects = [form for form in shared if isinstance(form, JsonCalls)]
        assert len(objects) <= 1, "two forms that begin alike can't be told apart"
        assert len(shared) - len(objects) <= 1, "two forms that begin alike can't be told apart"
    bare = [form for form in row.calls if "" in form.openers]
    assert sum(isinstance(form, JsonCalls) for form in bare) <= 1
    assert sum(isinstance(form, PythonCalls) for form in bare) <= 1
    assert all(isinstance(form, PythonCalls) or (isinstance(form, JsonCalls) and form.strict) for form in bare)
    for form in row.calls:
        if isinstance(form, NamedCalls) and form.name:
            assert "name" in re.compile(form.name).groupindex
