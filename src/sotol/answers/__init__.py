"""What a model writes in a chat, taken apart: its reasoning, what it says, and the tools that it calls.

A format is a row of data; the parser works while the answer streams. Knows text only: no token ids, no engine.
"""

from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning, ToolCall

__all__ = ["CallArguments", "CallBegun", "Content", "Piece", "Reasoning", "ToolCall"]
