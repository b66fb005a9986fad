"""/completion and /props in llama-server's shapes, for those who come from there.

As there, control tokens in a prompt are parsed as such, unknown fields are ignored, and a number that is negative may
stand for a default. A sampler that sotol lacks is refused where it is on, as everywhere.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic import Strict as PydanticStrict
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from sotol.answers.pieces import Content
from sotol.engine.options import Sampling
from sotol.results import Completion, TokenLogprob
from sotol.server.answering import Streamed, answer, sse
from sotol.server.models import Served
from sotol.server.openai import shapes
from sotol.server.openai.fields import SEEDS, refuse_what_is_on
from sotol.server.problems import Problem, problem_body, refusing
from sotol.server.running import Event
from sotol.server.service import Service

__all__ = ["TextRequest", "complete", "props"]

PROMPTS = 128  # of a request, at most
Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
Mixed = Annotated[list[Id | str], Field(min_length=1)]
Bias = Annotated[tuple[Id | str, float | bool], PydanticStrict(False)]  # JSON has lists


class TextRequest(BaseModel):
    """A request to continue prompts: a text, ids, both mixed, or several of them."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    prompt: str | Mixed | Annotated[list[Mixed], Field(min_length=1, max_length=PROMPTS)]
    model: Annotated[str, Field(max_length=256)] | None = None
    stream: bool | None = None
    n_predict: Annotated[int, Field(ge=-2, le=2**31 - 1)] | None = None
    max_tokens: Annotated[int, Field(ge=-2, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Field(le=100)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-SEEDS, lt=SEEDS)] | None = None
    stop: list[Annotated[str, Field(max_length=1024)]] | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, float] | Annotated[list[Bias], Field(max_length=4096)] | None = None
    n_probs: Annotated[int, Field(ge=0, le=20)] | None = None
    grammar: str | None = None
    json_schema: dict[str, JsonValue] | None = None
    return_tokens: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_off(cls, data: Any) -> Any:
        if isinstance(data, dict):
            refuse_what_is_on({name: value for name, value in data.items() if name not in ("n_keep", "return_tokens")})
        return data

    def prompts(self) -> Sequence[str | Sequence[int | str]]:
        """As a list."""
        given = self.prompt
        if isinstance(given, str) or not all(isinstance(one, list) for one in given):
            return [given]  # type: ignore[list-item]  # one prompt, of text and ids
        return given  # type: ignore[return-value]  # a list of those

    def changes(self, served: Served) -> dict[str, Any]:
        """Fields of `Sampling` that the request sets, None for those that it does not."""
        if self.grammar and self.json_schema is not None:
            raise Problem(400, "grammar and json_schema: an answer can have one format", param="json_schema")
        most = self.n_predict if self.n_predict is not None else self.max_tokens
        if most == 0:
            raise Problem(400, "n_predict is 0: an answer has at least one token here", param="n_predict")
        return {
            "max_tokens": most,
            "temperature": None if self.temperature is None else max(0.0, self.temperature),
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repeat_penalty": self.repeat_penalty,
            "repeat_last_n": self.repeat_last_n,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": self.seed if self.seed is None or self.seed >= -1 else self.seed % SEEDS,
            "stop": self.stop or None,
            "ignore_eos": self.ignore_eos,
            "logit_bias": self._biases(served),
            "logprobs": self.n_probs or None,
            "grammar": self.grammar or None,
            "schema": self.json_schema,
        }

    def _biases(self, served: Served) -> dict[int, float] | None:
        """Of ids, or of all tokens of a text; false forbids a token."""
        given = self.logit_bias
        if given is None:
            return None
        biases: dict[int, float] = {}
        for key, value in given.items() if isinstance(given, dict) else given:
            number = int(key) if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 10 else key
            ids = [number] if isinstance(number, int) else served.llm.tokenizer.encode(number, add_special=False)
            biases |= dict.fromkeys(ids, float("-inf") if value is False else float(value))
        return biases


async def complete(service: Service, http: HttpRequest) -> Response:
    """Continue prompts."""
    request = await service.read(http, TextRequest, "openai")
    served = await service.find(http, request.model)
    prompts = request.prompts()
    service.check_choices(len(prompts), "prompt")
    sampling = service.sampling(served, request.changes(served), {"max_tokens": "n_predict", "schema": "json_schema"})
    read = [await _read(service, served, prompt, sampling) for prompt in prompts]
    run = service.start(http, served, [ids for ids, _ in read], sampling)
    form = _Form(request, served, sampling, read)
    if request.stream:
        return Streamed(run, _events(form, service.events(http, served, run)), _failed)
    whole = [form.whole(i, completion) for i, completion in enumerate(await service.whole(http, served, run))]
    return answer(whole[0] if len(whole) == 1 else whole)


async def props(service: Service, http: HttpRequest) -> Response:
    """What the server has loaded, and how it samples; of the model that the query names, if there are several."""
    served = await service.find(http, http.query_params.get("model"))
    llm, tokenizer = served.llm, served.llm.tokenizer
    params = {**_settings(served.defaults), "stream": False}
    template = llm.metadata.get("tokenizer.chat_template")
    return answer(
        {
            "default_generation_settings": {"id": 0, "n_ctx": llm.context, "is_processing": False, "params": params},
            "total_slots": llm.options.sequences,
            "model_alias": served.name,
            "model_path": llm.path.name,  # where it lies is nobody's business
            "modalities": {"vision": False, "audio": False},
            "chat_template": template if isinstance(template, str) else "",
            "bos_token": "" if tokenizer.bos is None else tokenizer.token_text(tokenizer.bos),
            "eos_token": "" if tokenizer.eos is None else tokenizer.token_text(tokenizer.eos),
            "build_info": served.fingerprint,
        }
    )


