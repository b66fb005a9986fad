"""LLM: a model file as a Python object. Threads may share one; requests made at the same time run as one batch."""

from collections.abc import Mapping, Sequence
from operator import index
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, TypeAlias, TypeGuard, Unpack, overload

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu.running.runner import MOST_THREADS, PRECISIONS, CpuRunner
from sotol.catalog import find_model
from sotol.engine.engine import Engine
from sotol.engine.options import Options, Sampling
from sotol.engine.sampling import Sampler
from sotol.engine.sequence import Failed, Generation, Scoring
from sotol.engine.stops import StopMatcher
from sotol.errors import ModelError, explained, plain
from sotol.formats import read_gguf
from sotol.models import trace_model
from sotol.program.step import BLOCK_TOKENS, Limits
from sotol.progress import Progress, printing
from sotol.results import Completion
from sotol.stream import AsyncStream, Stream
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.chat import ChatTemplate
from sotol.tokenizers.stream import StreamDecoder

__all__ = ["LLM", "Ids", "Message", "Prompt"]

DEFAULT_CONTEXT = 4096  # unless the model's own is shorter
STEP_TOKENS = 512  # of one step: a long prompt runs in such chunks
SEQUENCES = 64  # that run at once
MOST_CONTEXT = 1 << 22  # of any model that there is
CONTEXTS = 4  # full contexts that the cache holds together

Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
Prompt: TypeAlias = str | Ids
Message: TypeAlias = Mapping[str, Any]


