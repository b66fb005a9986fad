"""LLM: a model file as a Python object. Threads may share one; requests made at the same time run as one batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, Unpack, overload

import numpy as np
import numpy.typing as npt

from sotol.engine.engine import Engine
from sotol.engine.options import Options, Sampling, Terms
from sotol.engine.scheduler import Load
from sotol.engine.sequence import Failed, Scoring
from sotol.errors import plain
from sotol.loading import Loaded, LoadOptions, LoadSettings, load
from sotol.progress import Progress, printing
from sotol.prompts import Ids, Message, Prompt, checked_ids, is_list, is_prompt
from sotol.requests import Asked, Asking, Chatting, Tools, answers, answers_async, start
from sotol.results import Completion
from sotol.signatures import spelled_out
from sotol.stream import AsyncStream, Stream
from sotol.tokenizers.chat import ChatTemplate

__all__ = ["LLM", "Ids", "Message", "Prompt"]


class LLM:
    """A loaded model.

    model: a path, or a name of `sotol.catalog`; None is its default; or what `sotol.loading.load` gave. progress: True
    shows what loading does on standard error; or a function, called with what is being done, how much is done, and how
    much there is. options: the fields of `LoadOptions`, of which threads, ctx and kv_memory matter most; None stands
    for a default.

    Raises SotolError (FormatError for a broken file or one that changes while it is loaded, ModelError for a model that
    sotol can't run), ValueError for a bad value of an option, TypeError for an option that there is not. Once loaded,
    the file is not read again.

    Any thread may use it, and close it. In a process that was forked from the one that loaded it, all that computes
    raises SotolError.
    """

    @spelled_out
    def __init__(
        self,
        model: str | Path | Loaded | None = None,
        *,
        progress: Progress | bool | None = None,
        **options: Unpack[LoadSettings],
    ) -> None:
        if isinstance(model, Loaded):
            if given := [name for name, value in options.items() if value is not None]:
                raise ValueError(f"the model is loaded already: {given[0]} can't be set any more")
            loaded = model
        else:
            loaded = load(model, LoadOptions.of(options), _shown(progress))
        self._loaded = loaded
        self._template: ChatTemplate | None = None
        self.path, self.metadata, self.context = loaded.path, loaded.metadata, loaded.context
        self.tokenizer, self.vocabulary, self.options = loaded.tokenizer, loaded.vocabulary, loaded.options
        try:
            self._engine = Engine(
                loaded.runner,
                reuse=self.options.prefix_cache,
                slowdown=self.options.slowdown,
                queue=self.options.queue,
            )
        except BaseException:
            loaded.close()
            raise

    @property
    def threads(self) -> int:
        """Of the CPU that the model uses."""
        return self._loaded.runner.threads

    def load(self) -> Load:
        """How much there is to do, and how full the memory of the past is, for an operator."""
        return self._engine.load()

    # ---- text and ids

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of a text, with what the model puts around it. special: control tokens in it are parsed as such."""
        return self.tokenizer.encode(text, special=special)

    def detokenize(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of ids. special: control tokens are shown."""
        return self.tokenizer.decode(ids, special=special)

    @property
    def template(self) -> ChatTemplate:
        """The model's chat format."""
        if self._template is None:
            self._template = self._loaded.template()
        return self._template

    def chat_prompt(self, messages: Sequence[Message], **template: Any) -> list[int]:
        """A conversation's ids, up to where the model answers. What looks like a control token in a message is text.

        messages: as for `chat`. template: `tools`, `add_generation_prompt` and whatever the model's template takes
        besides, as enable_thinking. Raises ValueError for malformed messages, TemplateError for those that the template
        refuses.
        """
        text = self.template.render(messages, **template)
        ids = self.tokenizer.encode(text, special=True, add_special=False)
        bos = self.tokenizer.bos
        if self.tokenizer.adds_bos and bos is not None and ids[:1] != [bos]:  # or the template wrote it
            ids.insert(0, bos)
        return ids

    # ---- generation

    @overload
    def generate(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
        self, prompt: Prompt, *, n: None = None, **options: Unpack[Asking]
    ) -> Completion: ...
    @overload
    def generate(  # type: ignore[overload-overlap]  # as above
        self, prompt: Prompt, *, n: int, **options: Unpack[Asking]
    ) -> list[Completion]: ...
    @overload
    def generate(self, prompt: Sequence[Prompt], *, n: None = None, **options: Unpack[Asking]) -> list[Completion]: ...
    @overload
    def generate(self, prompt: Sequence[Prompt], *, n: int, **options: Unpack[Asking]) -> list[list[Completion]]: ...
    @spelled_out
    def generate(
        self,
        prompt: Any,
        *,
        n: int | None = None,
        sampling: Sampling | None = None,
        terms: Terms | None = None,
        progress: Progress | bool | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """Continue a prompt (text, or ids), or each of a list of prompts, which run as one batch.

        n: how many answers to give to each prompt, in a list (of one, too); each has a seed of its own, which it tells.
        sampling, options: see `Sampling`; options change single fields of it, None stands for a default. terms: see
        `Terms`. progress: as for `LLM`, of how many prompts are done. Raises ValueError for a bad option, an empty
        prompt, or one that does not fit the context; QueueFullError if too many requests wait.
        """
        return answers(self._engine, self._loaded, _asked(prompt, n, sampling, terms, options), _shown(progress))

    @spelled_out
    def stream(
        self,
        prompt: Prompt,
        *,
        sampling: Sampling | None = None,
        terms: Terms | None = None,
        **options: Unpack[Options],
    ) -> Stream:
        """Continue a prompt, piece by piece; leaving the loop, or closing the stream, stops the work."""
        asked = _asked_once(prompt, sampling, terms, options)
        return start(self._engine, self._loaded, asked, Stream)[0]

    @overload
    def chat(self, messages: Sequence[Message], *, n: None = None, **options: Unpack[Chatting]) -> Completion: ...
    @overload
    def chat(self, messages: Sequence[Message], *, n: int, **options: Unpack[Chatting]) -> list[Completion]: ...
    @spelled_out
    def chat(
        self,
        messages: Sequence[Message],
        *,
        n: int | None = None,
        tools: Tools | None = None,
        template: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        terms: Terms | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """The model's answer to a conversation, or `n` of them.

        messages, in the form of OpenAI's API: mappings, or objects with `model_dump()`, as its client has them. tools:
        what the model may call, as JSON schemas. template: what the model's chat template takes besides, as
        {"enable_thinking": False}. All else as for `generate`. Errors as of `chat_prompt` and `generate`.
        """
        chosen = _chosen(n, sampling, options)
        return self.generate(self._ids(messages, tools, template), sampling=chosen, terms=terms)

    @spelled_out
    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Tools | None = None,
        template: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        terms: Terms | None = None,
        **options: Unpack[Options],
    ) -> Stream:
        """`chat`, piece by piece."""
        chosen = Sampling.of(sampling, **options)
        return self.stream(self._ids(messages, tools, template), sampling=chosen, terms=terms)

    # ---- the same for asyncio

    @overload
    async def agenerate(  # type: ignore[overload-overlap]  # as above
        self, prompt: Prompt, *, n: None = None, **options: Unpack[Asking]
    ) -> Completion: ...
    @overload
    async def agenerate(  # type: ignore[overload-overlap]  # as above
        self, prompt: Prompt, *, n: int, **options: Unpack[Asking]
    ) -> list[Completion]: ...
    @overload
    async def agenerate(
        self, prompt: Sequence[Prompt], *, n: None = None, **options: Unpack[Asking]
    ) -> list[Completion]: ...
    @overload
    async def agenerate(
        self, prompt: Sequence[Prompt], *, n: int, **options: Unpack[Asking]
    ) -> list[list[Completion]]: ...
    @spelled_out
    async def agenerate(
        self,
        prompt: Any,
        *,
        n: int | None = None,
        sampling: Sampling | None = None,
        terms: Terms | None = None,
        progress: Progress | bool | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """`generate` for asyncio."""
        asked = _asked(prompt, n, sampling, terms, options)
        return await answers_async(self._engine, self._loaded, asked, _shown(progress))

    @spelled_out
    def astream(
        self,
        prompt: Prompt,
        *,
        sampling: Sampling | None = None,
        terms: Terms | None = None,
        **options: Unpack[Options],
    ) -> AsyncStream:
        """`stream` for `async for`; call it inside the event loop."""
        asked = _asked_once(prompt, sampling, terms, options)
        return start(self._engine, self._loaded, asked, AsyncStream)[0]

    @overload
    async def achat(
        self, messages: Sequence[Message], *, n: None = None, **options: Unpack[Chatting]
    ) -> Completion: ...
    @overload
    async def achat(self, messages: Sequence[Message], *, n: int, **options: Unpack[Chatting]) -> list[Completion]: ...
    @spelled_out
    async def achat(
        self,
        messages: Sequence[Message],
        *,
        n: int | None = None,
        tools: Tools | None = None,
        template: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        terms: Terms | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """`chat` for asyncio."""
        chosen = _chosen(n, sampling, options)
        return await self.agenerate(self._ids(messages, tools, template), sampling=chosen, terms=terms)

    @spelled_out
    def astream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Tools | None = None,
        template: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        terms: Terms | None = None,
        **options: Unpack[Options],
    ) -> AsyncStream:
        """`stream_chat` for `async for`; call it inside the event loop."""
        chosen = Sampling.of(sampling, **options)
        return self.astream(self._ids(messages, tools, template), sampling=chosen, terms=terms)

    # ---- scores

    def logits(self, texts: Sequence[Ids]) -> list[npt.NDArray[np.float32]]:
        """The logits after every token of each list of ids: float32 [len(ids), vocabulary] for each.

        Raises ValueError for an empty list, or one that does not fit the context.
        """
        if not is_list(texts):
            raise ValueError(f"texts is a list, with a list of token ids for each: not {texts!r:.100}")
        checked = [checked_ids(ids, self.context, context=self.context, vocabulary=self.vocabulary) for ids in texts]
        queues: list[SimpleQueue[npt.NDArray[np.float32] | Failed | None]] = [SimpleQueue() for _ in checked]
        requests = [Scoring(ids, queue.put) for ids, queue in zip(checked, queues, strict=True)]
        try:
            self._engine.submit(requests)
            return [_gather(queue) for queue in queues]
        finally:
            for request in requests:
                self._engine.cancel(request)

    # ---- the end

    def close(self) -> None:
        """Stop all work and end the threads: who waits gets SotolError. Any thread may, any number of times."""
        try:
            self._loaded.close()  # first: the engine may wait for weights
        finally:
            self._engine.close()

    async def aclose(self) -> None:
        """`close` for asyncio: the event loop goes on meanwhile."""
        import asyncio  # noqa: PLC0415  (15 ms, and the command line does without)

        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        name, kind = self.metadata.get("general.name"), self.metadata.get("general.architecture")
        title = f"{self.path.name}: {name or 'no name'}, {kind}"
        return f"<LLM {plain(title)}, context {self.context}, {self.threads} threads>"

    # ---- inside

    def _ids(self, messages: Sequence[Message], tools: Tools | None, template: Mapping[str, Any] | None) -> list[int]:
        """A conversation's ids, for an answer."""
        return self.chat_prompt(messages, **{**(template or {}), "tools": tools})


def _chosen(n: int | None, sampling: Sampling | None, options: Mapping[str, Any]) -> Sampling:
    """What a call says of sampling."""
    return Sampling.of(sampling, **({} if n is None else {"n": n}), **options)


def _asked(
    prompt: Any, n: int | None, sampling: Sampling | None, terms: Terms | None, options: Mapping[str, Any]
) -> Asked:
    """A prompt, or a list of them."""
    chosen = _chosen(n, sampling, options)
    single = is_prompt(prompt)
    return Asked([prompt] if single else prompt, single, chosen, _valid(terms))


def _asked_once(prompt: Any, sampling: Sampling | None, terms: Terms | None, options: Mapping[str, Any]) -> Asked:
    """A prompt, for a stream."""
    chosen = Sampling.of(sampling, **options)
    if chosen.n is not None and chosen.n > 1:
        raise ValueError(
            f"n is {chosen.n}, but a stream is one answer: start a stream for each seed, or ask `generate` or `chat`"
        )
    return Asked([prompt], True, chosen, _valid(terms))


def _valid(terms: Terms | None) -> Terms:
    """The terms of a call; ValueError for something else."""
    if terms is not None and not isinstance(terms, Terms):
        raise ValueError(f"terms is {terms!r:.100}; it must be a sotol.Terms, or None")
    return terms or Terms()


def _shown(progress: Progress | bool | None) -> Progress | None:
    """What to call; True stands for lines on standard error."""
    return printing() if progress is True else progress or None


def _gather(queue: SimpleQueue[npt.NDArray[np.float32] | Failed | None]) -> npt.NDArray[np.float32]:
    """Wait for all rows of a text's logits; raises what its request failed with."""
    rows = []
    while (part := queue.get()) is not None:
        if isinstance(part, Failed):
            raise part.error
        rows.append(part)
    return np.concatenate(rows)
