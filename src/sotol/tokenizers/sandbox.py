"""A Jinja environment for the templates of downloaded models, which may be hostile.

Jinja's immutable sandbox keeps a template from Python's internals, but not from running for hours or filling memory.
Here everything that a template can do is metered. Each iteration, call, filter, test, operator and output expression
costs a tick, which also checks the clock. Each value that a template makes is measured, and *before* it is made if it
could be much larger than its operands. Jinja has no hooks for loops and literals, so they are wrapped in filters in the
syntax tree before it is compiled.

Each character of the result is marked as the template's own text or as text from outside (`provenance.py`): a code
generator makes the template's literals trusted text.

Templates can use what Hugging Face `transformers` offers them ("chat templating" in its documentation). This module
imports jinja2, which takes a while, so `chat.py` imports it only to compile a template.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from types import GeneratorType
from typing import Any

import jinja2
import jinja2.compiler
import jinja2.ext
import jinja2.filters
import jinja2.meta
import jinja2.runtime
import jinja2.sandbox
from jinja2 import nodes
from jinja2.exceptions import SecurityError

from sotol.errors import TemplateError, plain
from sotol.tokenizers.filters import Safe, Variables, indent, new_dict, replace, strftime_now
from sotol.tokenizers.metering import Meter, RenderLimits, estimate_call, estimate_percent
from sotol.tokenizers.provenance import Marked, joined, marked, trusted

__all__ = ["CompiledTemplate"]

LARGEST_SOURCE = 100_000  # characters; compiling is not metered, but takes linear time: a second for this many
# Internal filters. No template can name them, because of the $.
WATCHED, MEASURED, SLICED, CONCATENATED, TICKED = "$watched", "$measured", "$sliced", "$concatenated", "$ticked"

# The methods of plain values that a template can call: each takes linear time, or is estimated by `estimate_call`.
# fmt: off
METHODS = {
    str: frozenset({
        "capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
        "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust",
        "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust",
        "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
        "zfill",
    }),
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"append", "copy", "count", "index"}),  # "append" of lists that the template made
    tuple: frozenset({"count", "index"}),
    int: frozenset({"bit_length"}),
    float: frozenset({"is_integer"}),
}
FILTERS = frozenset({
    "abs", "attr", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "format", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max",
    "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "slice", "sort",
    "string", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount", "wordwrap",
})
# fmt: on
READ_WHOLE = frozenset({"batch", "groupby", "list", "max", "min", "reverse", "slice", "sort", "sum", "unique"})
# What a template's code can raise: because of a mistake in it (an infinite number is a NameError), or because of a
# conversation that it does not expect.
ERRORS = (jinja2.TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NameError,
          RuntimeError, SyntaxError, TypeError, ValueError)  # fmt: skip
GLOBALS = frozenset({"cycler", "joiner", "range"})


class _Own(list[Any]):
    """A list that the template itself has made, and may append to; all others are somebody's data."""


