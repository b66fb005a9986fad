"""Fuzzes chat templates: random Jinja programs, and real ones with pieces changed, in the sandbox.

Whatever the source, rendering ends soon in a text of bounded length or in one TemplateError of one line, within bounded
memory, nothing of Python's inside is in the text, and nothing that only a user wrote is trusted. Run `python -m tests.fuzz.fuzz_templates --seconds 60 --seed 1`.
"""

import random
import re
from collections.abc import Callable
from pathlib import Path

import jinja2.filters
import jinja2.tests
from tests.support.fuzzing import Bounds, Broken, run

from sotol.errors import TemplateError
from sotol.tokenizers import sandbox
from sotol.tokenizers.metering import RenderLimits
from sotol.tokenizers.provenance import Marked, mask_of
from sotol.tokenizers.sandbox import CompiledTemplate

LIMITS = RenderLimits(seconds=0.3, characters=200_000)
MEMORY = 400 << 20  # bytes: values may add up to 64 times the characters, of at most 4 bytes each
MESSAGES = [
    {"role": "system", "content": "be nice"},
    {"role": "user", "content": "h\u00e9llo \U0001f600\n\n x\u0431\u0416\u03b2"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5]}}}]},
    {"role": "user", "content": [{"type": "text", "text": "a\u0436" * 500}]},
]
VARIABLES = {
    "messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}], "bos_token": "<s>",
    "eos_token": "</s>", "add_generation_prompt": True, "documents": None,
}  # fmt: skip

THEIRS = frozenset(
    "\u00e9\u00c9\u0431\u0411\u0436\u0416\u03b2\u0392"
)  # letters of messages, which no program writes itself

# What no template may show: objects of the interpreter, which only forbidden attributes lead to.
INSIDE = re.compile(
    r"<module |<code object|<frame |<slot wrapper|<method-wrapper|<attribute |<member |<traceback|mappingproxy\("
    r"|site-packages|<class 'type'>|<class 'object'>|<function (?!_refuse|new_dict|strftime_now)"
)

INTEGERS = ("0", "1", "2", "-1", "3", "7", "100", "65536", "99999", "10**9", "-10**9", "9999999999")
FLOATS = ("0.5", "1e308", "-2.5e-5", "1e999")
TEXTS = (
    "", "a", "ab", " ", "\\n", "%s", "%d", "%(a)s", "%9d", "%99999s", "%*d", "%.9f", "%%", "{}", "{0}", "{a}", "{0:9}",
    "{0!r}", "{0.__class__}", "{0[__class__]}", "{:{}}", "{0:99999}", "{{", "__class__", "__globals__", "content",
    "role", "function.name", "\U0001f600", "\u00df", "\\x00", "<|im_end|>", "%Y", "%99999Y",
)  # fmt: skip
NAMES = (
    *VARIABLES, "ns", "x", "y", "i", "m", "loop", "loop.index", "loop.previtem", "caller", "varargs", "kwargs",
    "self", "range", "dict", "namespace", "cycler", "joiner", "lipsum", "strftime_now", "raise_exception",
    "nothing", "ns.text", "ns.list",
    "true", "none", "messages[0]", "messages[1].content", "messages[2].tool_calls",
)  # fmt: skip
HIDDEN = (
    "__class__", "__mro__", "__bases__", "__base__", "__subclasses__", "__init__", "__globals__", "__builtins__",
    "__code__", "__func__", "__self__", "__dict__", "__module__", "__doc__", "__call__", "__wrapped__",
    "__getattribute__",
    "__reduce_ex__", "__format__", "gi_frame", "gi_code", "f_globals", "f_back", "cr_frame", "func_globals", "mro",
    "_environment", "environment", "jinja_pass_arg", "_Namespace__attrs", "_meter", "_items", "__iter__", "__next__",
)  # fmt: skip
TEXT_FILTERS = (
    "upper",
    "trim",
    "title",
    "e",
    "indent(4)",
    "wordwrap(3)",
    "truncate(5)",
    "reverse",
    "urlencode",
    "replace('a', 'bb')",
)
TEXT_METHODS = ("upper", "strip", "title", "lower", "swapcase", "capitalize", "casefold", "splitlines", "split")
LIST_FILTERS = (
    "reverse", "sort", "unique", "first", "last", "batch(2)", "slice(3)", "map('string')", "map(attribute='role')",
    "selectattr('role')", "rejectattr('tool_calls', 'defined')", "groupby('role')", "sum", "max", "select('string')",
)  # fmt: skip
CALLABLE = ("range", "dict", "namespace", "cycler", "joiner", "m", "loop", "strftime_now", "caller", "lipsum")
METHODS = tuple(sorted({name for kind in (str, list, dict, int, float, tuple) for name in dir(kind) if name[0] != "_"}))
FILTERS = (*sorted(sandbox.FILTERS), "tojson", "items")
HIDDEN_FILTERS = (*sorted(jinja2.filters.FILTERS.keys() - sandbox.FILTERS), "$watched", "attr")
TESTS = tuple(sorted(name for name in jinja2.tests.TESTS if name.isidentifier()))
OPERATORS = ("+", "-", "*", "*", "/", "//", "%", "**", "~", "==", "<", "in", "not in", "and", "or")
REAL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "help<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{{ bos_token }}{%- set ns = namespace(x=none, y='') -%}{%- for m in messages -%}{%- if m.role == 'system' -%}"
    "{%- set ns.x = m.content | trim -%}{%- elif (m.role == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception("
    "'Roles must alternate') }}{%- endif -%}{%- if m.content is string -%}{{ '[INST] ' ~ m.content.strip() ~ ' [/INST]' "
    "}}{%- else -%}{%- for part in m.content | selectattr('type', 'equalto', 'text') -%}{{ part.text.split('</a>')[-1]."
    "lstrip('\\n') }}{%- endfor -%}{%- endif -%}{%- endfor -%}",
    "{%- macro show(tool, depth=0) -%}{% for key, value in tool.items() %}{{ '  ' * depth }}{{ key }}: {% if value is "
    "mapping %}{{ show(value, depth + 1) }}{% else %}{{ value | tojson(indent=2) }}{% endif %}{% endfor %}{%- endmacro -%}"
    "{% if tools %}{% for t in tools %}{{ show(t) }}{% endfor %}{% endif %}{{ strftime_now('%d %b %Y') }}"
    '{% for m in messages[1:] if m.tool_calls is defined %}{% for c in m.tool_calls %}{{ \'{"name": "\' + c.function.name'
    " + '\", \"arguments\": ' + (c.function.arguments | tojson) + '}' }}{% endfor %}{% endfor %}",
)


