"""The ways in which models write calls, as data: six mechanisms, which a format's rows fill with their markers.

Markers are as the model writes them, with their line breaks; who reads them minds no white space at their ends. The
first form of a format is the one that its template teaches, later ones are what its models write besides.
"""

from typing import Literal, NamedTuple, TypeAlias

__all__ = [
    "TEXT",
    "AnswerFormat",
    "CallForm",
    "ElementCalls",
    "Header",
    "JsonCalls",
    "Messages",
    "NamedCalls",
    "PythonCalls",
    "QuotedCalls",
    "TaggedCalls",
    "Thinking",
    "attribute",
]


class JsonCalls(NamedTuple):
    """Objects with a name and arguments, between markers: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

    listed: as a JSON list; both are read, and several objects one after the other. name, arguments: the keys, the first
    as it is written. id: the key of an id, if models give one. strict: what follows `open` may as well be no call, so
    other keys before the name make it text; "" opens at the beginning of any line. keyed: the name is itself the key of
    the arguments: `{"name": {…}}`.
    """

    open: str
    close: str = ""
    listed: bool = False
    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments", "parameters")
    id: str = ""
    strict: bool = False
    keyed: bool = False

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
    between name and separator. named: the marker between an id and the name behind it. name: a pattern for what stands
    there, with a group "name"; what matches is the id, too.
    """

    begin: str
    separator: str
    end: str = ""
    open: str = ""
    close: str = ""
    id: str = ""
    named: str = ""
    name: str = ""

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call can begin with; models forget what is around all of them."""
        return (self.open, self.begin) if self.open else (self.begin,)

    @property
    def markers(self) -> tuple[str, ...]:
        """All of its markers."""
        return (self.open, self.begin, self.named, self.id, self.separator, self.end, self.close)


class TaggedCalls(NamedTuple):
    """A name, and each argument between tags, as the text that it is:
    `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.

    open, close: around a call, or all. begin, name_end, end: around each; begin may be "". key, key_end, value,
    value_end: around the parts of an argument; value may be "". name_end and key_end may have an attribute between two
    texts: {index}, the call's number; {type}, JSON's name of the value's type; {string}, whether it is text ("true") or
    JSON ("false"). literal: what may stand around a value that is text, as CDATA does.
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
    literal: tuple[str, str] = ("", "")

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call can begin with; models forget what is around."""
        return (self.open, self.begin) if self.open and self.begin else (self.open or self.begin,)

    @property
    def markers(self) -> tuple[str, ...]:
        """All of its markers."""
        ends = [part for text in (self.name_end, self.key_end) for part in attribute(text)[::2]]
        return (self.open, self.close, self.begin, self.end, self.key, self.value, self.value_end, *ends, *self.literal)


class PythonCalls(NamedTuple):
    """Calls as Python writes them: `[name(key="value"), other()]`. code: names of tools that take any other text, as
    the one argument "code". open: "" is a list at the beginning of any line.
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


class QuotedCalls(NamedTuple):
    """A name, and an object like JSON's whose texts stand between marks and whose keys have none:
    `<|tool_call>call:name{key:<|"|>text<|"|>,other:[1]}<tool_call|>`.
    """

    open: str
    close: str
    quote: str

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call can begin with."""
        return (self.open,)

    @property
    def markers(self) -> tuple[str, ...]:
        """All of its markers."""
        return (self.open, self.close, self.quote)


class ElementCalls(NamedTuple):
    """A name, and arguments as elements, of any depth: `<invoke name="name"><key>text</key><list><item>1</item></list>
    </invoke>`, with a mark before each tag.

    open, close: around all calls. begin, name_end, end: around each. mark: before a tag. item: the tag of what is in a
    list.
    """

    open: str
    close: str
    begin: str
    name_end: str
    end: str
    mark: str
    item: str = "item"

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call can begin with; models forget what is around."""
        return (self.open, self.begin)

    @property
    def markers(self) -> tuple[str, ...]:
        """All of its markers."""
        return (self.open, self.close, self.begin, self.name_end, self.end, self.mark)


CallForm: TypeAlias = JsonCalls | NamedCalls | TaggedCalls | PythonCalls | QuotedCalls | ElementCalls


def attribute(text: str) -> tuple[str, str, str]:
    """What stands before an attribute, its name, and what stands behind it; all of a text without one is before."""
    before, brace, rest = text.partition("{")
    name, _, behind = rest.partition("}")
    return (before, name, behind) if brace else (text, "", "")


class Thinking(NamedTuple):
    """What reasoning stands between. sign: what a template has of it, where it does not write the marks as they are."""

    open: str
    close: str
    sign: str = ""


class Header(NamedTuple):
    """How a message begins, as a pattern, and what it is then: reasoning, a call of the group "name", or said."""

    pattern: str
    kind: Literal["thought", "call", "said"]


class Messages(NamedTuple):
    """An answer of several messages, each with a header: `<|start|>assistant<|channel|>final<|message|>Hello.<|end|>`.

    start: what begins one; the prompt has begun the first. body: what ends its header. ends: what ends it. headers: the
    first that matches says what it is; one that none matches is text. tokens: what else headers have. lead: the header
    of one with calls, where the call itself does not write it; {name} is the tool's.
    """

    start: str
    body: str
    ends: tuple[str, ...]
    headers: tuple[Header, ...]
    tokens: tuple[str, ...] = ()
    lead: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        """All of its markers."""
        return (self.start, self.body, *self.ends, *self.tokens)


class AnswerFormat(NamedTuple):
    """How a model writes its answers.

    thinking: what reasoning stands between, if the model thinks. silent: markers that say nothing. ids: which ids calls
    get that have none: OpenAI's "call_…", or nine letters and digits. messages: for answers of several. said: what
    models write around what they say. between: what they write between reasoning and that, or calls. begun: what the
    template has written of the first marker.
    """

    name: str
    calls: tuple[CallForm, ...] = ()
    thinking: tuple[Thinking, ...] = ()
    silent: tuple[str, ...] = ()
    ids: Literal["long", "nine"] = "long"
    messages: Messages | None = None
    said: tuple[str, str] = ("", "")
    between: str = ""
    begun: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts that are no part of what is said, called or thought; without marks too short to be that."""
        of_calls = [marker for form in self.calls for marker in form.markers]
        of_thinking = [marker for pair in self.thinking for marker in pair[:2]]
        of_messages = () if self.messages is None else self.messages.markers
        texts = [text.strip() for text in (*self.silent, *of_messages, *of_thinking, *of_calls)]
        return tuple(dict.fromkeys(text for text in texts if len(text) > 2))

    @property
    def plain(self) -> bool:
        """Whether answers are text, and nothing in them is anything else."""
        return not (self.calls or self.thinking or self.silent or self.messages)


TEXT = AnswerFormat("text")
