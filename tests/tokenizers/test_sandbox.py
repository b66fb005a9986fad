"""sotol.tokenizers.sandbox and metering: hostile templates end soon, with little memory and a short error."""

import itertools
import time

import pytest

from sotol.errors import TemplateError
from sotol.tokenizers.metering import INTERMEDIATE, RenderLimits
from sotol.tokenizers.sandbox import CompiledTemplate

SMALL = RenderLimits(seconds=0.3, characters=200_000)
GROW = "{% set ns = namespace(x=START, y=START) %}{% for i in range(100) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x }}"


def grow(start: str, step: str) -> str:
    return GROW.replace("START", start).replace("STEP", step)


HOSTILE = {
    "append while looping": "{% set l = ['a'] %}{% for x in l %}{% set _ = l.append(x) %}{% endfor %}",
    "append itself": "{% set l = [1] %}{% set _ = l.append(l) %}{{ l }}",
    "append many": "{% set l = [] %}{% for i in range(99999) %}{% set _ = l.append(l + l) %}{% endfor %}",
    "huge range": "{% for i in range(10**9) %}x{% endfor %}",
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "filtered loop": "{% for i in range(99999) %}{% for j in range(99999) if j > 99999 %}{% endfor %}{% endfor %}",
    "repeat": "{{ 'a' * 10**9 }}",
    "repeat, turned": "{{ 10**9 * 'a' }}",
    "repeat a list": "{{ [0] * 10**9 }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "doubling by +": grow("'a'", "ns.x + ns.x"),
    "doubling by ~": grow("'a'", "ns.x ~ ns.x"),
    "doubling lists": grow("['a']", "[ns.x, ns.x]"),
    "doubling objects": grow("{}", "{'a': ns.x, 'b': ns.x}"),
    "doubling by dict()": grow("{}", "dict(a=ns.x, b=ns.x)"),
    "squaring": grow("7", "ns.x * ns.x"),
    "center": "{{ 'a' | center(10**9) }}",
    "str.center": "{{ 'a'.center(1000000000) }}",
    "str.zfill": "{{ 'a'.zfill(1000000000) }}",
    "% width": "{{ '%1000000000d' % 5 }}",
    "% named width": "{{ '%(x)1000000000d' % {'x': 5} }}",
    "% computed width": "{{ '%*d' % (1000000000, 5) }}",
    "% precision": "{{ '%.1000000000f' % 5.0 }}",
    "% many fields": "{{ ('%(a)s' * 10000) % {'a': 'x' * 100000} }}",
    "format filter": "{{ '%1000000000d' | format(5) }}",
    "format filter of a list": "{{ ['%1000000000d'] | format(5) }}",
    "str.format width": "{{ '{:1000000000d}'.format(5) }}",
    "str.format computed width": "{{ '{:{}d}'.format(5, 1000000000) }}",
    "str.format many fields": "{{ ('{0}' * 10000).format('x' * 100000) }}",
    "str.replace": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "replace": "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
    "replace by keyword": "{{ ('a' * 100000) | replace(new='b' * 100000, old='a') }}",
    "str.join": "{{ ('a' * 100000).join(range(10000) | map('string')) }}",
    "join": "{{ range(10000) | join('a' * 100000) }}",
    "indent": "{{ ('a\n' * 50000) | indent(1000000) }}",
    "wordwrap": "{{ ('a ' * 50000) | wordwrap(1, true, 'b' * 100000) }}",
    "wordwrap of one word": "{{ ('a' * 150000) | wordwrap(1) }}",
    "round up": "{{ 2 | round(400000000, 'ceil') }}",
    "round to the left": "{{ 2 | round(precision=-400000000) }}",
    "sort by paths": "{{ range(9999) | sort(attribute=','*9999) }}",
    "sort by a long path": "{{ range(9999) | sort(false, false, '.'.join(['real'] * 9999)) }}",
    "sum by a long path": "{{ range(9999) | sum('.'.join(['real'] * 9999)) }}",
    "max by a long path": "{{ range(9999) | max(attribute='.'.join(['real'] * 9999)) }}",
    "unique by a long path": "{{ range(9999) | unique(attribute='.'.join(['real'] * 9999)) | list }}",
    "groups by a long path": "{{ range(9999) | groupby('.'.join(['real'] * 9999)) }}",
    "map by a long path": "{{ range(9999) | map(attribute='.'.join(['real'] * 9999)) | list }}",
    "select by a long path": "{{ range(9999) | selectattr('.'.join(['real'] * 9999)) | list }}",
    "join by a long path": "{{ range(9999) | join('', '.'.join(['real'] * 9999)) }}",
    "chained generators": "{{ -1 in range(100000)" + " | select" * 400 + " }}",
    "pieces": "{{ ('a ' * 90000).split() | length }}",
    "lines": "{{ ('\n' * 90000) | indent(1) }}",
    "lines of a method": "{{ ('\n' * 90000).splitlines() | length }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "map": "{{ range(100000) | map('center', 100000) | list }}",
    "sum of lists": "{{ [[0], [0]] | sum(start=[]) }}",
    "endless macro": "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "branching macro": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "recursive loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) if loop.depth < 60 }}{% endfor %}",
    "output": "{% set b = 'a' * 100000 %}{% for i in range(100000) %}{{ b }}{% endfor %}",
    "block": "{% set b = 'a' * 100000 %}{% set t %}{% for i in range(99999) %}{{ b }}{% endfor %}{% endset %}",
    "lists as text": "{% set b = ['a' * 99999] %}{% set t %}{% for i in range(9999) %}{{ b }}{% endfor %}{% endset %}",
    "slices": "{% set b = 'a' * 99999 %}{% for i in range(99999) %}{% set c = b[1:] %}{% endfor %}",
    "concatenation": "{% set b = 'a' * 150000 %}{% set c = b ~ b %}",
    "copies": "{% set b = 'a' * 150000 %}{% for i in range(99999) %}{% set c = b | upper %}{% endfor %}",
    "searches": "{% set b = 'a' * 150000 %}{{ range(99999) | map('string') | select('in', b) | list }}",
    "backward search": "{{ ('a' * 150000).rfind('ab' + 'a' * 50000) }}",
    "JSON indent": "{{ [1] | tojson(indent=1000000) }}",
    "JSON separators": "{{ [1] | tojson(separators=('b' * 100000, 'c')) }}",
    "time width": "{{ strftime_now('%1000000000d') }}",
    "time length": "{{ strftime_now('%c' * 10000) }}",
    "bytes of a number": "{{ (5).to_bytes(1000000000, 'little') }}",
    "translate": "{{ 'a'.translate({97: 'b' * 100000}) }}",
    "lipsum": "{{ lipsum(1000000) }}",
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "attributes": "{{ messages | map(attribute='__class__') | list | first | attr('__mro__') + 1 }}",
    "changing messages": "{{ messages.append(1) }}",
    "namespace attribute": "{% set ns = namespace(__class__=1) %}",
    "other files": "{% include 'x' %}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_templates_are_stopped(source: str) -> None:
    start = time.perf_counter()
    with pytest.raises(TemplateError, match=r"^the chat template ") as caught:
        CompiledTemplate(source, SMALL).render({"messages": [{"role": "user", "content": "x"}]})
    assert time.perf_counter() - start < 3  # 0.3 s, and a busy machine
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "source",
    [
        "{% macro m(s) %}{% set t = s[1:] %}{{ m(t) }}{% endmacro %}{{ m('a' * 190000) }}",
        "{% macro m(s) %}{% set t = s[1:] %}{{ m(t) }}{% endmacro %}{{ m('\U0001f600' * 190000) }}",
        "{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = [n.l, ('a ' * 5000).split()] %}{% endfor %}",  # noqa: E501
        "{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = [n.l, range(9999) | list] %}{% endfor %}",
    ],
)
def test_memory_stays_small(source: str) -> None:
    """The values of one rendering have at most INTERMEDIATE bytes for each character of the limit."""
    import tracemalloc

    template = CompiledTemplate(source, RenderLimits(seconds=5, characters=200_000))
    tracemalloc.start()
    with pytest.raises(TemplateError):
        template.render({})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.25 * INTERMEDIATE * 200_000


