"""LLM: a model file as a Python object. Threads may share one; requests made at the same time run as one batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, Unpack, overload

import numpy as np
import numpy.typing as npt

from sotol.engine.constrain import Grammars
from sotol.engine.engine import Engine
from sotol.engine.options import Sampling
from sotol.engine.scheduler import Load
from sotol.engine.sequence import Failed, Scoring
from sotol.errors import plain
from sotol.loading import Loaded, LoadOptions, LoadSettings, load
from sotol.models import architecture_of
from sotol.progress import Progress, printing
from sotol.prompts import Ids, Message, Prompt, Turn, checked_ids, is_list
from sotol.requests import Asking, Chatting, Streaming, answers, answers_async, asked, asked_once, start
from sotol.results import Completion
from sotol.signatures import spelled_out
from sotol.stream import AsyncStream, Stream
from sotol.tokenizers.chat import ChatTemplate
from sotol.turns import Turning, encoded, make_turn

__all__ = ["LLM", "Ids", "Message", "Prompt", "Turn"]


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
        self._grammars = Grammars(loaded.tokenizer)
        try:
            self._engine = Engine(
                loaded.runner,
                grammars=self._grammars,
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

    @property
    def memory(self) -> int:
        """Bytes of its weights and of the memory of its past together, nearly."""
        return self._loaded.memory

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
        return encoded(self.tokenizer, self.template.render(messages, **template))

    @spelled_out
    def turn(self, messages: Sequence[Message], **options: Unpack[Turning]) -> Turn:
        """A conversation up to where the model answers, as a prompt whose answers are taken apart.

        messages, in the form of OpenAI's API: mappings, or objects with `model_dump()`, as its client has them. tools:
        what the model may call, as JSON schemas. tool_choice: "auto" (which None is, too), "required", "none" (the
        model does not hear of the tools), or {"type": "function", "function": {"name": …}}. parallel_tool_calls: False
        gives one call at most. template: what the model's chat template takes besides, as {"enable_thinking": False}.
        format: how the model writes calls and reasoning, a name of `sotol.answers.formats.FORMATS`; None finds it by
        the template. Errors as of `chat_prompt`.
        """
        return make_turn(self.template, self.tokenizer, messages, **options)

    # ---- generation

    def compile(self, sampling: Sampling, turn: Turn | None = None) -> None:
        """Prepare what `sampling`, and a turn of a conversation, say an answer must be: a request then finds that done.

        For those who must not wait: a request does the same where it is made, which may take a tenth of a second.
        Raises ValueError that names what is malformed, not supported, or too large, and its place.
        """
        from sotol.constraints import constraint_of  # noqa: PLC0415  (a start is quicker without)

        constraint_of(self._grammars, self.tokenizer, sampling, turn)

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
        progress: Progress | bool | None = None,
        **options: Unpack[Streaming],
    ) -> Any:
        """Continue a prompt (text, ids, or a turn), or each of a list of prompts, which run as one batch.

        n: how many answers to give to each prompt, in a list (of one, too); each has a seed of its own, which it tells.
        sampling, options: see `Sampling`; options change single fields of it, None stands for a default. terms: see
        `Terms`. progress: as for `LLM`, of how many prompts are done. Raises ValueError for a bad option, an empty
        prompt, or one that does not fit the context; QueueFullError if too many requests wait.
        """
        return answers(self._engine, self._loaded, asked(prompt, n, options), _shown(progress))

    @overload
    def stream(self, prompt: Prompt, *, n: None = None, **options: Unpack[Streaming]) -> Stream: ...
    @overload
    def stream(self, prompt: Prompt, *, n: int, **options: Unpack[Streaming]) -> list[Stream]: ...
    @spelled_out
    def stream(self, prompt: Prompt, *, n: int | None = None, **options: Unpack[Streaming]) -> Any:
        """Continue a prompt, piece by piece; leaving the loop, or closing the stream, stops the work.

        All as for `generate`, but for one prompt; with `n` there is a list of streams, which run at the same time.
        """
        return self._streams(prompt, n, Stream, options)

    @overload
    def chat(self, messages: Sequence[Message], *, n: None = None, **options: Unpack[Chatting]) -> Completion: ...
    @overload
    def chat(self, messages: Sequence[Message], *, n: int, **options: Unpack[Chatting]) -> list[Completion]: ...
    @spelled_out
    def chat(self, messages: Sequence[Message], *, n: int | None = None, **options: Unpack[Chatting]) -> Any:
        """The model's answer to a conversation, or `n` of them: what it says, its reasoning and its calls, apart.

        messages, tools and so on as for `turn`, all else as for `generate`; errors as of both.
        """
        turn, others = self._turn(messages, options)
        return self.generate(turn, n=n, **others)

    @overload
    def stream_chat(self, messages: Sequence[Message], *, n: None = None, **options: Unpack[Chatting]) -> Stream: ...
    @overload
    def stream_chat(self, messages: Sequence[Message], *, n: int, **options: Unpack[Chatting]) -> list[Stream]: ...
    @spelled_out
    def stream_chat(self, messages: Sequence[Message], *, n: int | None = None, **options: Unpack[Chatting]) -> Any:
        """`chat`, piece by piece."""
        turn, others = self._turn(messages, options)
        return self._streams(turn, n, Stream, others)

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
        progress: Progress | bool | None = None,
        **options: Unpack[Streaming],
    ) -> Any:
        """`generate` for asyncio."""
        return await answers_async(self._engine, self._loaded, asked(prompt, n, options), _shown(progress))

    @overload
    def astream(self, prompt: Prompt, *, n: None = None, **options: Unpack[Streaming]) -> AsyncStream: ...
    @overload
    def astream(self, prompt: Prompt, *, n: int, **options: Unpack[Streaming]) -> list[AsyncStream]: ...
    @spelled_out
    def astream(self, prompt: Prompt, *, n: int | None = None, **options: Unpack[Streaming]) -> Any:
        """`stream` for `async for`; call it inside the event loop."""
        return self._streams(prompt, n, AsyncStream, options)

    @overload
    async def achat(
        self, messages: Sequence[Message], *, n: None = None, **options: Unpack[Chatting]
    ) -> Completion: ...
    @overload
    async def achat(self, messages: Sequence[Message], *, n: int, **options: Unpack[Chatting]) -> list[Completion]: ...
    @spelled_out
    async def achat(self, messages: Sequence[Message], *, n: int | None = None, **options: Unpack[Chatting]) -> Any:
        """`chat` for asyncio. The template runs in the event loop: make the `turn` of a long one in a thread."""
        turn, others = self._turn(messages, options)
        return await self.agenerate(turn, n=n, **others)

    @overload
    def astream_chat(
        self, messages: Sequence[Message], *, n: None = None, **options: Unpack[Chatting]
    ) -> AsyncStream: ...
    @overload
    def astream_chat(
        self, messages: Sequence[Message], *, n: int, **options: Unpack[Chatting]
    ) -> list[AsyncStream]: ...
    @spelled_out
    def astream_chat(self, messages: Sequence[Message], *, n: int | None = None, **options: Unpack[Chatting]) -> Any:
        """`stream_chat` for `async for`; call it inside the event loop."""
        turn, others = self._turn(messages, options)
        return self._streams(turn, n, AsyncStream, others)

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
        name, kind = self.metadata.get("general.name"), architecture_of(self.metadata)
        title = f"{self.path.name}: {name or 'no name'}, {kind}"
        return f"<LLM {plain(title)}, context {self.context}, {self.threads} threads>"

    # ---- inside

    def _streams(
        self, prompt: Prompt, n: int | None, kind: type[Stream] | type[AsyncStream], options: Mapping[str, Any]
    ) -> Any:
        """A stream of that kind, or a list of them if `n` says so."""
        wanted = asked_once(prompt, n, options)
        streams: list[Any] = start(self._engine, self._loaded, wanted, kind)
        return streams[0] if wanted.sampling.n is None else streams

    def _turn(self, messages: Sequence[Message], options: Mapping[str, Any]) -> tuple[Turn, Any]:
        """The turn of a call of `chat`, and the options that are not about it."""
        own = {name: value for name, value in options.items() if name in Turning.__annotations__}
        others = {name: value for name, value in options.items() if name not in own}
        return self.turn(messages, **own), others


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
