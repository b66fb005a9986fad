"""/v1/chat/completions: https://platform.openai.com/docs/api-reference/chat"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from sotol.results import Completion
from sotol.server.answering import LOADING, Streamed, answer, dumps, sse, token
from sotol.server.models import Served
from sotol.server.openai import shapes
from sotol.server.openai.fields import Request
from sotol.server.openai.messages import (
    Message,
    ResponseFormat,
    Tool,
    ToolChoice,
    chosen_tools,
    format_of,
    plain_messages,
)
from sotol.server.problems import Problem, problem_body
from sotol.server.running import Chat, Event, Run
from sotol.server.service import Service

__all__ = ["ChatRequest", "create"]

DONE = "data: [DONE]\n\n"


class ChatRequest(Request):
    """A request for a chat completion."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: Annotated[list[Tool], Field(max_length=1024)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_completion_tokens: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    prediction: dict[str, JsonValue] | None = None

    @property
    def top(self) -> int | None:
        """Alternatives of each token that the answer tells; None tells nothing."""
        if self.top_logprobs is not None and not self.logprobs:
            raise Problem(400, "'top_logprobs' is only allowed when 'logprobs' is true", param="top_logprobs")
        return (self.top_logprobs or self.n_probs or 0) if self.logprobs else self.n_probs or None

    def template(self) -> dict[str, JsonValue] | None:
        """What the template takes besides."""
        effort: dict[str, JsonValue] = {}
        if self.budget == 0:
            effort = {"enable_thinking": False}
        elif self.reasoning_effort is not None:
            effort = {"reasoning_effort": self.reasoning_effort}
        return {**effort, **(self.chat_template_kwargs or {})} or None


async def create(service: Service, http: HttpRequest) -> Response:
    """Answer a conversation, `n` times, as a whole or as a stream of chunks."""
    request = await service.read(http, ChatRequest, "openai")
    served = await service.find(http, request.model, comment=LOADING if request.stream else None)
    each = request.n or 1
    service.check_choices(each)
    made = format_of(request.response_format)
    constraint = request.constraint(*([] if made is None else [("response_format", *made)]))
    changes = {**request.changes(), "logprobs": request.top, **constraint}
    if request.max_completion_tokens is not None:
        changes["max_tokens"] = request.max_completion_tokens
    sampling = service.sampling(served, changes, {"schema": "response_format", "json": "response_format"})
    tools, choice = chosen_tools(request.tools, request.tool_choice)
    service.check_schema(tools, "tools")

    def chat() -> Chat:
        parallel = request.parallel_tool_calls is not False
        return Chat(plain_messages(request.messages), tools, choice, parallel, request.template())

    turn = await service.prepare.turn(served, chat, sampling)
    run = service.start(http, served, [turn], sampling, each)
    form = _Form(served, f"chatcmpl-{token()}")
    if request.stream:
        return Streamed(run, _chunks(form, run, service.events(http, served, run), request.wants_usage), _failed)
    completions = await service.whole(http, served, run)
    choices = [form.choice(i, completion) for i, completion in enumerate(completions)]
    about = {"usage": shapes.usage(completions, each), "timings": shapes.timings(completions[0])}
    return answer({**form.head("chat.completion"), "choices": choices, **about})


class _Form:
    """The parts of an answer that stay the same."""

    def __init__(self, served: Served, id_: str) -> None:
        self.served, self._id, self._created = served, id_, int(time.time())

    def head(self, kind: str) -> dict[str, Any]:
        """What every object begins with."""
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.served.name,
            "system_fingerprint": self.served.fingerprint,
            "service_tier": "default",
        }

    def choice(self, number: int, completion: Completion) -> dict[str, Any]:
        """A whole answer."""
        calls = [shapes.tool_call(call) for call in completion.tool_calls]
        reasoning = {"reasoning_content": completion.reasoning} if completion.reasoning else {}
        message = {
            "role": "assistant",
            "content": completion.text or (None if calls else ""),
            **reasoning,
            "refusal": None,
            **({"tool_calls": calls} if calls else {}),
        }
        logprobs = None if completion.logprobs is None else shapes.chat_logprobs(self.served.llm, completion.logprobs)
        return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": completion.finish_reason}


async def _chunks(form: _Form, run: Run, events: AsyncIterator[Event], wants_usage: bool) -> AsyncGenerator[str, None]:
    """The events of a stream: https://platform.openai.com/docs/api-reference/chat-streaming"""
    # All but the choices is the same in each, so it is written once.
    head, usage = dumps(form.head("chat.completion.chunk"))[:-1], ',"usage":null' if wants_usage else ""

    def chunk(
        number: int, said: Mapping[str, Any], logprobs: Any = None, reason: str | None = None, more: str = ""
    ) -> str:
        choice = {"index": number, "delta": said, "logprobs": logprobs, "finish_reason": reason}
        return f'data: {head},"choices":[{dumps(choice)}]{usage}{more}}}\n\n'

    for number in range(len(run.streams)):
        yield chunk(number, {"role": "assistant", "content": "", "refusal": None})
    done: dict[int, Completion] = {}
    async for number, event in events:
        if isinstance(event, Completion):
            done[number] = event
            timings = f',"timings":{dumps(shapes.timings(event))}'
            yield chunk(number, {}, reason=event.finish_reason, more=timings)
        elif event.pieces or event.logprobs:
            logprobs = shapes.chat_logprobs(form.served.llm, event.logprobs) if event.logprobs else None
            yield chunk(number, shapes.delta(event.pieces) or {"content": ""}, logprobs)
    if wants_usage:
        counts = shapes.usage([done[number] for number in sorted(done)], len(done))
        yield f'data: {head},"choices":[],"usage":{dumps(counts)}}}\n\n'
    yield DONE


def _failed(problem: Problem) -> str:
    """The last event of a stream that fails."""
    return sse(problem_body("openai", problem), "error")
