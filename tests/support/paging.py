"""Asking what the chat page asks."""

import json
from typing import Any

import httpx

__all__ = ["answered", "begun", "events"]


def begun(http: httpx.Client, **settings: Any) -> str:
    """The id of a new conversation."""
    made = http.post("/ui/api/conversations", json={"model": "model", "settings": settings})
    assert made.status_code == 201
    return str(made.json()["id"])


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream."""
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def answered(http: httpx.Client, id_: str, parent: int | None, content: str | None = None, **more: Any) -> Any:
    """The messages that asking gives, the answer last."""
    body = {"parent": parent, **({} if content is None else {"content": content}), **more}
    answer = http.post(f"/ui/api/conversations/{id_}/answers", json=body)
    assert answer.status_code == 200, answer.text
    first, *_, last = events(answer)
    assert (first["type"], last["type"]) == ("begin", "end")
    return [*first["messages"][:-1], last["message"]]