class LLM:
    """A loaded model.

    model: a path, or a name of `sotol.catalog`; None is its default. threads: of the CPU; None takes the physical
    cores. ctx: tokens of prompt and answer together; None takes the model's own, up to 4096. precision: "int8"
    quantises activations before quantised weights, "f32" does not. progress: True shows what loading does on standard
    error; or a function, called with what is being done, how much is done, and how much there is.

    Raises SotolError (FormatError for a broken file or one that changes while it is loaded, ModelError for a model that
    sotol can't run), ValueError for a bad option. Once loaded, the file is not read again.

    Any thread may use it, and close it. In a process that was forked from the one that loaded it, all that computes
    raises SotolError.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        threads: int | None = None,
        ctx: int | None = None,
        precision: str = "int8",
        progress: Progress | bool | None = None,
    ) -> None:
        report = printing() if progress is True else progress or None
        for name, value, most in (("threads", threads, MOST_THREADS), ("ctx", ctx, MOST_CONTEXT)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
                raise ValueError(f"{name} is {value!r:.80}; it must be a whole number from 1 to {most}, or None")
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
        self.path = find_model(model)
        self._template: ChatTemplate | None = None
        with explained(f"reading {self.path}"):
            checkpoint = read_gguf(self.path)
            self.metadata = checkpoint.metadata
            self.context = _context(checkpoint.metadata, ctx)
            program = trace_model(checkpoint, self.context)
        blocks = CONTEXTS * -(-self.context // BLOCK_TOKENS)
        limits = Limits(STEP_TOKENS, SEQUENCES, SEQUENCES, self.context, blocks)
        # From here on there are threads. Each object that has some ends them when it is lost, at whatever moment; an
        # exception keeps what it passed through, though, and ends them here.
        try:
            self.runner = CpuRunner(program, limits, threads=threads, precision=precision, progress=report)
        finally:
            program.nodes.clear()  # they and the program hold each other, and with them the mapped file
        try:
            with explained(f"reading {self.path}"):
                self.tokenizer = self._make_tokenizer()  # while the runner's threads load weights
            if report is not None:
                self.runner.wait(report)
            self._engine = Engine(self.runner)
        except BaseException:
            self.runner.close()
            raise

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
            t = self.tokenizer
            bos, eos = (t.token_text(i) if i is not None else "" for i in (t.bos, t.eos))
            name = str(self.metadata["general.architecture"])
            self._template = ChatTemplate.from_metadata(
                self.metadata, bos=bos, eos=eos, architecture=name, tokens=lambda text: t.id_of(text) is not None,
                text_of=t.token_text,
            )  # fmt: skip
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
        self, prompt: Prompt, *, sampling: Sampling | None = None, **options: Unpack[Options]
    ) -> Completion: ...
    @overload
    def generate(
        self, prompt: Sequence[Prompt], *, sampling: Sampling | None = None, **options: Unpack[Options]
    ) -> list[Completion]: ...
    def generate(self, prompt: Any, *, sampling: Sampling | None = None, **options: Unpack[Options]) -> Any:
        """Continue a prompt (text, or ids), or each of a list of prompts, which run as one batch.

        sampling, options: see `Sampling`; options change single fields of it, None stands for a default. Raises
        ValueError for a bad option, an empty prompt, or one that does not fit the context.
        """
        chosen = Sampling.of(sampling, **options)
        if _is_prompt(prompt):
            return self._start([prompt], chosen, Stream)[0].result()
        streams = self._start(prompt, chosen, Stream)
        try:
            return [stream.result() for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    def stream(self, prompt: Prompt, *, sampling: Sampling | None = None, **options: Unpack[Options]) -> Stream:
        """Continue a prompt, piece by piece; leaving the loop, or closing the stream, stops the work."""
        stream: Stream = self._start([prompt], Sampling.of(sampling, **options), Stream)[0]
        return stream

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        **options: Unpack[Options],
    ) -> Completion:
        """The model's answer to a conversation.

        messages, in the form of OpenAI's API: mappings, or objects with `model_dump()`, as its client has them. tools:
        what the model may call, as JSON schemas. template: what the model's chat template takes besides, as
        {"enable_thinking": False}. sampling, options: as for `generate`. Errors as of `chat_prompt` and `generate`.
        """
        return self.stream_chat(messages, tools=tools, template=template, sampling=sampling, **options).result()

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        **options: Unpack[Options],
    ) -> Stream:
        """`chat`, piece by piece."""
        chosen = Sampling.of(sampling, **options)
        return self.stream(self._asked(messages, tools, template), sampling=chosen)

    # ---- the same for asyncio

    @overload
    async def agenerate(  # type: ignore[overload-overlap]  # as above
        self, prompt: Prompt, *, sampling: Sampling | None = None, **options: Unpack[Options]
    ) -> Completion: ...
    @overload
    async def agenerate(
        self, prompt: Sequence[Prompt], *, sampling: Sampling | None = None, **options: Unpack[Options]
    ) -> list[Completion]: ...
    async def agenerate(self, prompt: Any, *, sampling: Sampling | None = None, **options: Unpack[Options]) -> Any:
        """`generate` for asyncio."""
        chosen = Sampling.of(sampling, **options)
        if _is_prompt(prompt):
            return await self._start([prompt], chosen, AsyncStream)[0].result()
        streams = self._start(prompt, chosen, AsyncStream)
        try:
            return [await stream.result() for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    def astream(self, prompt: Prompt, *, sampling: Sampling | None = None, **options: Unpack[Options]) -> AsyncStream:
        """`stream` for `async for`; call it inside the event loop."""
        stream: AsyncStream = self._start([prompt], Sampling.of(sampling, **options), AsyncStream)[0]
        return stream

    async def achat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        **options: Unpack[Options],
    ) -> Completion:
        """`chat` for asyncio."""
        return await self.astream_chat(messages, tools=tools, template=template, sampling=sampling, **options).result()

    def astream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        **options: Unpack[Options],
    ) -> AsyncStream:
        """`stream_chat` for `async for`; call it inside the event loop."""
        chosen = Sampling.of(sampling, **options)
        return self.astream(self._asked(messages, tools, template), sampling=chosen)

    # ---- scores

    def logits(self, texts: Sequence[Ids]) -> list[npt.NDArray[np.float32]]:
        """The logits after every token of each list of ids: float32 [len(ids), vocabulary] for each.

        Raises ValueError for an empty list, or one that does not fit the context.
        """
        if not _is_list(texts):
            raise ValueError(f"texts is a list, with a list of token ids for each: not {texts!r:.100}")
        checked = [self._checked(ids, self.context) for ids in texts]
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
            self.runner.close()  # first: the engine may wait for weights
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
        return f"<LLM {plain(title)}, context {self.context}, {self.runner.threads} threads>"

    # ---- inside

    def _make_tokenizer(self) -> Tokenizer:
        """The file's tokenizer, which may have fewer tokens than the model has logits; ModelError if it has more."""
        tokenizer = Tokenizer.from_metadata(self.metadata, str(self.path), logits=self.runner.vocabulary)
        if len(tokenizer) > self.runner.vocabulary:
            raise ModelError(
                f"{self.path}: the model has logits for {self.runner.vocabulary} tokens,"
                f" but its tokenizer has {len(tokenizer)}"
            )
        return tokenizer

    def _asked(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, template: Mapping[str, Any] | None
    ) -> list[int]:
        """A conversation's ids, for an answer."""
        return self.chat_prompt(messages, **{**(template or {}), "tools": tools})

    def _start(self, prompts: Sequence[Prompt], sampling: Sampling, kind: Any) -> list[Any]:
        """Submit prompts together; a stream of the given kind for each."""
        streams, requests = [], []
        for prompt in prompts:
            ids = self._checked(self.tokenize(prompt) if isinstance(prompt, str) else prompt, self.context - 1)
            sampler = Sampler(sampling, len(self.tokenizer), ids)
            stream = kind(self.tokenizer, len(ids), sampler)
            streams.append(stream)
            requests.append(self._request(ids, sampler, stream))
        try:
            self._engine.submit(requests)
        except BaseException:  # Ctrl-C, too: it may have been submitted
            for stream in streams:
                stream.close()
            raise
        return streams

    def _request(self, ids: list[int], sampler: Sampler, stream: Any) -> Generation:
        sampling = sampler.sampling
        limit = min(len(ids) + (sampling.max_tokens or self.context), self.context)
        # A stop string may spell tokens that answers don't show: then these stop, and so does the same in plain text.
        stops = [self.tokenizer.shown(stop) for stop in sampling.stop]
        ends = frozenset[int]() if sampling.ignore_eos else self.tokenizer.end_of_generation
        ends |= {stop[0] for stop in stops if len(stop) == 1 and isinstance(stop[0], int)}
        request = Generation(
            list(ids),
            sampler,
            StreamDecoder(self.tokenizer, continued=True),
            StopMatcher([*sampling.stop, *stops]),
            ends,
            limit,
            deliver=lambda _event: None,
        )
        engine = self._engine
        request.deliver = stream.attach(lambda: engine.cancel(request))
        return request

    def _checked(self, prompt: Any, longest: int) -> list[int]:
        """A prompt's ids, valid and short enough; ValueError says what is wrong."""
        try:
            ids = [index(i) for i in prompt] if _is_list(prompt) else None
        except TypeError:
            ids = None
        if ids is None:
            raise ValueError(f"a prompt is text or a list of token ids, whole numbers: not {prompt!r:.100}")
        if not ids:
            raise ValueError("the prompt is empty: give at least one token")
        if len(ids) > longest:
            room = "" if longest == self.context else f" before an answer, {self.context} with it"
            raise ValueError(
                f"the prompt has {len(ids)} tokens, but the context holds {longest}{room}:"
                " shorten it, or load the model with a larger ctx"
            )
        bad = next((i for i in ids if not 0 <= i < self.runner.vocabulary), None)
        if bad is not None:
            said = bad if abs(bad) < 2**64 else "beyond 64 bits"
            raise ValueError(f"token id {said} is not in the vocabulary of {self.runner.vocabulary}")
        return ids


