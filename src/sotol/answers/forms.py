"""The ways in which models write calls, as data: four mechanisms, which a format's rows fill with their markers.

Markers are as the model writes them, with their line breaks; who reads them minds no white space at their ends. The
first form of a format is the one that its template teaches, later ones are what its models write besides.
"""

from typing import Literal, NamedTuple, TypeAlias

__all__ = ["TEXT", "AnswerFormat", "CallForm", "JsonCalls", "NamedCalls", "PythonCalls", "TaggedCalls", "Thinking"]


class JsonCalls(NamedTuple):
    """Objects with a name and arguments, between markers: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

    listed: as a JSON list; both are read, and several objects one after the other. name, arguments: the keys, the first
    as it is written. id: the key of an id, if models give one. strict: what follows `open` may as well be no call, so
    other keys before the name make it text; "" opens at the beginning of any line.
    """

    open: str
    close: str = ""
    listed: bool = False
    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments", "parameters")
    id: str = ""
    strict: bool = False

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call can begin with."""
        return (self.open,)

    @property
    def markers(self) -> tuple[str, ...]:
        """All of its markers."""
        return (self.open, self.close)


class NamedCalls(NamedTuple):
    """A name, a separator and the arguments as JSON, for each call: `[TOOL_CALLS]name[ARGS]{…}`.

    open, close: around all calls. begin, separator, end: around each name and its arguments. id: the marker of an id
    between name and separator. name: a pattern for what stands there, with a group "name"; what matches is the id, too.
    """

    begin: str
    separator: str
    end: str = ""
    open: str = ""
    close: str = ""
    id: str = ""
    name: str = ""

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call can begin with; models forget what is around all of them."""
        return (self.open, self.begin) if self.open else (self.begin,)

    @property
    def markers(self) -> tuple[str, ...]:
        """All of its markers."""
        return (self.open, self.begin, self.id, self.separator, self.end, self.close)


class TaggedCalls(NamedTuple):
    """A name, and each argument between tags, as the text that it is:
    `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.

    open, close: around a call, or all. begin, name_end, end: around each; begin may be "". key, key_end, value,
    value_end: around the parts of an argument; value may be "".
    """

    open: str
    close: str
    begin: str
    name_end: str
    end: str
    key: str
    key_end: str
    value: str
    value_end: str

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call can begin with; models forget what is around."""
        return (self.open, self.begin) if self.open and self.begin else (self.open or self.begin,)

    @property
    def markers(self) -> tuple[str, ...]:
        """All of its markers."""
        return tuple(self)


class PythonCalls(NamedTuple):
    """Calls as Python writes them: `[name(key="value"), other()]`. code: names of tools that take any other text, as
    the one argument "code".
    """

    open: str
    close: str = ""
    code: tuple[str, ...] = ()

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call can begin with."""
        return (self.open,)

    @property
    def markers(self) -> tuple[str, ...]:
        """All of its markers."""
        return (self.open, self.close)


CallForm: TypeAlias = JsonCalls | NamedCalls | TaggedCalls | PythonCalls


class Thinking(NamedTuple):
    """What reasoning stands between."""

    open: str
    close: str


class AnswerFormat(NamedTuple):
    """How a model writes its answers.

    thinking: what reasoning stands between, if the model thinks. silent: markers that say nothing. ids: which ids calls
    get that have none: OpenAI's "call_…", or nine letters and digits.
    """

    name: str
    calls: tuple[CallForm, ...] = ()
    thinking: tuple[Thinking, ...] = ()
    silent: tuple[str, ...] = ()
    ids: Literal["long", "nine"] = "long"

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts that are no part of what is said, called or thought; without marks too short to be that."""
        of_calls = [marker for form in self.calls for marker in form.markers]
        of_thinking = [marker for pair in self.thinking for marker in pair]
        texts = [text.strip() for text in (*self.silent, *of_thinking, *of_calls)]
        return tuple(dict.fromkeys(text for text in texts if len(text) > 2))


TEXT = AnswerFormat("text")