def test_comparisons_take_time() -> None:
    """However many there are in one expression: each examines 16 MB."""
    long = "{% set s = '\U0001f600' * 3900000 %}{% set t = s ~ '' %}{{ "
    for many in ("[" + "s != t, " * 11_000 + "]", "[" + "s not in [t], " * 6_000 + "]", "t" + " == s == t" * 9_000):
        start = time.thread_time()  # not the clock's, which goes on while other programs run
        with pytest.raises(TemplateError, match=r"more than 0\.5 seconds"):
            CompiledTemplate(long + many + "}}", RenderLimits(seconds=0.5)).render({})
        assert time.thread_time() - start < 6


def test_time_that_others_take_is_not_a_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is crowded, or slept: the clock goes on, and the thread does nothing."""
    clock = itertools.count(0.0, 1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert CompiledTemplate("{% for i in range(50) %}a{% endfor %}", RenderLimits()).render({}) == "a" * 50


def test_reasons_are_told_apart() -> None:
    for source, message in {
        "{% for %}": r"can't be compiled: TemplateSyntaxError: .* \(line 1\)$",
        "x" * 300_000: "has 300,000 characters; the limit is 100,000",
    }.items():
        with pytest.raises(TemplateError, match=message):
            CompiledTemplate(source, SMALL)
    for source, message in {
        "{{ raise_exception('roles must ' ~ 'alternate') }}": "refuses the conversation: roles must alternate$",
        "{% set x = 1e999 + messages %}": "fails on this conversation: NameError: name 'inf' is not defined",
        "{{ a.b.c }}": "fails on this conversation: UndefinedError: 'a' is undefined",
        "{% for i in range(99999) %}{{ 'abc' }}{% endfor %}": "was stopped: its output is more than 200,000 characters",
    }.items():
        with pytest.raises(TemplateError, match=message):
            CompiledTemplate(source, SMALL).render({})


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 50_000,
        "{{ " + "[" * 200 + "]" * 200 + " }}",
        "{{ a" + "+a" * 20_000 + " }}",
        "{{ a" + "|e" * 20_000 + " }}",
        "{% if a %}" * 300 + "{% endif %}" * 300,
        "{% macro a() %}" * 200 + "{% endmacro %}" * 200,
        "{{ " + "1" * 90_000 + " }}",
        "{{ 'a' * 10**9 ~ 'a' | center(10**9) }}",
    ],
)
def test_sources_that_strain_the_compiler_are_errors(source: str) -> None:
    with pytest.raises(TemplateError):
        CompiledTemplate(source, SMALL).render({})


def test_a_stopped_rendering_leaves_the_template_usable() -> None:
    template = CompiledTemplate("{% for i in range(n) %}{{ i }},{% endfor %}", SMALL)
    with pytest.raises(TemplateError):
        template.render({"n": 90_000})
    assert template.render({"n": 3}) == "0,1,2,"


def test_long_conversations_stay_within_the_default_limits() -> None:
    source = (
        "{% set ns = namespace(text='') %}{% for m in messages %}{% set ns.text = m.content | trim %}"
        "{{ '<' + m.role + '>' + ns.text.split('</think>')[-1] + '\n' }}"
        "{{ messages[loop.index0:] | length }}{{ messages[messages | length - 1 - loop.index0].role }}{% endfor %}"
    )
    messages = [{"role": "user", "content": f"{i} " + "word " * 200} for i in range(1000)]
    template = CompiledTemplate(source, RenderLimits(seconds=20))
    start = time.perf_counter()
    assert len(template.render({"messages": messages})) > 1_000_000
    assert time.perf_counter() - start < 1  # 0.05 s; 2 s when each `messages | length` measured all of them


def test_a_template_appends_to_its_own_lists_alone() -> None:
    """As Kimi K2's templates do."""
    own = "{% set n = namespace(x=[]) %}{% for m in messages %}{% set _ = n.x.append(m) %}{% endfor %}{{ n.x | join }}"
    data = ["a", "b"]
    assert CompiledTemplate(own, SMALL).render({"messages": data}) == "ab"
    sums = "{% set x = messages + [] %}{% set _ = x.append('c') %}{{ x | join }}{{ messages | length }}"
    assert CompiledTemplate(sums, SMALL).render({"messages": data}) == "abc2"
    for theirs in ("messages", "messages[:1]", "(messages or [])", "[messages][0]"):
        with pytest.raises(TemplateError, match="append"):
            CompiledTemplate(f"{{{{ {theirs}.append(1) }}}}", SMALL).render({"messages": data})
    assert data == ["a", "b"]
