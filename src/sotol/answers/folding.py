"""Pieces of an answer, put together again."""

from collections.abc import Iterable
from typing import NamedTuple

from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning, ToolCall

__all__ = ["Answer", "Fold", "fold"]


class Answer(NamedTuple):
    """A whole answer."""

    content: str
    reasoning: str
    calls: tuple[ToolCall, ...]


class Fold:
    """Takes pieces as they come; in time linear in them."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[CallBegun, list[str]]] = []

    def take(self, piece: Piece) -> None:
        """The next piece."""
        match piece:
            case Content(text):
                self._content.append(text)
            case Reasoning(text):
                self._reasoning.append(text)
            case CallBegun():
                self._calls.append((piece, []))
            case CallArguments(call, text):
                self._calls[call][1].append(text)

    @property
    def answer(self) -> Answer:
        """What has come so far."""
        calls = tuple(ToolCall(begun.id, begun.name, "".join(arguments)) for begun, arguments in self._calls)
        return Answer("".join(self._content), "".join(self._reasoning), calls)


def fold(pieces: Iterable[Piece]) -> Answer:
    """The answer of all its pieces."""
    folded = Fold()
    for piece in pieces:
        folded.take(piece)
    return folded.answer
