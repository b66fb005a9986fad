"""/v1/completions: https://platform.openai.com/docs/api-reference/completions"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from sotol.answers.pieces import Content
from sotol.results import Completion
from sotol.server.answering import LOADING, Streamed, answer, dumps, sse, token
from sotol.server.models import Served
from sotol.server.openai import shapes
from sotol.server.openai.fields import Request
from sotol.server.openai.messages import ResponseFormat, format_of
from sotol.server.problems import Problem, problem_body
from sotol.server.running import Event, Run
from sotol.server.service import Service

__all__ = ["CompletionRequest", "create"]

PROMPTS = 128  # of a request, at most
Id = Annotated[int, Field(ge=0, le=2**31 - 1)]


class CompletionRequest(Request):
    """A request to continue prompts: one text, several, the ids of one, or of several."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=PROMPTS)]
        | Annotated[list[Id], Field(min_length=1)]
        | Annotated[list[Annotated[list[Id], Field(min_length=1)]], Field(min_length=1, max_length=PROMPTS)]
    )
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None

    def prompts(self) -> list[str] | list[list[int]]:
        """As a list."""
        given = self.prompt
        if isinstance(given, str):
            return [given]
        return [given] if isinstance(given[0], int) else given

    def check(self) -> None:
        """Problem for fields that don't go together, or that sotol lacks."""
        if self.suffix:
            raise Problem(400, "suffix is not supported: no model here fills in the middle", param="suffix")
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise Problem(400, "best_of must be at least n", param="best_of")
        if self.stream and self.best_of is not None and self.best_of > (self.n or 1):
            raise Problem(400, "best_of can't be streamed: it is known only at the end", param="best_of")
        if self.echo and self.logprobs is not None:
            raise Problem(400, "echo with logprobs is not supported: the prompt's are not computed", param="echo")


async def create(service: Service, http: HttpRequest) -> Response:
    """Continue prompts."""
    request = await service.read(http, CompletionRequest, "openai")
    request.check()
    served = await service.find(http, request.model, comment=LOADING if request.stream else None)
    n, prompts = request.n or 1, request.prompts()
    each = max(n, request.best_of or n)
    service.check_choices(each * len(prompts), "n" if request.best_of is None else "best_of")
    made = format_of(request.response_format)
    constraint = request.constraint(*([] if made is None else [("response_format", *made)]))
    logprobs = request.logprobs if request.logprobs is not None else request.n_probs or None
    judged = 0 if each > n and logprobs is None else logprobs  # best_of needs the tokens' own
    changes = {**request.changes(), "logprobs": judged, **constraint}
    sampling = service.sampling(served, changes, {"schema": "response_format", "json": "response_format"})
    ids = [await service.prepare.ids(served, prompt, sampling, special=False) for prompt in prompts]
    echoes = [_text(served, prompt) if request.echo else "" for prompt in prompts]
    run = service.start(http, served, ids, sampling, each)
    form = _Form(served, f"cmpl-{token()}", echoes, each, logprobs is not None)
    if request.stream:
        return Streamed(run, _chunks(form, run, service.events(http, served, run), request.wants_usage), _failed)
    completions = await service.whole(http, served, run)
    kept = _best(completions, each, n)
    choices = [form.choice(i, i // n, completion) for i, completion in enumerate(kept)]
    about = {"usage": shapes.usage(completions, each), "timings": shapes.timings(completions[0])}
    return answer({**form.head(), "choices": choices, **about})


class _Form:
    """The parts of an answer that stay the same."""

    def __init__(self, served: Served, id_: str, echoes: Sequence[str], each: int, logprobs: bool) -> None:
        self.served, self.echoes, self.each, self._logprobs = served, echoes, each, logprobs
        self._id, self._created = id_, int(time.time())

    def head(self) -> dict[str, Any]:
        """What every object begins with."""
        about = {"created": self._created, "model": self.served.name, "system_fingerprint": self.served.fingerprint}
        return {"id": self._id, "object": "text_completion", **about}

    def choice(self, number: int, prompt: int, completion: Completion) -> dict[str, Any]:
        """A whole answer."""
        logprobs = shapes.text_logprobs(completion.logprobs or ()) if self._logprobs else None
        text = self.echoes[prompt] + completion.text
        return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": completion.finish_reason}


def _best(completions: list[Completion], each: int, n: int) -> list[Completion]:
    """Of each prompt's answers the n whose tokens are likeliest on average; all, in their order, if there are n."""
    if each == n:
        return completions

    def likelihood(completion: Completion) -> float:
        logprobs = completion.logprobs or ()
        return sum(entry.logprob for entry in logprobs) / max(1, len(logprobs))

    bounds = pairwise(range(0, len(completions) + 1, each))
    return [kept for a, b in bounds for kept in sorted(completions[a:b], key=likelihood, reverse=True)[:n]]


async def _chunks(form: _Form, run: Run, events: AsyncIterator[Event], wants_usage: bool) -> AsyncGenerator[str, None]:
    """The events of a stream."""
    head, usage = dumps(form.head())[:-1], ',"usage":null' if wants_usage else ""

    def chunk(number: int, text: str, logprobs: Any = None, reason: str | None = None, more: str = "") -> str:
        choice = {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return f'data: {head},"choices":[{dumps(choice)}]{usage}{more}}}\n\n'

    for number in range(len(run.streams)):
        if echo := form.echoes[number // form.each]:
            yield chunk(number, echo)
    done: dict[int, Completion] = {}
    offsets = [0] * len(run.streams)
    async for number, event in events:
        if isinstance(event, Completion):
            done[number] = event
            timings = f',"timings":{dumps(shapes.timings(event))}'
            yield chunk(number, "", reason=event.finish_reason, more=timings)
            continue
        text = "".join(piece.text for piece in event.pieces if isinstance(piece, Content))
        if text or event.logprobs:
            logprobs = shapes.text_logprobs(event.logprobs, offsets[number]) if event.logprobs else None
            offsets[number] += sum(len(entry.text) for entry in event.logprobs)
            yield chunk(number, text, logprobs)
    if wants_usage:
        counts = shapes.usage([done[number] for number in sorted(done)], form.each)
        yield f'data: {head},"choices":[],"usage":{dumps(counts)}}}\n\n'
    yield "data: [DONE]\n\n"


def _failed(problem: Problem) -> str:
    """The last event of a stream that fails."""
    return sse(problem_body("openai", problem), "error")


def _text(served: Served, prompt: str | list[int]) -> str:
    """A prompt, to be echoed."""
    return prompt if isinstance(prompt, str) else served.llm.detokenize(prompt, special=True)