class _Watched:
    """An iterable that ticks at each iteration, and has the length of the one that it wraps."""

    def __init__(self, meter: Meter, items: Any) -> None:
        self._meter, self._items = meter, items

    def __iter__(self) -> Iterator[Any]:
        return self._meter.watched(self._items)

    def __len__(self) -> int:
        return len(self._items)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's tokens for training; here it is just its body."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Any) -> nodes.Node:
        """The body in a scope of its own, as in `transformers`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _CodeGenerator(jinja2.compiler.CodeGenerator):
    """Jinja's compiler, but the template's literals become trusted text, stored in the environment."""

    environment: "_Environment"

    def visit_Const(self, node: nodes.Const, frame: Any) -> None:  # noqa: N802, RUF100  # as jinja2 calls it
        if isinstance(node.value, str):
            self.write(self._literal(node.value))
        else:
            super().visit_Const(node, frame)

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return self._literal("".join(group))

    def _literal(self, text: str) -> str:
        literals = self.environment.literals
        literals.append(trusted(text))
        return f"environment.literals[{len(literals) - 1}]"


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a meter. One rendering at a time."""

    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})
    meter: Meter

    def __init__(self, limits: RenderLimits) -> None:
        # `optimized` would fold constants while compiling, where nothing is metered.
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=self._written,
            extensions=[_Generation, jinja2.ext.loopcontrols],
        )  # fmt: skip
        self.meter = Meter(limits)
        self.literals: list[Marked] = []
        # Jinja's own versions of these lose the provenance of text.
        self.filters |= {"join": self._join, "replace": replace, "indent": indent, "safe": Safe}
        self.filters = {name: self._metered(name, f) for name, f in self.filters.items() if name in FILTERS}
        self.filters |= {"tojson": self._to_json, WATCHED: lambda items: _Watched(self.meter, items)}
        self.filters[MEASURED] = lambda value: self.meter.count(_owned(value))
        self.filters[SLICED] = lambda value: self.meter.count_part(value)
        self.filters[TICKED] = lambda value: self.meter.tick_for(value)
        self.filters[CONCATENATED] = lambda values: self._concat(self._written(value) for value in values)
        self.tests = {name: self._metered(name, f) for name, f in self.tests.items()}
        self.globals = {name: value for name, value in self.globals.items() if name in GLOBALS}
        self.globals |= {"namespace": Variables, "dict": new_dict, "raise_exception": _refuse}
        self.globals["strftime_now"] = strftime_now
        self.concat = self._concat  # type: ignore[method-assign]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in [tree, *tree.find_all(nodes.Node)]:
            for name, value in list(node.iter_fields()):
                if isinstance(value, list):
                    setattr(node, name, [_metered_node(item) for item in value])
                else:
                    setattr(node, name, _metered_node(value))
            if isinstance(node, nodes.For):
                node.iter = _filtered(node.iter, WATCHED)
            if isinstance(node, nodes.Compare):  # comparing with a literal is bounded by the literal's length
                for operand in node.ops:
                    if not isinstance(operand.expr, nodes.Const):
                        operand.expr = _filtered(operand.expr, TICKED)
        return tree.set_environment(self)  # type: ignore[return-value]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator; refuses one whose result would be far too large."""
        self.meter.tick()
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            self.meter.check_bits(left.bit_length() * right)
        elif operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, (str, list, tuple)) and isinstance(times, int):
                    self.meter.estimate(self.meter.size(many) * times)
        elif operator == "%" and isinstance(left, str):
            estimate_percent(self.meter, left, (right,))
        return self.meter.count(_owned(super().call_binop(context, operator, left, right)))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Jinja refuses every method that changes a list; here a template may append to its own."""
        return (isinstance(obj, _Own) and attr == "append") or super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, RUF100
        """Call a macro, a global or an allowed method."""
        __self.meter.tick()
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
        owner = getattr(method, "__self__", None)
        kind = next((k for k in METHODS if isinstance(owner, k)), None)
        if kind is not None:
            if method.__name__ not in METHODS[kind]:
                raise SecurityError(f"it calls {kind.__name__}.{method.__name__}, which templates can't")
            if method.__name__ == "append":
                __self.meter.grow()
            if isinstance(owner, str):
                return __self._call_text(__context, __obj, (method.__name__, owner), args, kwargs)
        return __self.meter.count(super().call(__context, __obj, *args, **kwargs))

    def _call_text(self, context: Any, function: Any, method: tuple[str, str], args: Any, kwargs: Any) -> Any:
        """Call a method of a text. method: its name, and the text."""
        name, owner = method
        for variables in ("_loop_vars", "_block_vars"):  # Jinja passes these to every call; only macros use them
            kwargs.pop(variables, None)
        # There are also filters called format and join, which mean something else.
        args = estimate_call(self.meter, f"str.{name}" if name in ("format", "join") else name, owner, args, kwargs)
        if name in ("split", "rsplit", "splitlines") and type(owner) is Marked:  # measure the cheap plain pieces first
            self.meter.size(getattr(str, name)(owner, *args, **kwargs))
        if name in ("join", "replace") and type(owner) is str:  # the arguments may be trusted text
            function = getattr(marked(owner), name)
        made = super().call(context, function, *args, **kwargs)
        if name == "format" and type(owner) is Marked:
            made = owner._formatted(str(made), args, kwargs)
        return self.meter.count_list(made) if isinstance(made, list) else self.meter.count(made)

    def _metered(self, name: str, function: Any) -> Callable[..., Any]:
        """The filter or test, metered. Keeps Jinja's marker that says whether it takes the context as an argument."""
        extra = 1 if hasattr(function, "jinja_pass_arg") else 0

        def metered(*args: Any, **kwargs: Any) -> Any:
            self.meter.tick()
            if len(args) > extra:
                rest = estimate_call(self.meter, name, args[extra], args[extra + 1 :], kwargs)
                if name in READ_WHOLE and not isinstance(args[extra], (str, Mapping, jinja2.Undefined)):
                    args = (*args[:extra], self.meter.count_list(list(self.meter.watched(args[extra]))), *rest)
            made = function(*args, **kwargs)
            return self.meter.watched(made) if isinstance(made, GeneratorType) else self.meter.count(made)

        if extra:
            metered.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return metered

    def _join(self, value: Any, d: Any = "", attribute: Any = None) -> str:
        """Jinja's `join`, with a tick for each element."""
        items = list(self.meter.watched(value))
        separator = marked(str(d))
        self.meter.estimate(self.meter.size(items) + len(separator) * len(items))
        if attribute is not None:
            items = list(map(jinja2.filters.make_attrgetter(self, attribute), items))
        return separator.join(map(str, items))

    def _to_json(
        self, x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        """json.dumps with the options that `transformers` offers, measured piece by piece."""
        self.meter.tick()
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys,
        )  # fmt: skip
        if (isinstance(indent, int) and indent > 100) or len(str(indent)) + len(str(separators)) > 100:
            raise SecurityError("it indents JSON too far")
        return str(self.meter.count("".join(self._gathered(encoder.iterencode(x)))))

    def _written(self, value: Any) -> str:
        """The text of an output expression; new text is counted."""
        self.meter.tick()
        if isinstance(value, str):
            return value
        self.meter.size(value)
        return str(self.meter.count(str(value)))

    def _concat(self, pieces: Iterable[str]) -> str:
        """Join the pieces of output, of a macro or of a block."""
        return str(self.meter.count(joined(self._gathered(pieces))))

    def _gathered(self, pieces: Iterable[str]) -> list[str]:
        """The pieces as a list; stops as soon as they are too long together."""
        kept, total = [], 0
        for piece in pieces:
            kept.append(piece)
            total += len(piece)
            if total > self.meter.characters:
                raise SecurityError(f"its output is more than {self.meter.characters:,} characters")
        return kept