def _is_prompt(prompt: Any) -> TypeGuard[Prompt]:
    """One prompt, and not a list of them (as [] is); ValueError for what is neither."""
    if isinstance(prompt, str):
        return True
    if not _is_list(prompt):
        raise ValueError(f"a prompt is text or a list of token ids; it may be a list of those: not {prompt!r:.100}")
    return len(prompt) > 0 and isinstance(prompt[0], int | np.integer)


def _is_list(value: Any) -> bool:
    """A list in a wide sense. Bytes are numbers, but no ids."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview)


def _gather(queue: SimpleQueue[npt.NDArray[np.float32] | Failed | None]) -> npt.NDArray[np.float32]:
    """Wait for all rows of a text's logits; raises what its request failed with."""
    rows = []
    while (part := queue.get()) is not None:
        if isinstance(part, Failed):
            raise part.error
        rows.append(part)
    return np.concatenate(rows)


def _context(metadata: Mapping[str, object], wanted: int | None) -> int:
    """The context length to use; ValueError for more than the model was made for."""
    most = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if not isinstance(most, int) or most < 1:
        most = DEFAULT_CONTEXT if wanted is None else wanted
    if wanted is not None and wanted > most:
        raise ValueError(f"ctx is {wanted}, but the model was made for contexts of at most {most} tokens")
    return min(most, DEFAULT_CONTEXT) if wanted is None else wanted
