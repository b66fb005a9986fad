"""Reads an answer while it streams: text in, in any cuts; pieces out, the same in sum however it is cut.

What is said is the text without reasoning and calls. White space around them is not said: the line breaks behind
reasoning, those before and behind calls, and what is at the ends of an answer with calls. Reasoning comes first in an
answer: later, its markers are text, and within it those of calls are. What only looks like a call is text, from its
marker on; so is a call of a tool that there is not. An answer of several messages is reasoning, calls and what is said
in any order, by their headers; what is said in two messages has an empty line between.
"""

import os
import re
import string
from collections.abc import Callable, Sequence
from itertools import groupby

from sotol.answers.caller import json_arguments
from sotol.answers.calls import read_calls
from sotol.answers.forms import AnswerFormat, CallForm, Header, JsonCalls, Messages, PythonCalls
from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning
from sotol.answers.source import Malformed, Markers, Reading, Source
from sotol.answers.tools import Tool

__all__ = ["AnswerParser"]

NINE = string.ascii_letters + string.digits


class AnswerParser:
    """Reads one answer.

    tools: those that may be called; without any, calls are text. thinking: the prompt has opened a thinking block.
    hidden: markers that are control tokens here, which content never shows. parallel: whether calls after the first
    are given; else they are dropped. ids: makes the id of a call whose format has none.
    """

    def __init__(
        self,
        format_: AnswerFormat,
        tools: Sequence[Tool] = (),
        *,
        thinking: bool = False,
        hidden: frozenset[str] = frozenset(),
        parallel: bool = True,
        ids: Callable[[], str] | None = None,
    ) -> None:
        self.source = Source()
        self.reasoning = thinking  # whether the model is thinking, as far as it is known
        self._format, self._tools, self._thinking = format_, {tool.name: tool for tool in tools}, thinking
        self._parallel = parallel
        self._ids = ids or (_long_id if format_.ids == "long" else _nine)
        self._given: set[str] = set()  # ids
        self._calls = 0
        self._out: list[Piece] = []
        self._space: list[str] = []  # at the end of what was said so far; said if more is
        self._between = ""  # messages
        self._spoken = False
        self._line_is_blank = True  # the one that is being said, so far
        messages = format_.messages
        headed = messages is not None and any(header.kind == "call" for header in messages.headers)
        self._forms: dict[str, list[CallForm]] = {}
        for form in format_.calls if tools and not headed else ():
            for opener in form.openers:
                self._forms.setdefault(opener.strip(), []).append(form)
        bare = self._forms.pop("", [])
        objects: list[CallForm] = [form for form in bare if isinstance(form, JsonCalls)]
        self._bare = {"{": objects, "[": bare} if bare else dict[str, list[CallForm]]()
        self._held = bool(self._forms or bare)  # white space at the end of what is said
        self.hidden = Markers(hidden)
        self._ends = frozenset(() if messages is None else (*messages.ends, messages.start))
        bare_marks = [mark for mark, forms in self._bare.items() if forms]
        self._marks = Markers([*self._forms, *format_.silent, *self._ends, *hidden, *bare_marks])
        self.outside = Markers(['"', *"{}[]", *format_.markers, *hidden])
        self.inside = Markers(['"', "\\", *hidden])
        self._run = self._answer()
        next(self._run, None)

    def push(self, text: str) -> list[Piece]:
        """What more text gives, but for what is ambiguous until more comes."""
        if text:
            self.source.add(text)
            next(self._run, None)
        return self._delivered()

    def finish(self) -> list[Piece]:
        """The rest, at the end of the answer."""
        self.source.end()
        next(self._run, None)
        return self._delivered()

    def _delivered(self) -> list[Piece]:
        """What came out since, pieces of one kind as one."""
        pieces: list[Piece] = []
        for (kind, call), group in groupby(self._out, lambda piece: (type(piece), getattr(piece, "call", -1))):
            if kind is CallBegun:
                pieces += group
                continue
            text = "".join(piece.text for piece in group if not isinstance(piece, CallBegun))
            pieces.append(
                CallArguments(call, text) if kind is CallArguments
                else Content(text) if kind is Content
                else Reasoning(text)
            )  # fmt: skip
        self._out = []
        return pieces

    # ---- what an answer is made of

    def _answer(self) -> Reading[None]:
        if self._format.messages is not None:
            yield from self._messages(self._format.messages)
        else:
            yield from self._think()
            yield from self._begun()
            yield from self._speak()
        if not self._calls:
            self._out.extend(map(Content, self._space))

    def _messages(self, messages: Messages) -> Reading[None]:
        """All messages, the first from behind its start."""
        source = self.source
        marks = Markers([messages.body, *self._ends])
        if self._thinking:
            yield from self._reason(self._ends, again=False)
        thought = self._thinking
        while True:
            source.taken.clear()
            yield from source.literal(messages.start)
            source.taken.clear()
            if not (yield from source.peek()):
                return
            try:
                written, mark = yield from source.until(marks)
            except Malformed:
                written, mark = "".join(source.taken), ""
            header = next((h for h in messages.headers if re.fullmatch(h.pattern, written)), None)
            if mark == messages.body:
                source.take(len(mark))
            if header is None or mark != messages.body:
                self._say(self.hidden.without(written))
            elif header.kind == "thought":
                yield from self._reason(self._ends, again=thought)
                thought = True
                continue
            elif header.kind == "call" and not (yield from self._called(header, written)):
                self._say(self.hidden.without(written))
            yield from self._speak()
            self._between = "\n\n" if self._spoken else ""

    def _called(self, header: Header, written: str) -> Reading[bool]:
        """A call that a header announces, from behind that; False if it is none."""
        found = re.fullmatch(header.pattern, written)
        assert found is not None
        if found["name"] not in self._tools or (yield from self.source.peek()) != "{":
            return False
        self.begin(self._tools[found["name"]], None)
        yield from json_arguments(self)
        yield from self.source.space()
        return True

    def _begun(self) -> Reading[None]:
        """The rest of a marker that the template has begun."""
        begun, source = self._format.begun, self.source
        if not begun:
            return
        yield from source.literal(begun)
        source.taken.clear()
        rests = [mark.removeprefix(begun) for mark in self._format.silent if mark.startswith(begun)]
        if not (yield from source.literal(*rests)) and begun in self._forms:
            yield from self._call(begun)
        source.taken.clear()

    def _think(self) -> Reading[None]:
        """Reasoning, if the answer begins with it; several blocks, if they follow each other."""
        source, pairs = self.source, self._format.thinking
        if not pairs:
            return
        opened, before = self._thinking, False
        while True:
            yield from source.space()
            found = yield from source.literal(*(pair.open for pair in pairs))
            if not opened and not found:
                text = "".join(source.taken)
                source.taken.clear()
                self._say(text.lstrip("\r\n") if before else text)
                return
            yield from self._reason(frozenset(pair.close for pair in pairs), again=before)
            opened, before = False, True

    def _reason(self, closers: frozenset[str], *, again: bool) -> Reading[None]:
        """A block, to its closing marker or the end, without the white space at its ends."""
        self.reasoning = True
        yield from self.source.space()
        self.source.taken.clear()
        marks = Markers([*closers, *self.hidden.texts])
        space: list[str] = ["\n\n"] if again else []

        def give(text: str) -> None:
            if kept := text.rstrip():
                self._out.extend(map(Reasoning, space))
                space.clear()
                self._out.append(Reasoning(kept))
            if len(kept) < len(text):
                space.append(text[len(kept) :])

        while (mark := (yield from self.source.flow(marks, give))) and mark not in closers:
            self.source.take(len(mark))
        self.source.take(len(mark))
        self.source.taken.clear()
        self.reasoning = False

    def _speak(self) -> Reading[None]:
        """What is said and called, to the end of the answer or of a message."""
        source = self.source
        while mark := (yield from source.flow(self._marks, self._say)):
            if mark in self._ends:
                if self._format.messages is None or mark != self._format.messages.start:
                    source.take(len(mark))
                source.taken.clear()
                return
            bare = mark in self._bare
            if bare and not self._line_is_blank:
                self._say(source.take(1))
            elif bare or mark in self._forms:
                source.taken.clear()
                if not bare:
                    source.take(len(mark))
                yield from self._call(mark)
            else:  # it says nothing
                source.take(len(mark))
            source.taken.clear()

    def _call(self, mark: str) -> Reading[None]:
        """Calls, from behind their marker on, or at a bare one's bracket; or else text."""
        source = self.source
        try:
            form = yield from self._chosen(mark)
            yield from read_calls(form, mark, self)
        except Malformed:
            self._say(self.hidden.without("".join(source.taken)))
            return
        source.taken.clear()
        yield from source.space()
        if self._spoken and not self._space:  # so that no words run together where a call stood between them
            self._space.append("".join(source.taken))

    def _chosen(self, mark: str) -> Reading[CallForm]:
        """Of the forms that open alike, the one that is meant: objects and lists look like nothing else."""
        forms = self._bare[mark] if mark in self._bare else self._forms[mark]
        if len(forms) > 1 and mark == "[":
            python = (yield from self.source.second()) != "{"
            return next(form for form in forms if isinstance(form, PythonCalls) == python)
        if len(forms) > 1:
            yield from self.source.space()
            json = (yield from self.source.peek()) in ("{", "[")
            return next((form for form in forms if isinstance(form, JsonCalls) == json), forms[0])
        return forms[0]

    # ---- what comes out

    def _say(self, text: str) -> None:
        """More content. White space waits for what follows it, if a call may follow."""
        if not self._held:
            if text:
                if self._between and text.strip():
                    text, self._between = self._between + text, ""
                self._spoken = self._spoken or bool(text.strip())
                self._out.append(Content(text))
            return
        _, line_break, line = text.rpartition("\n")
        self._line_is_blank = (self._line_is_blank or bool(line_break)) and not line.strip()
        kept = text.rstrip()
        if kept:
            self._spoken = True
            spaces, self._between = [*self._space, self._between], ""
            self._out.extend(Content(space) for space in spaces if space)
            self._space.clear()
            self._out.append(Content(kept))
        if len(kept) < len(text):
            self._space.append(text[len(kept) :])

    def tool(self, name: str) -> Tool:
        """See `Caller`."""
        if name not in self._tools:
            raise Malformed
        return self._tools[name]

    def begin(self, tool: Tool, given: str | None) -> None:
        """See `Caller`."""
        if not self._spoken:
            self._space.clear()
        self._calls += 1
        self._line_is_blank = True
        self.source.taken.clear()
        if self._parallel or self._calls == 1:
            id_ = given if given and given not in self._given else self._ids()
            self._given.add(id_)
            self._out.append(CallBegun(self._calls - 1, id_, tool.name))

    def give(self, arguments: str) -> None:
        """See `Caller`."""
        if arguments and (self._parallel or self._calls == 1):
            self._out.append(CallArguments(self._calls - 1, arguments))


def _long_id() -> str:
    """As OpenAI's service makes them."""
    return f"call_{os.urandom(12).hex()}"


def _nine() -> str:
    """As Mistral's templates demand them."""
    return "".join(NINE[byte % len(NINE)] for byte in os.urandom(9))
