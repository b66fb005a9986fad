"""/v1/responses: create, fetch, delete, and the items of the input."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from sotol.engine.options import Sampling
from sotol.results import Completion, Delta
from sotol.server.answering import LOADING, Streamed, answer, token
from sotol.server.models import Served
from sotol.server.openai.shapes import chat_logprobs
from sotol.server.problems import Problem
from sotol.server.responses.building import Building, Logprobs
from sotol.server.responses.fields import ResponseRequest
from sotol.server.responses.items import input_items, messages_of, tools_of
from sotol.server.running import Chat, Event
from sotol.server.service import Service
from sotol.server.store import Record

__all__ = ["create", "delete", "items", "retrieve"]

NAMES = {"max_tokens": "max_output_tokens", "schema": "text.format.schema", "json": "text.format"}
LISTED = 20  # items of the input, unless the client asks for more or fewer
MOST_LISTED = 100


async def create(service: Service, http: HttpRequest) -> Response:
    """Answer, and keep the answer unless the client does not want that."""
    request = await service.read(http, ResponseRequest, "openai")
    request.check()
    served = await service.find(http, request.model, comment=LOADING if request.stream else None)
    before: tuple[dict[str, Any], ...] = ()
    if request.previous_response_id is not None:
        before = (await _found(service, http, request.previous_response_id, "previous_response_id")).conversation
    new = await service.prepare.run(lambda: input_items(request))
    sampling = service.sampling(served, request.changes(), NAMES)
    tools, choice = tools_of(request)
    service.check_schema(tools, "tools")

    def chat() -> Chat:
        messages = messages_of((*before, *new), request.instructions)
        return Chat(messages, tools, choice, request.parallel_tool_calls is not False, request.template())

    turn = await service.prepare.turn(served, chat, sampling)
    run = service.start(http, served, [turn], sampling)

    def logprobs(delta: Delta) -> Logprobs:
        content: Logprobs = chat_logprobs(served.llm, delta.logprobs)["content"] if delta.logprobs else []
        return content

    building = Building(_head(request, served, sampling), logprobs)
    owner = service.owner(http)
    record = None if request.store is False else Record(owner, building.response, (*before, *new), len(new))
    events = _events(service, building, service.events(http, served, run), record)
    if request.stream:
        return Streamed(run, events, building.failed)
    await service.exhausted(http, run, events)
    return answer(building.response)


async def retrieve(service: Service, http: HttpRequest) -> Response:
    """A response that is kept."""
    if http.query_params.get("stream") == "true":
        raise Problem(400, "stream is not supported: the response is complete", param="stream")
    return answer((await _found(service, http, http.path_params["id"])).response)


async def delete(service: Service, http: HttpRequest) -> Response:
    """Forget a response. What continued it keeps what it has of it."""
    id_ = http.path_params["id"]
    await _found(service, http, id_)
    await service.responses.delete(service.owner(http), id_)
    return answer({"id": id_, "object": "response", "deleted": True})


async def items(service: Service, http: HttpRequest) -> Response:
    """What a response answers: the input of its request and of those before, the latest first unless order is asc."""
    record = await _found(service, http, http.path_params["id"])
    asked = http.query_params
    order, limit = asked.get("order", "desc"), asked.get("limit", str(LISTED))
    if order not in ("asc", "desc"):
        raise Problem(400, "Invalid 'order': give asc or desc", param="order")
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= MOST_LISTED:
        raise Problem(400, f"Invalid 'limit': give a whole number from 1 to {MOST_LISTED}", param="limit")
    listed = list(record.items if order == "asc" else reversed(record.items))
    if (after := asked.get("after")) is not None:
        place = next((i for i, item in enumerate(listed) if item["id"] == after), None)
        if place is None:
            raise Problem(400, "Invalid 'after': there is no such item", param="after")
        listed = listed[place + 1 :]
    page = listed[: int(limit)]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return answer({"object": "list", "data": page, **ends, "has_more": len(listed) > len(page)})


async def _events(
    service: Service, building: Building, events: AsyncIterator[Event], record: Record | None
) -> AsyncGenerator[str, None]:
    """The events of a stream. A response is kept before the client hears of its end."""
    yield "".join(building.begin())
    async for _, event in events:
        if not isinstance(event, Completion):
            if text := "".join(building.take(event)):
                yield text
            continue
        last = "".join(building.end(event))
        if record is not None:
            await service.responses.put(record)
        yield last


async def _found(service: Service, http: HttpRequest, id_: str, param: str | None = None) -> Record:
    """A response that the client has made; Problem if there is none."""
    record = await service.responses.get(service.owner(http), id_)
    if record is None:
        status, code = (404, None) if param is None else (400, "previous_response_not_found")
        raise Problem(status, f"Response with id '{id_[:80]}' not found.", param=param or "id", code=code)
    return record


def _head(request: ResponseRequest, served: Served, sampling: Sampling) -> dict[str, Any]:
    """A response without output."""
    effort = request.reasoning.effort if request.reasoning else None
    text = request.text.model_dump(by_alias=True, exclude_none=True) if request.text else {}
    choice = request.tool_choice
    return {
        "id": f"resp_{token()}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": served.name,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": effort, "summary": None},
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": sampling.temperature,
        "text": {"format": {"type": "text"}, "verbosity": "medium", **text},
        "tool_choice": choice or "auto" if choice is None or isinstance(choice, str) else choice.model_dump(),
        "tools": [{"strict": None, **tool.model_dump(exclude_none=True)} for tool in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
        "metadata": request.metadata or {},
    }
