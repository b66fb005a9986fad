"""What requests of the page may say."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from sotol.conversations import Conversation, Message
from sotol.conversations.records import TITLE
from sotol.errors import plain
from sotol.server.openai.fields import SEEDS, Stop, Strict, Text
from sotol.server.openai.messages import Tool
from sotol.server.problems import Problem

__all__ = [
    "AnswerRequest",
    "Change",
    "NewConversation",
    "Result",
    "Settings",
    "conversation_json",
    "message_json",
    "settings_of",
]

Title = Annotated[str, Field(max_length=TITLE)]
Id = Annotated[int, Field(ge=1, lt=2**63)]


class Settings(Strict):
    """With what a conversation's answers are asked. What is missing is the server's default.

    think: whether a model that can do either thinks before it answers. json_schema: the answer is JSON, and follows
    it; an empty schema asks for any object.
    """

    system: str | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] | None = None
    stop: Annotated[list[Stop], Field(max_length=16)] | None = None
    think: bool | None = None
    json_schema: dict[str, JsonValue] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None

    def kept(self) -> dict[str, Any]:
        """What is set, as JSON."""
        return self.model_dump(exclude_none=True)

    def changes(self) -> dict[str, Any]:
        """Fields of `Sampling` that are set."""
        own = {"system", "think", "json_schema", "tools"}
        given = {name: value for name, value in self.kept().items() if name not in own}
        if self.json_schema is not None:
            given |= {"schema": self.json_schema} if self.json_schema else {"json": True}
        return given


def settings_of(kept: Mapping[str, Any], where: str = "settings") -> Settings:
    """Settings that were kept; Problem for those of another version, or of a file that somebody wrote."""
    try:
        return Settings.model_validate(dict(kept))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(map(str, (where, *first["loc"])))
        raise Problem(400, f"{plain(name, 200)}: {plain(first['msg'], 200)}", param=plain(name, 200)) from None


class NewConversation(Strict):
    """A conversation that begins."""

    model: Text = ""
    settings: Settings = Settings()


class Change(Strict):
    """What is to change of a conversation. leaf: the last message of the branch to show."""

    title: Title | None = None
    model: Text | None = None
    settings: Settings | None = None
    leaf: Id | None = None


class Result(Strict):
    """What a tool gave, to the call of this id."""

    call: Text
    content: str


class AnswerRequest(Strict):
    """Asks for an answer below `parent`, which is None at the beginning.

    content: a message of the user's to put between. results: those of the tools that the parent calls. Neither: the
    parent is answered, again if it was before.
    """

    parent: Id | None = None
    content: str | None = None
    results: Annotated[list[Result], Field(max_length=128)] | None = None


def conversation_json(conversation: Conversation) -> dict[str, Any]:
    """A conversation as the page sees it."""
    return {**conversation._asdict(), "settings": dict(conversation.settings)}


def message_json(message: Message, *, running: bool = False) -> dict[str, Any]:
    """A message as the page sees it. running: whether it is being written; else nobody writes it any more."""
    lost = message.status == "streaming" and not running
    return {**message._asdict(), "details": dict(message.details), "status": "stopped" if lost else message.status}
