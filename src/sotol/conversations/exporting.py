"""Conversations as files: JSON that comes back as it was, and Markdown to read."""

from collections.abc import Iterable, Sequence
from typing import Any

from sotol.conversations.records import ROLES, STATUSES, Conversation, Message, branch

__all__ = ["exported", "imported", "markdown"]

FORMAT, VERSION = "sotol-conversations", 1
NAMES = {"user": "You", "assistant": "Answer", "tool": "Tool"}
KINDS = {"str": "a text", "list": "a list", "dict": "an object"}
LEAST_FENCE = 3
NUMBER = (int, float)
DETAILS: dict[str, Any] = {
    "model": str, "finish": str, "seed": str, "error": str, "call": str, "context": int, "speed": NUMBER,
    "waited": NUMBER, "usage": dict, "calls": list,
}  # fmt: skip

Whole = tuple[Conversation, Sequence[Message]]


def exported(conversations: Iterable[Whole]) -> dict[str, Any]:
    """Conversations with all of their branches, as JSON. Messages are numbered by their places."""
    return {"format": FORMAT, "version": VERSION, "conversations": [_conversation(*whole) for whole in conversations]}


def imported(value: Any) -> list[tuple[Conversation, list[Message]]]:
    """What `exported` gave; ids are places in the file. ValueError says what is wrong, and where."""
    if not isinstance(value, dict):
        raise ValueError("the file must be a JSON object, as an export gives it")
    if value.get("sotol") == 1 and "turns" in value:
        return [_turns(value)]
    if value.get("format") != FORMAT:
        raise ValueError(f'format is {value.get("format")!r:.40}; the file must be an export: "{FORMAT}"')
    if value.get("version") != VERSION:
        raise ValueError(f"version is {value.get('version')!r:.40}; this sotol reads version {VERSION}")
    listed = _field(value, "conversations", list, "")
    return [_read(one, f"conversations[{i}]") for i, one in enumerate(listed)]


def markdown(conversation: Conversation, messages: Iterable[Message]) -> str:
    """The branch that is shown, to read."""
    parts = [f"# {conversation.title or 'Conversation'}"]
    system = conversation.settings.get("system")
    if isinstance(system, str) and system:
        parts.append("> " + system.replace("\n", "\n> "))
    for message in branch(messages, conversation.leaf):
        model = message.details.get("model")
        parts.append(f"## {NAMES[message.role]}" + (f" ({model})" if model else ""))
        if message.reasoning:
            parts.append(f"<details><summary>Reasoning</summary>\n\n{_fenced(message.reasoning)}\n\n</details>")
        if message.content:
            parts.append(message.content)
        calls = message.details.get("calls") or ()
        parts += [f"Calls `{call['name']}`:\n\n{_fenced(call['arguments'], 'json')}" for call in calls]
    return "\n\n".join(parts) + "\n"


