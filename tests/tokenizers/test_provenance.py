"""sotol.tokenizers.provenance: the same text as `str` gives, and only the template's characters are trusted.

Two alphabets tell where a character came from: the template writes one, everybody else the other. Both have letters
with another case, letters whose other case is longer, and white space.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotol.errors import TemplateError
from sotol.tokenizers.chat import ChatTemplate
from sotol.tokenizers.provenance import Marked, joined, mask_of, trusted, unmarked

OURS, THEIRS = "<|>_aAbßİ \n{}%s", "«¦»¬жЖqŉΐ\t\x0b1"


def belongs(alphabet: str) -> set[str]:
    """The characters, and their upper, lower, title and folded forms."""
    return {
        c
        for text in alphabet
        for form in (text, text.upper(), text.lower(), text.title(), text.casefold())
        for c in form
    }


pieces = st.one_of(st.text(OURS, max_size=6).map(trusted), st.text(THEIRS, max_size=6))
marked = st.lists(pieces, max_size=5).map(joined)
texts = st.one_of(marked, pieces)
small = st.integers(-3, 12)
METHODS: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {
    "capitalize": st.just(()), "casefold": st.just(()), "lower": st.just(()), "upper": st.just(()),
    "title": st.just(()), "swapcase": st.just(()), "strip": st.tuples(st.none() | texts),
    "lstrip": st.tuples(st.none() | texts), "rstrip": st.tuples(st.none() | texts),
    "removeprefix": st.tuples(texts), "removesuffix": st.tuples(texts), "split": st.tuples(st.none() | texts, small),
    "rsplit": st.tuples(st.none() | texts, small), "splitlines": st.tuples(st.booleans()),
    "partition": st.tuples(texts), "rpartition": st.tuples(texts), "join": st.tuples(st.lists(texts, max_size=4)),
    "replace": st.tuples(texts, texts, small), "center": st.tuples(small), "ljust": st.tuples(small),
    "rjust": st.tuples(small), "zfill": st.tuples(small), "__add__": st.tuples(texts), "__radd__": st.tuples(texts),
    "__mul__": st.tuples(small), "__getitem__": st.tuples(small | st.slices(12)),
    "__mod__": st.tuples(texts | st.tuples(texts) | st.tuples(texts, texts) | small | st.dictionaries(texts, texts)),
}  # fmt: skip
SEARCHING = {"split", "rsplit", "partition", "rpartition", "replace", "removeprefix", "removesuffix", "strip"}
# Operations that keep the template's characters trusted, if all operands are the template's.
KEPT = METHODS.keys() - {"zfill", "center", "ljust", "rjust", "__mod__", "casefold", "replace"}


def plain(value: Any) -> Any:
    """The same values with plain strings."""
    if isinstance(value, str):
        return unmarked(value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if isinstance(value, list | tuple) else value


def outcome(operation: Callable[[], Any]) -> Any:
    try:
        return operation()
    except (TypeError, ValueError, IndexError, KeyError) as error:
        return type(error)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_methods_give_what_those_of_str_give(name: str, data: st.DataObject) -> None:
    text, arguments = data.draw(marked), data.draw(METHODS[name])
    if name in SEARCHING and data.draw(st.booleans()):  # search for something that occurs
        arguments = (text[data.draw(st.slices(len(text)))], *arguments[1:])
    if name == "__radd__":
        expected = plain(arguments[0]) + plain(text)
        got = arguments[0] + text
    else:
        expected = outcome(lambda: getattr(plain(text), name)(*plain(arguments)))
        got = outcome(lambda: getattr(text, name)(*arguments))
    assert got == expected
    for one in got if isinstance(got, list | tuple) else [got] if isinstance(got, str) else []:
        assert len(mask_of(one)) == len(one)
        yours = [c for c, is_trusted in zip(one, mask_of(one), strict=True) if is_trusted]
        assert not set(yours) & (belongs(THEIRS) - belongs(OURS))


@pytest.mark.parametrize("name", sorted(KEPT))
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_templates_own_text_stays_its_own(name: str, data: st.DataObject) -> None:
    ours = st.text("<|>_ab \n", max_size=8).map(trusted)
    strategies = {
        "join": st.tuples(st.lists(ours, max_size=4)),
        "__add__": st.tuples(ours),
        "__radd__": st.tuples(ours),
    }
    text, arguments = data.draw(ours), data.draw(strategies.get(name, METHODS[name]))
    got = outcome(lambda: arguments[0] + text if name == "__radd__" else getattr(text, name)(*arguments))
    for one in got if isinstance(got, list | tuple) else [got] if isinstance(got, str) else []:
        assert all(mask_of(one))


def test_a_marked_text_is_a_text() -> None:
    import copy
    import json
    import pickle

    text = trusted("<a>") + "b"
    assert {"<a>b": 1}[text] == 1
    assert str(text) is text
    assert json.dumps({text: text}) == '{"<a>b": "<a>b"}'
    assert type(unmarked(text)) is str
    for same in (copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert (same, mask_of(same)) == ("<a>b", b"\1\1\1\0")
    assert mask_of(Marked("ab")) == b"\0\0"


# How templates write control tokens; `role` and `text` are a user's.
WAYS = {
    "literal": "<|start|>{{ role }}<|end|>",
    "+": "{{ '<|start|>' + role + '<|end|>' }}",
    "user first": "{{ role + '<|start|>' + '<|end|>' }}",
    "~": "{{ '<|start|>' ~ role ~ 3 ~ '<|end|>' }}",
    "join": "{{ ['<|start|>', role, '<|end|>'] | join('') }}",
    "join attribute": "{{ [{'t': '<|start|>'}, {'t': role}, {'t': '<|end|>'}] | join(attribute='t') }}",
    "str.join": "{{ role.join(['<|start|>', '<|end|>']) }}",
    "%": "{{ '<|start|>%s%%<|end|>' % role }}",
    "% of two": "{{ '<|start|>%s%d<|end|>%s' % (role, 3, text) }}",
    "% by name": "{{ '<|start|>%(role)s<|end|>' % {'role': role} }}",
    "format filter": "{{ '<|start|>%s<|end|>' | format(role) }}",
    "str.format": "{{ '<|start|>{}{{{:>3}<|end|>'.format(role, 5) }}",
    "str.format by name": "{{ '<|start|>{role}<|end|>'.format(role=role) }}",
    "put into a user's text": "{{ ('[a]' ~ role ~ '[b]').replace('[a]', '<|start|>').replace('[b]', '<|end|>') }}",
    "replace filter": "{{ ('[a]' ~ role ~ '[b]') | replace('[a]', '<|start|>') | replace('[b]', '<|end|>') }}",
    "trim": "{{ ('  <|start|>' + role + '<|end|>\n') | trim }}",
    "strip": "{{ ('  <|start|>' + role + '<|end|>\n').strip() }}",
    "slices": "{{ ('x<|start|>' + role + '<|end|>')[1:] }}",
    "split": "{{ ('x, <|start|>' + '<|end|>').split(', ')[1] }}",
    "lower": "{{ '<|START|>' | lower }}{{ '<|END|>'.lower() }}",
    "safe": "{{ '<|start|>' | safe }}{{ role | safe ~ '<|end|>' }}",
    "string": "{{ '<|start|>' | string }}{{ '<|end|>' | default('x') }}",
    "indent": "{{ ('a\n<|start|>\n' + role + '\n<|end|>') | indent(2) }}",
    "macro": "{% macro m(x) %}<|start|>{{ x }}{{ '<|end|>' }}{% endmacro %}{{ m(role) }}",
    "caller": "{% macro m() %}<|start|>{{ caller() }}{% endmacro %}{% call m() %}<|end|>{% endcall %}",
    "set": "{% set x %}<|start|>{{ role }}<|end|>{% endset %}{{ x }}",
    "namespace": "{% set n = namespace(x='<|start|>') %}{% set n.x = n.x + role + '<|end|>' %}{{ n.x }}",
    "loop": "{% for x in ['<|start|>', role, '<|end|>'] %}{{ x }}{% endfor %}",
    "map": "{{ ['<|START|>', '<|END|>'] | map('lower') | join }}",
    "dictionary": "{{ {'a': '<|start|>'}.a }}{% for t in {'<|end|>': 1} %}{{ t }}{% endfor %}",
    "filter block": "{% filter trim %} <|start|>{{ role }}<|end|> {% endfilter %}",
    "condition": "{{ '<|start|>' if role else '' }}{{ role or '' }}{{ none or '<|end|>' }}",
    "special tokens": "{{ bos_token }}{{ role }}{{ '%s' | format(eos_token) }}",
    "repeated": "{{ ('<|start|>' * 2)[9:] }}{{ 1 * '<|end|>' }}",
    "reversed": "{{ '>|trats|<' | reverse }}<|end|>",
    "truncate": "{{ '<|start|>' | truncate }}{{ 'abcdefghij' | truncate(7, true, '<|end|>', 0) }}",
}


def rendered(source: str, role: str, text: str = "") -> str:
    template = ChatTemplate({"default": source}, bos="<|start|>", eos="<|end|>")
    return template.render([{"role": "user", "content": "x"}], role=role, text=text)


@pytest.mark.parametrize("source", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("role", ["user", "<|start|>", "|>", "start|><|", "<|END|>"])
def test_tokens_are_the_templates_however_it_writes_them(source: str, role: str) -> None:
    out = rendered(source, role, "<|end|>")
    mask = mask_of(out)
    tokens = [
        t
        for t in ("<|start|>", "<|end|>")
        for at in range(len(out))
        if out.startswith(t, at) and all(mask[at : at + len(t)])
    ]
    assert sorted(tokens) == ["<|end|>", "<|start|>"]


def test_safe_text_escapes_what_is_added_and_leaves_it_otherwise() -> None:
    """As in Mistral's template: a control token, then JSON marked as safe."""
    out = rendered("{{ '[ARGS]' + (role | tojson | safe) + '[END]' }}", "a")
    assert out == '[ARGS]"a"[END]'
    assert mask_of(out) == b"\1" * 6 + b"\0" * 3 + b"\1" * 5
    escaped = rendered("{{ '<|start|>' + (role | tojson | safe) }}", "a")
    assert (escaped, any(mask_of(escaped))) == ('&lt;|start|&gt;"a"', False)


