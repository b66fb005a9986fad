"""A model of a server, in the place of an `LLM` for `sotol run`: what that and its conversations need, and no more."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, Self

from sotol.answers.folding import Fold
from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning
from sotol.cli.parameters import LOADING
from sotol.cli.server_client import ServerClient
from sotol.engine.options import Sampling
from sotol.engine.sequence import Timings
from sotol.errors import SotolError, plain
from sotol.prompts import Turn
from sotol.results import Completion, Delta, FinishReason, Usage

__all__ = ["RemoteModel", "RemoteStream", "connect"]

UNKNOWN = 2**31  # tokens of a context of which the server says nothing: it refuses what is too long
ANY = "*"  # an alias of a model that answers to every name
THEIRS = "as the server has it"


@dataclass(frozen=True)
class RemoteTurn(Turn):
    """A conversation that the server will render and count: `ids` is empty here."""

    messages: Sequence[Mapping[str, Any]] = ()
    template: Mapping[str, Any] | None = None


def connect(
    client: ServerClient, name: str | None, note: Callable[[str], None] = lambda _: None, **loading: Any
) -> "RemoteModel":
    """A model of a server by name; None is the server's first. note: is told what a person may want to know.

    SotolError if it has none of that name; ValueError for what the model would have to be loaded with.
    """
    if given := [option for option, value in loading.items() if value is not None]:
        raise ValueError(f"{given[0]} is for models that are loaded here: the server has its own")
    models = client.models()
    if name is None and models:
        return RemoteModel(client, str(models[0]["id"]), note)
    for model in models:
        if name in (model["id"], *model.get("aliases", ())) or ANY in model.get("aliases", ()):
            return RemoteModel(client, str(name), note)
    names = ", ".join(plain(model["id"], 80) for model in models) or "no model"
    raise SotolError(f"{client.address} has no model {plain(repr(name), 80)}: it has {names}")


class RemoteModel:
    """What `sotol run` asks of a model, asked of a server."""

    def __init__(self, client: ServerClient, name: str, note: Callable[[str], None]) -> None:
        self._client, self.path, self._note = client, name, note
        self._context: int | None = None
        self.template = SimpleNamespace(written="")  # the server's, which is not known here
        self.options = SimpleNamespace(**dict.fromkeys(LOADING, THEIRS))
        self.threads = THEIRS

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer, if the server says; one of sotol loads the model to know."""
        if self._context is None:
            told = None
            for model in self._client.models():
                if self.path in (model["id"], *model.get("aliases", ())):
                    meta = model.get("meta")
                    told = model.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
            if told is None:
                with suppress(SotolError):  # another server
                    told = self._client.ask("/tokenize", {"model": self.path, "content": ""}).get("max_model_len")
            self._context = told if isinstance(told, int) else UNKNOWN
        return self._context

    def turn(self, messages: Sequence[Mapping[str, Any]], *, template: Mapping[str, Any] | None = None) -> RemoteTurn:
        """A conversation, for `stream`."""
        return RemoteTurn([], messages=list(messages), template=template)

    def stream(self, prompt: "RemoteTurn | str", *, sampling: Sampling) -> "RemoteStream":
        """The answer to a conversation, or the continuation of a text."""
        body = {"model": self.path, "stream_options": {"include_usage": True}, **_fields_of(sampling)}
        if isinstance(prompt, str):
            return RemoteStream(
                self._client.events("/v1/completions", {**body, "prompt": prompt}), sampling, self._note
            )
        options = {"chat_template_kwargs": dict(prompt.template)} if prompt.template else {}
        asked = {**body, "messages": list(prompt.messages), **options}
        return RemoteStream(self._client.events("/v1/chat/completions", asked), sampling, self._note)

    def stream_chat(
        self, messages: Sequence[Mapping[str, Any]], *, template: Mapping[str, Any] | None, sampling: Sampling
    ) -> "RemoteStream":
        """The answer to a conversation."""
        return self.stream(self.turn(messages, template=template), sampling=sampling)

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """A conversation's ids, as the server counts them."""
        asked = {"model": self.path, "messages": list(messages)}
        adds = {"add_generation_prompt": template.pop("add_generation_prompt", True)}
        found = self._client.ask("/tokenize", {**asked, **adds, "chat_template_kwargs": template}).get("tokens")
        return found if isinstance(found, list) else []

    def detokenize(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Nothing: prompts are made by the server."""
        del ids, special
        return "(the server makes the prompt)"

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteStream:
    """An answer of a server, piece by piece; `completion` is the whole once it has come. Closing it stops the work."""

    def __init__(self, events: Iterator[dict[str, Any] | str], sampling: Sampling, note: Callable[[str], None]) -> None:
        self._events, self._seed, self._note = events, sampling.seed, note
        self._fold, self._calls = Fold(), 0
        self._reason: str | None = None
        self._last: dict[str, Any] = {}  # usage and timings, which come at the end
        self.completion: Completion | None = None

    def deltas(self) -> Iterator[Delta]:
        """What each event gives, as it comes."""
        waits = True
        for event in self._events:
            if isinstance(event, str):
                if waits and event:
                    self._note(event)
                waits = False
                continue
            self._last |= {key: event[key] for key in ("usage", "timings") if isinstance(event.get(key), dict)}
            for choice in event.get("choices") or ():
                pieces = tuple(self._pieces(choice))
                for piece in pieces:
                    self._fold.take(piece)
                self._reason = choice.get("finish_reason") or self._reason
                if pieces:
                    yield Delta(pieces, (), 1)
        self.completion = self._whole()

    def result(self) -> Completion:
        """Wait for the end."""
        for _ in self.deltas():
            pass
        assert self.completion is not None
        return self.completion

    def close(self) -> None:
        """Stop the generation, if it still runs."""
        close = getattr(self._events, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pieces(self, choice: Mapping[str, Any]) -> Iterator[Piece]:
        said = choice.get("delta") or {}
        if thought := said.get("reasoning_content") or said.get("reasoning"):
            yield Reasoning(str(thought))
        if text := said.get("content") or choice.get("text"):
            yield Content(str(text))
        for call in said.get("tool_calls") or ():
            function = call.get("function") or {}
            if call.get("id"):
                yield CallBegun(self._calls, str(call["id"]), str(function.get("name")))
                self._calls += 1
            if function.get("arguments") and self._calls:
                yield CallArguments(self._calls - 1, str(function["arguments"]))

    def _whole(self) -> Completion:
        text, thought, calls = self._fold.answer
        used, spent = self._last.get("usage", {}), self._last.get("timings", {})
        known = (used.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        thinking = (used.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        usage = Usage(used.get("prompt_tokens") or 0, used.get("completion_tokens") or 0, known, thinking)
        timings = Timings(0.0, (spent.get("prompt_ms") or 0) / 1000, (spent.get("predicted_ms") or 0) / 1000)
        reasons: dict[str | None, FinishReason] = {"length": "length", "tool_calls": "tool_calls"}
        seed = -1 if self._seed is None else self._seed
        return Completion(text, (), reasons.get(self._reason, "stop"), None, usage, timings, seed, thought, calls)


def _fields_of(sampling: Sampling) -> dict[str, Any]:
    """What differs from the defaults, by the names of OpenAI, llama-server and vLLM: the rest is the server's."""
    default = Sampling()
    given = {f.name: getattr(sampling, f.name) for f in fields(Sampling)}
    body = {name: value for name, value in given.items() if value != getattr(default, name)}
    if body.pop("logprobs", None) is not None:
        raise ValueError("--logprobs needs a model that is loaded here: it does not go with --server")
    if "stop" in body:
        body["stop"] = [body["stop"]] if isinstance(body["stop"], str) else list(body["stop"])
    if "logit_bias" in body:
        body["logit_bias"] = {str(token): max(-100.0, min(100.0, bias)) for token, bias in body["logit_bias"].items()}
    if body.pop("json", None):
        body["response_format"] = {"type": "json_object"}
    if (schema := body.pop("schema", None)) is not None:
        try:
            described = json.loads(schema) if isinstance(schema, str) else schema
        except ValueError as error:
            raise ValueError(f"the schema is no JSON: {plain(error)}") from None
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": described}}
    if (regex := body.pop("regex", None)) is not None:
        body["guided_regex"] = regex
    return body