def _fenced(text: str, language: str = "") -> str:
    longest = max((len(run) for run in "".join(c if c == "`" else " " for c in text).split()), default=0)
    fence = "`" * max(LEAST_FENCE, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _conversation(conversation: Conversation, messages: Sequence[Message]) -> dict[str, Any]:
    places = {message.id: place for place, message in enumerate(messages)}
    return {
        "title": conversation.title,
        "model": conversation.model,
        "settings": dict(conversation.settings),
        "created": conversation.created,
        "changed": conversation.changed,
        "leaf": None if conversation.leaf is None else places[conversation.leaf],
        "messages": [
            {
                "parent": None if message.parent is None else places[message.parent],
                "role": message.role,
                "content": message.content,
                "reasoning": message.reasoning,
                "details": dict(message.details),
                "status": "stopped" if message.status == "streaming" else message.status,
                "created": message.created,
            }
            for message in messages
        ],
    }


def _read(value: Any, where: str) -> tuple[Conversation, list[Message]]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object")
    messages = []
    for place, one in enumerate(_field(value, "messages", list, where)):
        at = f"{where}.messages[{place}]"
        if not isinstance(one, dict):
            raise ValueError(f"{at} must be an object")
        parent = _place(one, "parent", place, at)
        role, status = _field(one, "role", str, at), _field(one, "status", str, at)
        if role not in ROLES or status not in STATUSES or status == "streaming":
            raise ValueError(f"{at} has the role {role!r:.40} and the status {status!r:.40}, which an export never has")
        content, reasoning = _field(one, "content", str, at), _field(one, "reasoning", str, at)
        details = _details(_field(one, "details", dict, at), at)
        messages.append(Message(place, parent, role, content, reasoning, details, status, _time(one, "created", at)))
    conversation = Conversation(
        "",
        _field(value, "title", str, where),
        _field(value, "model", str, where),
        _field(value, "settings", dict, where),
        _place(value, "leaf", len(messages), where),
        _time(value, "created", where),
        _time(value, "changed", where),
    )
    return conversation, messages


def _details(details: dict[str, Any], at: str) -> dict[str, Any]:
    """What is known of an answer, and of the type that readers rely on; nothing else."""
    calls = details.get("calls", [])
    texts = isinstance(calls, list) and all(
        isinstance(call, dict) and all(isinstance(call.get(name), str) for name in ("id", "name", "arguments"))
        for call in calls
    )
    if not texts:
        raise ValueError(f"{at}.details.calls must be a list of objects with an id, a name and arguments, all texts")
    known = {name: value for name, value in details.items() if _is(value, DETAILS.get(name))}
    usage = known.get("usage", {"prompt": 0, "completion": 0})
    if not {"prompt", "completion"} <= usage.keys() or not all(_is(count, int) for count in usage.values()):
        raise ValueError(f"{at}.details.usage must have prompt and completion, and whole numbers")
    return known


def _is(value: object, kind: Any) -> bool:
    """Whether a value is of a type, or of one of several; true and false are no numbers, and None is no type."""
    return kind is not None and isinstance(value, kind) and not isinstance(value, bool)


def _turns(value: dict[str, Any]) -> tuple[Conversation, list[Message]]:
    """What `/save` wrote before there was a database."""
    turns, system = _field(value, "turns", list, ""), value.get("system")
    messages = []
    for place, turn in enumerate(turns):
        at = f"turns[{place}]"
        if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant"):
            raise ValueError(f"{at} must be an object with a role and content")
        thought = turn.get("reasoning_content", "")
        parent = place - 1 if place else None
        if not isinstance(thought, str):
            raise ValueError(f"{at}.reasoning_content must be a text")
        content = _field(turn, "content", str, at)
        messages.append(Message(place, parent, turn["role"], content, thought, {}, "complete", 0))
    settings = {"system": system} if isinstance(system, str) else {}
    leaf = len(turns) - 1 if turns else None
    return Conversation("", "", _field(value, "model", str, ""), settings, leaf, 0, 0), messages


def _field(value: dict[str, Any], name: str, kind: type[Any], where: str) -> Any:
    found = value.get(name)
    if not isinstance(found, kind):
        raise ValueError(f"{where}{'.' if where else ''}{name} must be {KINDS[kind.__name__]}")
    if isinstance(found, str):
        try:
            found.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{where}.{name} has half a surrogate pair, which is no text") from None
    return found


def _place(value: dict[str, Any], name: str, before: int, where: str) -> int | None:
    place = value.get(name)
    if place is not None and (type(place) is not int or not 0 <= place < before):
        raise ValueError(f"{where}.{name} must be null or the place of an earlier message, below {before}")
    return place


def _time(value: dict[str, Any], name: str, where: str) -> int:
    time = value.get(name)
    if type(time) is not int or not 0 <= time < 2**53:
        raise ValueError(f"{where}.{name} must be a time in milliseconds")
    return time