async def _read(
    service: Service, served: Served, prompt: str | Sequence[int | str], sampling: Sampling
) -> tuple[list[int], str]:
    """The ids of a prompt, and its text; of a mixed one, part for part, the first as the beginning of a text."""
    if isinstance(prompt, str):
        return await service.prepare.ids(served, prompt, sampling, special=True), prompt
    service.prepare.check_text(served, sum(len(part) for part in prompt if isinstance(part, str)))

    def encoded() -> list[int]:
        encode, ids = served.llm.tokenizer.encode, list[int]()
        for i, part in enumerate(prompt):
            ids += [part] if isinstance(part, int) else encode(part, special=True, add_special=not i, continued=i > 0)
        return ids

    with refusing("prompt"):
        ids = await service.prepare.ids(served, await service.prepare.run(encoded), sampling, special=True)
        return ids, await service.prepare.run(lambda: served.llm.detokenize(ids, special=True))


class _Form:
    """An answer's parts."""

    def __init__(
        self, request: TextRequest, served: Served, sampling: Sampling, prompts: Sequence[tuple[list[int], str]]
    ) -> None:
        self._request, self._served, self._prompts = request, served, prompts
        self._settings = {**_settings(sampling), "stream": bool(request.stream)}

    def whole(self, number: int, completion: Completion, content: str | None = None) -> dict[str, Any]:
        """A finished answer. content: what it says, if not all of it."""
        used = completion.usage
        stopped = {"stop": "eos", "length": "limit"}.get(completion.finish_reason, "none")
        probabilities = (
            {} if completion.logprobs is None else {"completion_probabilities": self.probabilities(completion.logprobs)}
        )
        return {
            "index": number,
            "content": completion.text if content is None else content,
            "tokens": list(completion.tokens) if self._request.return_tokens and content is None else [],
            "id_slot": 0,
            "stop": True,
            "model": self._served.name,
            "tokens_predicted": used.completion_tokens,
            "tokens_evaluated": used.prompt_tokens,
            "generation_settings": self._settings,
            "prompt": self._prompts[number][1],
            "has_new_line": "\n" in completion.text,
            "truncated": False,
            "stop_type": "word" if completion.stopped_by is not None else stopped,
            "stopping_word": completion.stopped_by or "",
            "tokens_cached": used.prompt_tokens + used.completion_tokens,
            "timings": shapes.timings(completion),
            **(probabilities if content is None else {}),
        }

    def part(
        self, number: int, text: str, predicted: int, logprobs: Sequence[TokenLogprob], tokens: int
    ) -> dict[str, Any]:
        """Some of an answer."""
        said = {"index": number, "content": text, "tokens": [], "stop": False, "id_slot": -1}
        counts = {"tokens_predicted": predicted, "tokens_evaluated": tokens}
        return {**said, **counts, **({"completion_probabilities": self.probabilities(logprobs)} if logprobs else {})}

    def tokens(self, number: int) -> int:
        """Of a prompt."""
        return len(self._prompts[number][0])

    def probabilities(self, logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
        """Of tokens, with their alternatives."""

        def one(token: int, text: str, logprob: float) -> dict[str, Any]:
            data = self._served.llm.tokenizer.token_bytes(token, special=True)
            return {"id": token, "token": text, "bytes": list(data), "logprob": max(logprob, shapes.NEVER)}

        return [
            {**one(t.token, t.text, t.logprob), "top_logprobs": [one(o.token, o.text, o.logprob) for o in t.top]}
            for t in logprobs
        ]


async def _events(form: _Form, events: AsyncIterator[Event]) -> AsyncGenerator[str, None]:
    """The events of a stream; the last of an answer has what is known of the whole."""
    predicted: dict[int, int] = {}
    async for number, event in events:
        if isinstance(event, Completion):
            yield sse(form.whole(number, event, content=""))
            continue
        predicted[number] = predicted.get(number, 0) + event.tokens
        text = "".join(piece.text for piece in event.pieces if isinstance(piece, Content))
        if text or event.logprobs:
            yield sse(form.part(number, text, predicted[number], event.logprobs, form.tokens(number)))


def _settings(sampling: Sampling) -> Mapping[str, Any]:
    """How an answer is sampled, by llama-server's names."""
    most = -1 if sampling.max_tokens is None else sampling.max_tokens
    names = ("temperature", "top_k", "top_p", "min_p", "repeat_last_n", "repeat_penalty", "presence_penalty",
             "frequency_penalty", "ignore_eos")  # fmt: skip
    shown = {name: getattr(sampling, name) for name in names}
    seed = -1 if sampling.seed is None else sampling.seed
    more = {"n_probs": sampling.logprobs or 0, "grammar": sampling.grammar or "", "stop": list(sampling.stop)}
    return {"n_predict": most, "max_tokens": most, "seed": seed, **shown, **more}


def _failed(problem: Problem) -> str:
    """The last event of a stream that fails."""
    return sse(problem_body("openai", problem), "error")
