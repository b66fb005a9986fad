"""Pieces become an answer again."""

from sotol.answers import CallArguments, CallBegun, Content, Piece, Reasoning, ToolCall
from sotol.answers.folding import Answer, Fold, fold


def test_pieces_add_up() -> None:
    pieces: list[Piece] = [
        Reasoning("a"), Reasoning("b"), Content("c"), CallBegun(0, "x", "f"), CallArguments(0, "{"), Content("d"),
        CallBegun(1, "y", "g"), CallArguments(0, "}"), CallArguments(1, "1"),
    ]  # fmt: skip
    assert fold(pieces) == Answer("cd", "ab", (ToolCall("x", "f", "{}"), ToolCall("y", "g", "1")))
    assert fold([]) == Answer("", "", ())
    folded = Fold()
    folded.take(Content("a"))
    assert folded.answer.content == "a"
    folded.take(Content("b"))
    assert folded.answer.content == "ab"
