"""/v1/messages and /v1/messages/count_tokens: https://docs.anthropic.com/en/api/messages"""

import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning
from sotol.results import Completion
from sotol.server.answering import Streamed, answer, sse, token
from sotol.server.anthropic.conversation import chat_of
from sotol.server.anthropic.fields import CountRequest, MessagesRequest
from sotol.server.calls import call_arguments
from sotol.server.problems import Problem, problem_body
from sotol.server.running import Event
from sotol.server.service import Service

__all__ = ["count", "create"]

PING = sse({"type": "ping"}, "ping")
NAMES = {"stop": "stop_sequences", "schema": "output_config.format.schema"}


async def create(service: Service, http: HttpRequest) -> Response:
    """The model's next message, as a whole or as a stream of events."""
    request = await service.read(http, MessagesRequest, "anthropic")
    request.check()
    served = await service.find(http, request.model, comment=PING if request.stream else None)
    sampling = service.sampling(served, request.changes(), NAMES)
    service.check_schema([tool.input_schema for tool in request.tools or ()], "tools")
    turn = await service.prepare.turn(served, partial(chat_of, request), sampling)
    run = service.start(http, served, [turn], sampling)
    limit = sampling.max_tokens or request.max_tokens
    form = _Form(request, limit, served.name, len(turn.ids))
    request_id = service.around.request_id(http.scope) or f"req_{token()}"
    headers = {"request-id": request_id}
    if request.stream:

        def failed(problem: Problem) -> str:
            return sse(problem_body("anthropic", problem, request_id), "error")

        events = _events(form, service.events(http, served, run))
        return Streamed(run, events, failed, beat=PING, headers=headers)
    (completion,) = await service.whole(http, served, run)
    return answer(form.message(completion), headers=headers)


async def count(service: Service, http: HttpRequest) -> Response:
    """How many tokens a conversation has, however long it is."""
    request = await service.read(http, CountRequest, "anthropic")
    request.check()
    served = await service.find(http, request.model)
    return answer({"input_tokens": await service.prepare.count(served, partial(chat_of, request))})


class _Form:
    """An answer's message."""

    def __init__(self, request: MessagesRequest, limit: int, model: str, prompt_tokens: int) -> None:
        self.thinks, self.prompt_tokens = request.thinks, prompt_tokens
        self.omits = request.thinking is not None and request.thinking.display == "omitted"
        self._limit, self._model, self._id = limit, model, f"msg_{token()}"

    def head(self, content: list[dict[str, Any]], usage: Mapping[str, Any], **end: str | None) -> dict[str, Any]:
        """The message, with this content."""
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": content}
        ends = {"stop_reason": None, "stop_sequence": None, "stop_details": None, **end}
        return {**head, **ends, "usage": {**usage, "service_tier": "standard"}}

    def message(self, completion: Completion) -> dict[str, Any]:
        """The whole."""
        content: list[dict[str, Any]] = []
        if completion.reasoning and self.thinks:
            shown = "" if self.omits else completion.reasoning
            content.append({"type": "thinking", "thinking": shown, "signature": _signature(completion.reasoning)})
        if completion.text:
            content.append({"type": "text", "text": completion.text})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call_arguments(call.arguments)}
            for call in completion.tool_calls
        ]
        return self.head(content, self.usage(completion), **self.end(completion))

    def end(self, completion: Completion) -> dict[str, str | None]:
        """Why it ended."""
        reason = {"stop": "end_turn", "tool_calls": "tool_use"}.get(completion.finish_reason, "max_tokens")
        if completion.finish_reason == "length" and completion.usage.completion_tokens < self._limit:
            reason = "model_context_window_exceeded"
        if completion.stopped_by is not None and completion.finish_reason == "stop":
            return {"stop_reason": "stop_sequence", "stop_sequence": completion.stopped_by}
        return {"stop_reason": reason, "stop_sequence": None}

    def usage(self, completion: Completion) -> dict[str, int]:
        """Token counts: input_tokens are those that were computed."""
        used = completion.usage
        return {
            "input_tokens": used.prompt_tokens - used.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": used.cached_tokens,
            "output_tokens": used.completion_tokens,
        }


async def _events(form: _Form, events: AsyncIterator[Event]) -> AsyncGenerator[str, None]:
    """The events of a stream: https://docs.anthropic.com/en/docs/build-with-claude/streaming

    What of the prompt was cached is known only later: the usage of message_delta counts.
    """
    usage = {"input_tokens": form.prompt_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    yield _event("message_start", message=form.head([], {**usage, "output_tokens": 0}))
    yield PING
    blocks = _Blocks(form)
    async for _, event in events:
        if isinstance(event, Completion):
            if text := "".join(blocks.close()):
                yield text
            delta = {**form.end(event), "stop_details": None}
            yield _event("message_delta", delta=delta, usage=form.usage(event))
        elif text := "".join(line for piece in event.pieces for line in blocks.take(piece)):
            yield text
    yield _event("message_stop")


class _Blocks:
    """Content blocks as their pieces come: one is open at a time."""

    def __init__(self, form: _Form) -> None:
        self._form = form
        self._number, self._open = -1, ""
        self._thought = hashlib.sha256()

    def take(self, piece: Piece) -> Iterator[str]:
        """The events of a piece."""
        match piece:
            case Content(text):
                yield from self._begin("text", {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": text})
            case Reasoning(text):
                if not self._form.thinks:
                    return
                yield from self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                self._thought.update(text.encode())
                if not self._form.omits:
                    yield self._delta({"type": "thinking_delta", "thinking": text})
            case CallBegun(number, id_, name):
                yield from self._begin(f"call {number}", {"type": "tool_use", "id": id_, "name": name, "input": {}})
            case CallArguments(_, text):
                yield self._delta({"type": "input_json_delta", "partial_json": text})

    def close(self) -> Iterator[str]:
        """The end of the block that is open."""
        if self._open == "thinking":
            yield self._delta({"type": "signature_delta", "signature": _encoded(self._thought.digest())})
            self._thought = hashlib.sha256()
        if self._open:
            yield _event("content_block_stop", index=self._number)
        self._open = ""

    def _begin(self, name: str, block: Mapping[str, Any]) -> Iterator[str]:
        if name != self._open:
            yield from self.close()
            self._number, self._open = self._number + 1, name
            yield _event("content_block_start", index=self._number, content_block=block)

    def _delta(self, delta: Mapping[str, Any]) -> str:
        return _event("content_block_delta", index=self._number, delta=delta)


def _event(kind: str, **fields: Any) -> str:
    return sse({"type": kind, **fields}, kind)


def _signature(text: str) -> str:
    """What stands where the service signs its thinking; nobody checks it here."""
    return _encoded(hashlib.sha256(text.encode()).digest())


def _encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