class Grammar:
    """Random expressions and statements, less and less nested."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def expression(self, depth: int = 4) -> str:
        """Any expression: most are of a kind that fits its place."""
        if self.rng.random() < 0.1:
            return self.wild(depth)
        return self.rng.choice((self.text, self.text, self.number, self.sequence))(depth)

    def text(self, depth: int) -> str:
        """An expression that gives text, if it gives anything."""
        if depth <= 0:
            return self.rng.choice(
                ("'a'", "'ab c'", "' '", "'%s'", "ns.text", "bos_token", f"'{self.rng.choice(TEXTS)}'")
            )
        text, number, some = self.text, self.number, self.expression
        return self.form(
            lambda: f"({text(depth - 1)} ~ {some(depth - 1)})",
            lambda: f"({text(depth - 1)} + {text(depth - 1)})",
            lambda: f"({text(depth - 1)} * {number(depth - 2)})",
            lambda: f"({text(depth - 1)} % {some(depth - 2)})",
            lambda: f"({text(depth - 1)} | {self.rng.choice(TEXT_FILTERS)})",
            lambda: f"({text(depth - 1)} | {self.filter(depth)})",
            lambda: f"{text(depth - 1)}.{self.rng.choice(TEXT_METHODS)}()",
            lambda: f"{text(depth - 1)}.{self.rng.choice(METHODS)}({self.arguments(depth)})",
            lambda: f"{text(depth - 1)}.replace({text(depth - 2)}, {text(depth - 2)})",
            lambda: f"{text(depth - 1)}.center({number(depth - 2)})",
            lambda: f"{text(depth - 1)}.format({some(depth - 2)}, a={some(depth - 2)})",
            lambda: f"({self.sequence(depth - 1)} | join({text(depth - 2)}))",
            lambda: f"({some(depth - 1)} | {self.rng.choice(('string', 'tojson', 'tojson(indent=2)'))})",
            lambda: f"{text(depth - 1)}[{number(depth - 2)}:{number(depth - 2)}]",
            lambda: f"({text(depth - 1)} if {some(depth - 2)} else {text(depth - 1)})",
        )

    def number(self, depth: int) -> str:
        """An expression that gives a number, if it gives anything."""
        if depth <= 0:
            return self.rng.choice(("0", "1", "2", "3", "7", "-1", self.rng.choice(INTEGERS), self.rng.choice(FLOATS)))
        return self.form(
            lambda: (
                f"({self.number(depth - 1)} {self.rng.choice(('+', '-', '*', '//', '%', '**'))} {self.number(depth - 2)})"
            ),
            lambda: f"({self.expression(depth - 1)} | length)",
            lambda: f"({self.text(depth - 1)} | {self.rng.choice(('int', 'float', 'wordcount'))})",
            lambda: f"{self.text(depth - 1)}.{self.rng.choice(('count', 'find', 'rfind'))}({self.text(depth - 2)})",
            lambda: f"({self.number(depth - 1)} | {self.rng.choice(('abs', 'round', 'int'))})",
        )

    def sequence(self, depth: int) -> str:
        """An expression that gives a list, if it gives anything."""
        if depth <= 0:
            return self.rng.choice(("messages", "tools", "[]", "[1, 2]", "['a', 'b']", "ns.list"))
        some = self.expression
        return self.form(
            lambda: f"[{', '.join(some(depth - 1) for _ in range(self.rng.randrange(4)))}]",
            lambda: f"({self.sequence(depth - 1)} + {self.sequence(depth - 1)})",
            lambda: f"({self.sequence(depth - 1)} * {self.number(depth - 2)})",
            lambda: f"range({self.number(depth - 2)})",
            lambda: f"({some(depth - 1)} | list)",
            lambda: f"({self.sequence(depth - 1)} | {self.rng.choice(LIST_FILTERS)} | list)",
            lambda: f"({self.sequence(depth - 1)} | map('{self.rng.choice(FILTERS)}') | list)",
            lambda: f"{self.text(depth - 1)}.split({self.text(depth - 2)})",
            lambda: f"{self.sequence(depth - 1)}[{self.number(depth - 2)}:]",
            lambda: f"({{'a': {some(depth - 1)}, {self.text(0)}: {some(depth - 1)}}} | items | list)",
        )

    def form(self, *forms: Callable[[], str]) -> str:
        """One of these."""
        return self.rng.choice(forms)()

    def wild(self, depth: int) -> str:
        """An expression of no kind, with what should not work."""
        pick = self.rng.choice
        if depth <= 0:
            return self.leaf()

        def inner() -> str:
            return self.expression(depth - 1)

        return self.form(
            self.leaf,
            lambda: f"({inner()} {pick(OPERATORS)} {inner()})",
            lambda: f"({inner()} | {self.filter(depth)} | {self.filter(depth)})",
            lambda: f"{self.leaf()}.{pick(METHODS)}({self.arguments(depth)})",
            lambda: f"{self.wild(depth - 1)}.{pick(HIDDEN)}",
            lambda: f"({self.wild(depth - 1)} | attr('{pick(HIDDEN)}'))",
            lambda: f"{self.wild(depth - 1)}['{pick(HIDDEN)}']",
            lambda: f"{self.wild(depth - 1)}[{inner()}]",
            lambda: f"{{{inner()}: {inner()}, 'a': {inner()}}}",
            lambda: f"({inner()}, {inner()})",
            lambda: f"({inner()} is {pick(TESTS)}({inner()}))",
            lambda: f"{pick(CALLABLE)}({self.arguments(depth)})",
        )

    def leaf(self) -> str:
        """A name or a literal."""
        pick = self.rng.choice
        return pick((pick(NAMES), pick(NAMES), pick(INTEGERS), pick(FLOATS), f"'{pick(TEXTS)}'", f"'{pick(TEXTS)}'"))

    def arguments(self, depth: int) -> str:
        """Of a call: up to three, seldom with a name or a star."""
        given = [self.expression(depth - 2) for _ in range(self.rng.choice((0, 1, 1, 2, 3)))]
        marks = ("a=", "attribute=", "start=", "x=", "*", "**")
        last = [self.rng.choice(marks) + self.expression(depth - 2)] if self.rng.random() < 0.2 else []
        return ", ".join(given + last)

    def filter(self, depth: int) -> str:
        """A filter with or without arguments, some of which name other filters."""
        if self.rng.random() < 0.2:
            return f"map('{self.rng.choice(FILTERS)}', {self.expression(depth - 2)}) | list"
        name = self.rng.choice(HIDDEN_FILTERS if self.rng.random() < 0.01 else FILTERS)
        return name + (f"({self.arguments(depth)})" if self.rng.random() < 0.5 else "")

    def statement(self, depth: int = 3) -> str:
        """Output, or a tag with statements in it."""
        e = self.expression

        def body() -> str:
            return self.statement(depth - 1) if depth > 0 else "x"

        forms: tuple[Callable[[], str], ...] = (
            lambda: f"{{{{ {e()} }}}}",
            lambda: f"{{{{ {e()} }}}}",
            lambda: f"{{% set ns.text = {self.text(3)} %}}",
            lambda: f"{{% set ns.list = {self.sequence(3)} %}}",
            lambda: f"{{% set x = {e()} %}}",
            lambda: f"{{% set y %}}{body()}{{% endset %}}",
            lambda: f"{{% for i in {self.sequence(2)} %}}{body()}{{% endfor %}}",
            lambda: (
                f"{{% for i in range({self.rng.choice(INTEGERS)}) %}}{{% set ns.text = {self.text(3)} %}}{body()}{{% endfor %}}"
            ),
            lambda: (
                f"{{% for i, x in {self.sequence(2)} if {e(2)} recursive %}}{body()}{{{{ loop({e(2)}) }}}}{{% endfor %}}"
            ),
            lambda: f"{{% if {e()} %}}{body()}{{% else %}}{body()}{{% endif %}}",
            lambda: f"{{% macro m(x, y={e(2)}) %}}{body()}{{{{ m(x) }}}}{{% endmacro %}}{{{{ m({e(2)}) }}}}",
            lambda: (
                f"{{% macro m(x) %}}{body()}{{{{ caller(x) }}}}{{% endmacro %}}{{% call(y) m({e(2)}) %}}{body()}"
                "{% endcall %}"
            ),
            lambda: f"{{% filter {self.filter(2)} %}}{body()}{{% endfilter %}}",
            lambda: f"{{% with x = {e()} %}}{body()}{{% endwith %}}",
            lambda: f"{{% generation %}}{body()}{{% endgeneration %}}",
            lambda: f"{{% block b{(n := self.rng.randrange(10**6))} %}}{body()}{{{{ self.b{n}() }}}}{{% endblock %}}",
            lambda: f"{{% include {e(1)} %}}" if self.rng.random() < 0.1 else "x",
            lambda: (
                f"{{% for i in {self.sequence(2)} %}}{{% if {e(1)} %}}{{% {self.rng.choice(('break', 'continue'))} %}}"
                f"{{% endif %}}{body()}{{% endfor %}}"
            ),
        )
        return self.rng.choice(forms)() + (body() if self.rng.random() < 0.5 else "")


def program(rng: random.Random) -> str:
    """A program, or a real template with changes."""
    grammar = Grammar(rng)
    start = "{% set ns = namespace(text='a', list=['b']) %}"
    if rng.random() < 0.6:
        return start + "".join(grammar.statement() for _ in range(rng.choice((1, 1, 1, 3))))
    source = rng.choice(REAL)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(source))
        expressions = list(re.finditer(r"(?<=\{\{)[^{}]*(?=\}\})|(?<= in )[^%]*(?=%\})|(?<=if )[^%]*(?=%\})", source))
        match rng.randrange(5):
            case 0:
                source = source[:at] + source[at + rng.randrange(1, 30) :]
            case 1:
                source = source[:at] + source[at : at + 200] * rng.choice((1, 2, 20)) + source[at:]
            case 2:
                source = source[:at] + grammar.statement(1) + source[at:]
            case _ if expressions:
                place = rng.choice(expressions)
                source = f"{source[: place.start()]} {grammar.expression()} {source[place.end() :]}"
            case _:
                source = source[:at] + rng.choice("{}%()[]'|.*0") * rng.choice((1, 1, 500)) + source[at:]
    return start + source


def case(rng: random.Random, folder: Path) -> bool:
    """One template, rendered once."""
    source = program(rng)
    (folder / "template.jinja").write_text(source)
    try:
        text = CompiledTemplate(source, LIMITS).render(VARIABLES)
    except TemplateError as error:
        message = str(error)
        if "\n" in message or not message.startswith("the chat template ") or "MemoryError" in message:
            raise Broken(f"an error that is not one line of a reason: {message!r}") from error
        if len(message) > 1000:
            raise Broken(f"a message of {len(message)} characters: {message[:100]!r}") from error
        return False
    if not isinstance(text, Marked) or len(mask_of(text)) != len(text) or len(text) > LIMITS.characters:
        raise Broken(f"a {type(text).__name__} of {len(text)} characters")
    if any(is_trusted and character in THEIRS for character, is_trusted in zip(text, mask_of(text), strict=True)):
        raise Broken(f"what a user wrote is trusted: {text[:100]!r}")
    if (found := INSIDE.search(text)) is not None:
        raise Broken(f"Python's inside in the text: {text[found.start() :][:100]!r}")
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_templates", case, bounds=Bounds(memory=MEMORY)))
