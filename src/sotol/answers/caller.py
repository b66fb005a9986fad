"""What takes the calls that readers find, and the reader of arguments that are JSON already."""

from typing import Protocol

from sotol.answers.source import Markers, Reading, Source
from sotol.answers.tools import Tool

__all__ = ["Caller", "json_arguments"]


class Caller(Protocol):
    """What takes the calls that are read.

    hidden: markers that are control tokens, and so no part of any argument. outside, inside: what ends the tokens of
    arguments, and their strings.
    """

    source: Source
    hidden: Markers
    outside: Markers
    inside: Markers

    def tool(self, name: str) -> Tool:
        """The tool of that name. Malformed if there is none."""

    def begin(self, tool: Tool, given: str | None) -> None:
        """A call begins; what was taken belongs to it. given: the id that the model wrote."""

    def give(self, arguments: str) -> None:
        """More of its arguments."""


def json_arguments(caller: Caller) -> Reading[None]:
    """An object, given as it comes: to its last brace, to a marker that can't be part of it, or to the end."""
    source, depth = caller.source, 0
    while True:
        mark = yield from source.flow(caller.outside, caller.give)
        if mark == '"':
            caller.give(source.take(1))
            yield from _rest_of_string(caller)
        elif mark in ("{", "[", "}", "]"):
            caller.give(source.take(1))
            depth += 1 if mark in "{[" else -1
            if not depth:
                break
        else:
            break
    source.taken.clear()


def _rest_of_string(caller: Caller) -> Reading[None]:
    source = caller.source
    while (mark := (yield from source.flow(caller.inside, caller.give))) in ('"', "\\"):
        caller.give(source.take(1))
        if mark == '"':
            return
        if (yield from source.peek()):
            caller.give(source.take(1))
