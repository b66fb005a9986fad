"""Conversations that are kept: trees of messages in one database file of the user. Knows nothing of models or HTTP."""

from sotol.conversations.database import Conversations, default_path
from sotol.conversations.exporting import exported, imported, markdown
from sotol.conversations.file import DatabaseFile
from sotol.conversations.records import Conversation, Found, Message, NewMessage, branch, title_of
from sotol.conversations.responses import Responses

__all__ = [
    "Conversation",
    "Conversations",
    "DatabaseFile",
    "Found",
    "Message",
    "NewMessage",
    "Responses",
    "branch",
    "default_path",
    "exported",
    "imported",
    "markdown",
    "title_of",
]
