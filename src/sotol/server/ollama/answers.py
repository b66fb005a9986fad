"""/api/chat and /api/generate: a line of JSON for each piece, unless `stream` is false."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from sotol.answers.pieces import CallArguments, CallBegun, Content, Reasoning
from sotol.llm import LLM
from sotol.results import Completion, Delta, TokenLogprob
from sotol.server.answering import LINES, Streamed, answer, dumps
from sotol.server.calls import call_arguments
from sotol.server.models import Served
from sotol.server.ollama.fields import ChatRequest, GenerateRequest, Message, Request
from sotol.server.openai.shapes import NEVER
from sotol.server.problems import Problem, problem_body
from sotol.server.running import Chat, Event, Run
from sotol.server.service import Service

__all__ = ["chat", "generate", "now"]

NAMES = {"max_tokens": "num_predict", "schema": "format", "json": "format"}


async def chat(service: Service, http: HttpRequest) -> Response:
    """Answer a conversation; without messages only see to it that the model is loaded."""
    request = await service.read(http, ChatRequest, "ollama")
    if not request.messages and request.keeps == 0:
        return _unloaded(service, _ChatForm(request))
    served, waited = await _found(service, http, request)
    form = _ChatForm(request, served.llm, waited)
    if not request.messages:
        return answer(form.line("", "", (), done=True, done_reason="load"))
    sampling = service.sampling(served, request.changes(served.llm.context), NAMES)
    tools, given = [tool.model_dump(exclude_none=True) for tool in request.tools or ()], request.messages
    service.check_schema(tools, "tools")

    def conversation() -> Chat:
        return Chat(_messages(given), tools or None, template=request.told())

    turn = await service.prepare.turn(served, conversation, sampling)
    return await _answered(service, http, served, form, service.start(http, served, [turn], sampling))


async def generate(service: Service, http: HttpRequest) -> Response:
    """Answer a prompt, or, raw, continue it."""
    request = await service.read(http, GenerateRequest, "ollama")
    request.check()
    if not request.prompt and request.keeps == 0:
        return _unloaded(service, _Form(request))
    served, waited = await _found(service, http, request)
    form = _Form(request, served.llm, waited)
    if not request.prompt:
        return answer(form.line("", "", (), done=True, done_reason="load"))
    sampling = service.sampling(served, request.changes(served.llm.context), NAMES)
    if request.raw:
        prompt: Any = await service.prepare.ids(served, request.prompt, sampling, special=True)
    else:
        system = [{"role": "system", "content": request.system}] if request.system else []
        messages = [*system, {"role": "user", "content": request.prompt}]
        prompt = await service.prepare.turn(served, lambda: Chat(messages, template=request.told()), sampling)
    return await _answered(service, http, served, form, service.start(http, served, [prompt], sampling))


def now() -> str:
    """The time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class _Form:
    """The lines of an answer to a prompt. waited: seconds, for the model to be loaded."""

    def __init__(self, request: Request, llm: LLM | None = None, waited: float = 0.0) -> None:
        self.request, self._llm, self._waited = request, llm, waited
        self._model = request.model

    def line(self, text: str, reasoning: str, calls: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """A line; empty fields, but for the text, are left out."""
        head = {"model": self._model, "created_at": now(), "done": False}
        return {**head, **self.said(text, self.shown(reasoning), calls), **more}

    def shown(self, reasoning: str) -> str:
        """Reasoning, unless the client wants none."""
        return "" if self.request.think is False else reasoning

    def said(self, text: str, reasoning: str, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What an answer has to say."""
        thinking = {"thinking": reasoning} if reasoning else {}
        return {"response": text, **thinking, **({"tool_calls": calls} if calls else {})}

    def logprobs(self, logprobs: Sequence[TokenLogprob] | None) -> dict[str, Any]:
        """Of tokens, if they were asked for."""
        if not logprobs or self._llm is None:
            return {}
        return {"logprobs": [_logprob(self._llm, entry) for entry in logprobs]}

    def end(self, completion: Completion) -> dict[str, Any]:
        """What the last line says: nanoseconds and counts."""
        spent, used = completion.timings, completion.usage
        total = self._waited + spent.queued + spent.prefill + spent.decode
        return {
            "done": True,
            "done_reason": "length" if completion.finish_reason == "length" else "stop",
            "total_duration": round(1e9 * total),
            "load_duration": round(1e9 * self._waited),
            "prompt_eval_count": used.prompt_tokens,
            "prompt_eval_duration": round(1e9 * spent.prefill),
            "eval_count": used.completion_tokens,
            "eval_duration": round(1e9 * spent.decode),
        }


class _ChatForm(_Form):
    """The lines of an answer to a conversation."""

    def said(self, text: str, reasoning: str, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """As a message."""
        thinking = {"thinking": reasoning} if reasoning else {}
        message = {"role": "assistant", "content": text, **thinking, **({"tool_calls": calls} if calls else {})}
        return {"message": message}


async def _answered(service: Service, http: HttpRequest, served: Served, form: _Form, run: Run) -> Response:
    if form.request.stream is not False:
        lines = _lines(form, service.events(http, served, run))
        return Streamed(run, lines, _failed, media_type=LINES, beat="")
    (completion,) = await service.whole(http, served, run)
    calls = [_call(call.name, call.arguments) for call in completion.tool_calls]
    more = {**form.logprobs(completion.logprobs), **form.end(completion)}
    return answer(form.line(completion.text, completion.reasoning, calls, **more))


async def _lines(form: _Form, events: AsyncIterator[Event]) -> AsyncGenerator[str, None]:
    """The lines of a stream. A call comes whole, once it is complete."""
    calls: list[tuple[str, list[str]]] = []

    def ended() -> list[dict[str, Any]]:
        complete = [_call(name, "".join(texts)) for name, texts in calls]
        calls.clear()
        return complete

    async for _, event in events:
        if isinstance(event, Completion):
            if complete := ended():
                yield dumps(form.line("", "", complete)) + "\n"
            yield dumps(form.line("", "", (), **form.end(event))) + "\n"
            continue
        text, reasoning = _texts(event)
        complete = []
        for piece in event.pieces:
            match piece:
                case CallBegun(_, _, name):
                    complete += ended()
                    calls.append((name, []))
                case CallArguments(_, more):
                    calls[-1][1].append(more)
        if text:
            complete += ended()
        if text or form.shown(reasoning) or complete or event.logprobs:
            yield dumps(form.line(text, reasoning, complete, **form.logprobs(event.logprobs))) + "\n"


def _texts(delta: Delta) -> tuple[str, str]:
    """What is said and thought."""
    said = "".join(piece.text for piece in delta.pieces if isinstance(piece, Content))
    return said, "".join(piece.text for piece in delta.pieces if isinstance(piece, Reasoning))


def _call(name: str, arguments: str) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": call_arguments(arguments)}}


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as `LLM.turn` takes them. Problem for images."""
    converted = []
    for i, message in enumerate(messages):
        if message.images:
            raise Problem(400, "images are not supported: this model takes text only", param=f"messages[{i}].images")
        given = message.model_dump(exclude_none=True, exclude={"images", "thinking", "tool_name"})
        thinking = {"reasoning_content": message.thinking} if message.thinking else {}
        name = {"name": message.tool_name} if message.tool_name else {}
        converted.append({"content": "", **given, **thinking, **name})
    return converted


def _logprob(llm: LLM, entry: TokenLogprob) -> dict[str, Any]:
    def one(token: int, text: str, logprob: float) -> dict[str, Any]:
        data = llm.tokenizer.token_bytes(token, special=True)
        return {"token": text, "logprob": max(logprob, NEVER), "bytes": list(data)}

    top = [one(other.token, other.text, other.logprob) for other in entry.top]
    return {**one(entry.token, entry.text, entry.logprob), **({"top_logprobs": top} if top else {})}


async def _found(service: Service, http: HttpRequest, request: Request) -> tuple[Served, float]:
    """The model, loaded, and the seconds that this took."""
    ready, begin = service.models.find(request.model).status == "ready", perf_counter()
    served = await service.find(http, request.model, keep_alive=request.keeps)
    return served, 0.0 if ready else perf_counter() - begin


def _unloaded(service: Service, form: _Form) -> Response:
    """The answer to nothing but that the model may go, as soon as nobody uses it."""
    service.models.unload(form.request.model)
    return answer(form.line("", "", (), done=True, done_reason="unload"))


def _failed(problem: Problem) -> str:
    """The last line of a stream that fails."""
    return dumps(problem_body("ollama", problem)) + "\n"
