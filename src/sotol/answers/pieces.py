"""The pieces of an answer, in the order in which they come."""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

__all__ = ["CallArguments", "CallBegun", "Content", "Piece", "Reasoning", "ToolCall"]


class Content(NamedTuple):
    """What the answer says."""

    text: str


class Reasoning(NamedTuple):
    """What the model thinks before that."""

    text: str


class CallBegun(NamedTuple):
    """A tool call, whose arguments follow. call: its number among the answer's, from 0."""

    call: int
    id: str
    name: str


class CallArguments(NamedTuple):
    """More of a call's arguments: JSON, as text."""

    call: int
    text: str


Piece: TypeAlias = Content | Reasoning | CallBegun | CallArguments


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model calls. arguments: JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str
