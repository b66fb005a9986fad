"""Answers to the page: they stream, and are kept as they come.

The message and an empty answer are in the database before the first event; what the answer says, every second and at
its end. So neither a browser that is closed nor a server that is killed loses what was asked, or more of what was shown
than the last second.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sotol.answers.folding import Fold
from sotol.conversations import Conversation, Conversations, Message, NewMessage, branch, title_of
from sotol.conversations.records import Status
from sotol.prompts import Turn
from sotol.results import Completion
from sotol.server.answering import Streamed, sse
from sotol.server.body import ClientGone
from sotol.server.models import Served
from sotol.server.openai.messages import chosen_tools
from sotol.server.openai.shapes import delta
from sotol.server.problems import Problem, problem_body
from sotol.server.running import Chat, Run
from sotol.server.ui.fields import AnswerRequest, conversation_json, message_json, settings_of
from sotol.server.ui.page import Page

__all__ = ["create"]

KEEP_SECONDS = 1.0  # between two writes of an answer that goes on


async def create(page: Page, http: Request) -> Response:
    """Answer in a conversation: events begin, delta, …, end, or error."""
    request, owner, service = await page.read(http, AnswerRequest), page.owner(http), page.service
    id_ = http.path_params["id"]
    conversation, known = await page.kept(lambda db: (db.get(owner, id_), db.messages(owner, id_)))
    new = _new(request, known)
    path = [*(NewMessage(*m[2:7]) for m in _path(known, request.parent)), *new]
    served = await service.find(http, conversation.model or None)
    settings = settings_of(conversation.settings)
    sampling = service.sampling(served, settings.changes(), {"schema": "json_schema"})
    tools, choice = chosen_tools(settings.tools, None)
    service.check_schema(tools, "tools")
    template = None if settings.think is None else {"enable_thinking": settings.think}
    turn = await service.prepare.turn(
        served, lambda: Chat(_messages(served, settings.system, path), tools, choice, True, template), sampling
    )
    run = service.start(http, served, [turn], sampling)

    def begin(db: Conversations) -> tuple[Conversation, list[Message]]:
        first = next((message.content for message in new if message.role == "user"), "")
        title = title_of(first) if not conversation.title and first else None
        empty = NewMessage("assistant", "", details={"model": served.name}, status="streaming")
        added = db.add(owner, id_, request.parent, [*new, empty])
        return db.change(owner, id_, title=title), added

    try:
        changed, added = await page.kept(begin)
    except BaseException:
        run.close()
        raise
    answer = _Answer(page, served, turn, added[-1])
    begun = {"type": "begin", "conversation": conversation_json(changed), "context": served.llm.context}
    shown = [message_json(message, running=True) for message in added]
    return Streamed(run, answer.events({**begun, "messages": shown}, http, run, owner), _failed)


class _Answer:
    """An answer while it is written."""

    def __init__(self, page: Page, served: Served, turn: Turn, message: Message) -> None:
        self.message = message
        self._page, self._served, self._prompt = page, served, len(turn.ids)
        self._fold, self._tokens = Fold(), 0
        self._begun = self._kept = perf_counter()
        self._first: float | None = None
        self._done: Callable[[], bool] = lambda: True

    async def events(self, begun: Mapping[str, Any], http: Request, run: Run, owner: str) -> AsyncGenerator[str, None]:
        """What the page is told. It runs from the first event on: one that nobody hears is nobody's to stop."""
        status: Status = "stopped"
        completion: Completion | None = None
        error = ""
        complete = False
        self._page.running[self.message.id] = owner, run
        try:
            yield sse({**begun, "prompt_tokens": self._prompt})
            try:
                async for _, event in self._page.service.events(http, self._served, run):
                    if isinstance(event, Completion):
                        completion, status = event, "complete"
                        continue
                    self._first = self._first or perf_counter()
                    self._tokens += event.tokens
                    for piece in event.pieces:
                        self._fold.take(piece)
                    self._keep_now_and_then()
                    yield sse({"type": "delta", **delta(event.pieces), "tokens": self._tokens})
            except ClientGone:
                pass  # or whoever reads has asked to stop: the stream ends as it should
            except Exception as failure:
                status, error = "failed", str(failure) if isinstance(failure, Problem) else "the answer failed"
                raise
            complete = True
        finally:
            details = {**self._details(completion), **({"error": error} if error else {})}
            self._keep(details, status)
            self._page.running.pop(self.message.id, None)  # behind the write: see `conversations.one`
            if complete:  # somebody may read on
                await self._page.kept(lambda _: None)  # until it is kept
        said, thought, _ = self._fold.answer
        last = self.message._replace(content=said, reasoning=thought, details=details, status=status)
        yield sse({"type": "end", "message": message_json(last)})

    def _keep_now_and_then(self) -> None:
        now = perf_counter()
        if now - self._kept >= KEEP_SECONDS and self._done():
            self._kept = now
            self._keep(self._details(None), "streaming")

    def _keep(self, details: Mapping[str, Any], status: Status) -> None:
        said, thought, _ = self._fold.answer
        self._done = self._page.keep(lambda db: db.write(self.message.id, said, thought, details, status))

    def _details(self, completion: Completion | None) -> dict[str, Any]:
        """What there is to know of the answer beside its text."""
        _, _, calls = self._fold.answer
        now, first = perf_counter(), self._first or perf_counter()
        usage = {"prompt": self._prompt, "completion": self._tokens}
        speed = (self._tokens - 1) / (now - first) if self._tokens > 1 and now > first else 0.0
        details: dict[str, Any] = {"model": self._served.name, "context": self._served.llm.context}
        details["waited"] = round(first - self._begun, 3)
        if completion is not None:
            used, spent = completion.usage, completion.timings
            usage = {"prompt": used.prompt_tokens, "completion": used.completion_tokens, "cached": used.cached_tokens}
            speed = used.completion_tokens / spent.decode if spent.decode > 0 else 0.0
            details |= {
                "finish": completion.finish_reason,
                "seed": str(completion.seed),
            }  # beyond the numbers of JavaScript
        if calls:
            details["calls"] = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls]
        return {**details, "usage": usage, "speed": round(speed, 2)}