class CompiledTemplate:
    """A template that can be rendered within limits. Threads may share it; they take turns."""

    def __init__(self, source: str, limits: RenderLimits) -> None:
        """TemplateError for a source that isn't a template or is too long."""
        self._limits, self._source = limits, source
        self._lock = threading.Lock()
        if len(source) > LARGEST_SOURCE:
            raise TemplateError(f"the chat template has {len(source):,} characters; the limit is {LARGEST_SOURCE:,}")
        try:
            self._environment = _Environment(limits)
            self._template = self._environment.from_string(source)
        except ERRORS as error:
            raise TemplateError(f"the chat template can't be compiled: {_reason(error)}") from None

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that it wants to know from outside, and may do without."""
        return frozenset(jinja2.meta.find_undeclared_variables(self._environment.parse(self._source)))

    def meter(self) -> Meter:
        """A new meter with the template's limits, for one rendering or for several that share them."""
        return Meter(self._limits)

    def render(self, variables: Mapping[str, Any], meter: Meter | None = None) -> str:
        """Render the template with these variables, which must be plain data (text in it may be `Marked`).

        meter: counts what is spent; None: a new one. TemplateError if the template fails or exceeds a limit; its
        message quotes at most a line of the data.
        """
        with self._lock:
            self._environment.meter = self.meter() if meter is None else meter
            context = self._template.new_context(dict(variables))
            try:
                return self._environment.concat(self._template.root_render_func(context))
            except SecurityError as error:
                raise TemplateError(f"the chat template was stopped: {plain(error)}") from None
            except _RefusedError as error:
                raise TemplateError(f"the chat template refuses the conversation: {plain(error)}") from None
            except ERRORS as error:
                raise TemplateError(f"the chat template fails on this conversation: {_reason(error)}") from None


class _RefusedError(jinja2.TemplateError):
    """What `raise_exception` raises."""


def _owned(value: Any) -> Any:
    """A new list as one of the template's; any other value is unchanged."""
    return _Own(value) if type(value) is list else value


def _reason(error: BaseException) -> str:
    line = getattr(error, "lineno", None)
    text = plain(error) or "it is too much for Python"
    return f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")


def _refuse(message: object) -> None:
    raise _RefusedError(str(message))


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _metered_node(node: Any) -> Any:
    """Wrap an expression that makes a value, if Jinja has no hook for it, in a filter; anything else is unchanged."""
    if isinstance(node, nodes.Concat):
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), CONCATENATED)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return _filtered(node, SLICED)
    if isinstance(node, (nodes.List, nodes.Dict)) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
        return _filtered(node, MEASURED)
    return node