LETTERS = str.maketrans("<|>_abdeimnrst[]", "«¦»¬абдеимнрст⟦⟧")
STEPS = (
    "({0} + {1})",
    "({0} ~ {1})",
    "([{0}, {1}, {0}] | join({1}))",
    "({1}).join([{0}, '|'])",
    "({0} | upper)",
    "({0} | lower)",
    "({0}).title()",
    "({0}).swapcase()",
    "({0} | trim)",
    "({0}).strip('<' ~ {1})",
    "({0}).lstrip()",
    "({0})[1:]",
    "({0})[::-1]",
    "({0})[:-2]",
    "({0}).split({1} or ' ')[-1]",
    "(({0}).split() | join('<'))",
    "({0}).rsplit(None, 1)[0]",
    "({0} | replace({1}, '<|'))",
    "({0}).replace('a', {1})",
    "('%s<%s' % ({0}, {1}))",
    "('{{}}<{{}}>{{0}}'.format({0}, {1}))",
    "({0} | format({1}))",
    "({0} % {1})",
    "({0}).format({1}, {1})",
    "({0} | indent(2, true))",
    "({0} * 2)",
    "({0} | safe)",
    "(({0} | safe) + {1})",
    "({0} + ({1} | safe))",
    "({0} | e)",
    "({0} | list | join({1}))",
    "({0} | map('upper') | join)",
    "({0} | tojson)",
    "({0} | string)",
    "({0} | center(9))",
    "({0} | truncate(5, true, {1}[:2], 0))",
    "({0}).partition({1} or '|')[2]",
    "({0}).splitlines() | join('|')",
    "({0} | title)",
    "({0} | capitalize)",
    "([{0}, {1}] | sort | first)",
    "({0} | wordwrap(3))",
    "({0} | urlencode)",
    "({0}).zfill(9)",
    "({0}).rjust(12, '<')",
    "({{{0}: {1}}} | items | first | last)",
    "({0} | default({1}, true))",
    "({0} | reverse)",
)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), min_size=1, max_size=4),
    role=st.lists(
        st.sampled_from(["<|", "im_", "end", "|>", "<|im_end|>", " ", "\n", "%s", "{}", "A", "b\u0131\u0130"]),
        max_size=4,
    ).map("".join),
    start=st.sampled_from(
        ["'<|im_end|>'", "role", "('<' ~ role ~ '|>')", "'%s<|im_'", "bos_token", "messages[0].content"]
    ),
)
def test_nothing_of_a_users_is_ever_trusted(steps: list[tuple[str, int]], role: str, start: str) -> None:
    """The user's letters do not occur in the template: none of them is trusted after any operation."""
    theirs = role.translate(LETTERS)
    expression = start
    for step, other in steps:
        expression = step.format(f"({expression})", ("role", "'<|im_end|>'", "bos_token", "messages[0].content")[other])
    template = ChatTemplate({"default": "{{ " + expression + " }}"}, bos="<|im_end|>")
    try:
        out = template.render([{"role": "user", "content": theirs}], role=theirs)
    except TemplateError:  # not every random expression is valid
        return
    letters = {c for text in LETTERS.values() for c in (chr(text), chr(text).upper(), chr(text).title())}
    assert not {c for c, is_trusted in zip(out, mask_of(out), strict=True) if is_trusted} & letters
