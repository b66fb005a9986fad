"""Conversations over HTTP: list, read, change, delete, export, import."""

import re
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

import sotol
from sotol.conversations import Conversation, Conversations, exported, imported, markdown
from sotol.conversations.exporting import Whole
from sotol.engine.options import Sampling
from sotol.server.answering import answer, dumps
from sotol.server.body import read_json
from sotol.server.problems import Problem, refusing
from sotol.server.ui.fields import Change, NewConversation, conversation_json, message_json, settings_of
from sotol.server.ui.page import Page, check_origin

__all__ = [
    "about", "begin", "bring", "change", "delete", "every", "everything", "export", "one", "stop",
]  # fmt: skip

LISTED, MOST = 50, 200  # conversations of a list
SEARCHED = 400  # characters of a search
CURSOR = re.compile(r"(\d{1,16})-([0-9a-f]{1,64})")
SHOWN = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty")


async def about(page: Page, http: Request) -> Response:
    """The version, and what holds where settings say nothing."""
    check_origin(http)
    served = next(iter(page.service.models), None)
    sampling = Sampling() if served is None else served.sampling
    defaults = {name: getattr(sampling, name) for name in SHOWN}
    return answer({"version": sotol.__version__, "defaults": defaults})


async def every(page: Page, http: Request) -> Response:
    """A page of the list: those that changed last first, or of them those with all words of a search."""
    check_origin(http)
    asked, owner = http.query_params, page.owner(http)
    search, limit = asked.get("search", "")[:SEARCHED], asked.get("limit", str(LISTED))
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= MOST:
        raise Problem(400, f"Invalid 'limit': give a whole number from 1 to {MOST}", param="limit")
    before = None
    if (cursor := asked.get("before")) is not None:
        found = CURSOR.fullmatch(cursor)
        if found is None:
            raise Problem(400, "Invalid 'before': give the 'next' of an earlier answer", param="before")
        before = Conversation(found[2], "", "", {}, None, 0, int(found[1]))
    count = int(limit)
    listed = await page.kept(lambda db: db.listed(owner, search, before, count + 1))
    shown = listed[:count]
    last = shown[-1].conversation if len(listed) > count else None
    items = [{**conversation_json(found.conversation), "excerpt": found.excerpt} for found in shown]
    return answer({"conversations": items, "next": None if last is None else f"{last.changed}-{last.id}"})


async def begin(page: Page, http: Request) -> Response:
    """A new conversation."""
    request, owner = await page.read(http, NewConversation), page.owner(http)
    made = await page.kept(lambda db: db.begin(owner, "", request.model, request.settings.kept()))
    return answer(conversation_json(made), 201)


async def one(page: Page, http: Request) -> Response:
    """A conversation with all of its messages."""
    check_origin(http)
    running = set(page.running)  # before the read: what is not among them any more has been written
    conversation, messages = await page.kept(lambda db: _whole(db, page.owner(http), http.path_params["id"]))
    shown = [message_json(message, running=message.id in running) for message in messages]
    return answer({**conversation_json(conversation), "messages": shown})


async def change(page: Page, http: Request) -> Response:
    """Rename, choose another model, other settings, another branch."""
    request, owner = await page.read(http, Change), page.owner(http)
    settings = None if request.settings is None else request.settings.kept()

    def act(db: Conversations) -> Conversation:
        id_, title = http.path_params["id"], request.title
        return db.change(owner, id_, title=title, model=request.model, settings=settings, leaf=request.leaf)

    return answer(conversation_json(await page.kept(act)))


async def delete(page: Page, http: Request) -> Response:
    """Delete a conversation."""
    check_origin(http)
    await page.kept(lambda db: db.delete(page.owner(http), http.path_params["id"]))
    return answer({"deleted": True})


async def stop(page: Page, http: Request) -> Response:
    """Stop an answer: its stream ends with what there is."""
    check_origin(http)
    owner, run = page.running.get(http.path_params["id"], (None, None))
    if run is None or owner != page.owner(http):
        return answer({"stopped": False})
    run.close()
    return answer({"stopped": True})


async def export(page: Page, http: Request) -> Response:
    """A conversation as a file: form is json, with all branches, or markdown, the branch that is shown."""
    check_origin(http)
    form = http.query_params.get("form", "json")
    if form not in ("json", "markdown"):
        raise Problem(400, "Invalid 'form': give json or markdown", param="form")
    whole = await page.kept(lambda db: _whole(db, page.owner(http), http.path_params["id"]))
    name = whole[0].title or "Conversation"
    if form == "markdown":
        return _file(markdown(*whole), f"{name}.md", "text/markdown; charset=utf-8")
    return _file(dumps(exported([whole])), f"{name}.json", "application/json")


async def everything(page: Page, http: Request) -> Response:
    """All conversations as one file."""
    check_origin(http)
    owner = page.owner(http)

    def act(db: Conversations) -> str:
        return dumps(exported(_whole(db, owner, found.conversation.id) for found in db.listed(owner, limit=-1)))

    return _file(await page.kept(act), "sotol-conversations.json", "application/json")


async def bring(page: Page, http: Request) -> Response:
    """Take in what an export gave; the conversations get new ids."""
    check_origin(http)
    if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "the content-type must be application/json", code="unsupported_media_type")
    data: Any = await read_json(http.headers, http.receive, page.service.limits.body_bytes)
    with refusing():
        read = await page.service.prepare.run(lambda: imported(data))
    for number, (conversation, _) in enumerate(read):
        settings_of(conversation.settings, f"conversations[{number}].settings")
    owner = page.owner(http)
    made = await page.kept(lambda db: [db.put(owner, conversation, messages) for conversation, messages in read])
    return answer({"conversations": [conversation_json(conversation) for conversation in made]}, 201)


def _whole(db: Conversations, owner: str, id_: str) -> Whole:
    return db.get(owner, id_), db.messages(owner, id_)


def _file(text: str, name: str, kind: str) -> Response:
    """A file to save; its name as RFC 6266 has it."""
    plain = re.sub(r"[^\w .-]", "_", name, flags=re.ASCII)
    headers = {
        "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
        "cache-control": "no-store",
    }
    return Response(text.encode(errors="replace"), 200, headers, kind)