def _new(request: AnswerRequest, known: Sequence[Message]) -> list[NewMessage]:
    """The messages that the request adds before the answer. Problem where that makes no conversation."""
    parent = next((message for message in known if message.id == request.parent), None)
    if request.parent is not None and parent is None:
        raise Problem(404, "there is no such message in this conversation", param="parent", code="not_found")
    if request.results is not None and request.content is None:
        called = {call["id"] for call in (parent.details.get("calls") or ())} if parent else set[str]()
        if not called or {result.call for result in request.results} != called:
            raise Problem(400, "results must answer all calls of the message 'parent', and no others", param="results")
        return [NewMessage("tool", result.content, details={"call": result.call}) for result in request.results]
    if request.content is not None and request.results is None:
        if not request.content.strip():
            raise Problem(400, "content says nothing", param="content")
        if parent is not None and parent.role == "user":
            raise Problem(400, "a message follows an answer: 'parent' is a message itself", param="parent")
        return [NewMessage("user", request.content)]
    if request.results is not None or parent is None or parent.role == "assistant":
        raise Problem(400, "give one of content and results, or a message as 'parent' that can be answered")
    return []


def _path(known: Sequence[Message], leaf: int | None) -> list[Message]:
    """The branch to a message, without answers that say nothing."""
    return [
        message
        for message in branch(known, leaf)
        if message.role != "assistant" or message.content or message.details.get("calls")
    ]


def _messages(served: Served, system: str | None, path: Sequence[NewMessage]) -> list[dict[str, Any]]:
    """The messages in the form of chat completions. What was thought goes where the model's template wants it."""
    thoughts = "reasoning_content" in served.llm.template.written
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message in path:
        one: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "tool":
            one["tool_call_id"] = message.details.get("call")
        if message.reasoning and thoughts:
            one["reasoning_content"] = message.reasoning
        if calls := message.details.get("calls"):
            one["tool_calls"] = [
                {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
                for c in calls
            ]
        messages.append(one)
    return messages


def _failed(problem: Problem) -> str:
    """The last event of a stream that fails."""
    return sse({"type": "error", **problem_body("openai", problem)})
