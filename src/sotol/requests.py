"""From prompts to requests of an engine, and to answers: of one prompt or thousands, one for each or several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sotol.engine import policy
from sotol.engine.engine import Engine
from sotol.engine.options import Options, Sampling, Terms
from sotol.engine.sampling import Sampler
from sotol.engine.sequence import Generation
from sotol.engine.stops import StopMatcher
from sotol.engine.thinking import ThinkingBudget
from sotol.loading import Loaded
from sotol.progress import Progress
from sotol.prompts import Prompt, Turn, checked_ids, is_prompt
from sotol.results import Completion
from sotol.stream import AsyncStream, Stream
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.stream import StreamDecoder
from sotol.turns import Turning

if TYPE_CHECKING:
    from sotol.answers.parser import AnswerParser
    from sotol.engine.constrain import Constraint

__all__ = ["Asked", "Asking", "Chatting", "Streaming", "answers", "answers_async", "asked", "asked_once", "start"]

LONGEST_MARK = 32  # tokens at the end of a prompt in which a thinking block is opened
SEEDS = 2**63  # they are 0 … SEEDS - 1
S = TypeVar("S", Stream, AsyncStream)


class Asking(Options, total=False):
    """What `LLM.generate` takes besides its prompt and `n`."""

    sampling: Sampling | None
    terms: Terms | None
    progress: Progress | bool | None


class Streaming(Options, total=False):
    """What `LLM.stream` takes besides its prompt and `n`."""

    sampling: Sampling | None
    terms: Terms | None


class Chatting(Streaming, Turning, total=False):
    """What `LLM.chat` takes besides its messages and `n`."""


class Asked(NamedTuple):
    """What a caller wants: answers to prompts. single: there is one, and its answer is wanted without a list."""

    prompts: Sequence[Prompt]
    single: bool
    sampling: Sampling
    terms: Terms

    @property
    def each(self) -> int:
        """Answers of a prompt."""
        return self.sampling.n or 1


def asked(prompt: Any, n: int | None, options: Mapping[str, Any]) -> Asked:
    """What a call of `LLM.generate` asks, of a prompt or a list of them. options: those of `Streaming`."""
    single = is_prompt(prompt)
    return _asked([prompt] if single else prompt, n, single=single, **options)


def asked_once(prompt: Any, n: int | None, options: Mapping[str, Any]) -> Asked:
    """The same of a prompt that is certainly one."""
    return _asked([prompt], n, single=True, **options)


def _asked(
    prompts: Sequence[Prompt],
    n: int | None,
    *,
    single: bool,
    sampling: Sampling | None = None,
    terms: Terms | None = None,
    **options: Any,
) -> Asked:
    chosen = Sampling.of(sampling, **({} if n is None else {"n": n}), **options)
    if terms is not None and not isinstance(terms, Terms):
        raise ValueError(f"terms is {terms!r:.100}; it must be a sotol.Terms, or None")
    return Asked(prompts, single, chosen, terms or Terms())


def start(
    engine: Engine, model: Loaded, asked: Asked, kind: type[S], ended: Callable[[int], None] | None = None
) -> list[S]:
    """Submit requests together; a stream for each: all of the first prompt's answers, then all of the second's, …

    ended: called with a stream's number when its last event has come, see `Stream.attach`. Errors as of `LLM.generate`.
    """
    terms = asked.terms.at(monotonic())
    streams, requests = list[S](), list[Generation]()
    for prompt in asked.prompts:
        turn = prompt if isinstance(prompt, Turn) else None
        given = model.tokenizer.encode(prompt) if isinstance(prompt, str) else turn.ids if turn else prompt
        ids = checked_ids(given, model.context - 1, context=model.context, vocabulary=model.vocabulary)
        shown = frozenset[int]() if turn is None else _shown(turn, model.tokenizer)
        constraint = _constraint(engine, model, asked.sampling, turn)
        for sampler in _samplers(asked, len(model.tokenizer), ids):
            stream = kind(
                model.tokenizer, len(ids), sampler, None if turn is None else _parser(turn, model.tokenizer, shown)
            )
            request = _request(model, ids, sampler, terms, shown)
            request.budget = None if turn is None else _budget(turn, model.tokenizer, sampler.sampling.thinking_budget)
            request.matcher = None if constraint is None else constraint.matcher(insist=sampler.sampling.ignore_eos)
            finished = None if ended is None else partial(ended, len(streams))
            request.deliver = stream.attach(partial(engine.cancel, request), engine.outbox, finished)
            streams.append(stream)
            requests.append(request)
    try:
        engine.submit(requests)
    except BaseException:  # Ctrl-C, too: it may have been submitted
        for stream in streams:
            stream.close()
        raise
    return streams


def _constraint(engine: Engine, model: Loaded, sampling: Sampling, turn: Turn | None) -> "Constraint | None":
    """What an answer must be; None: anything."""
    calls = turn is not None and turn.tool_choice.mode == "required"
    if engine.grammars is None or not (calls or sampling.constrained):
        return None
    from sotol.constraints import constraint_of  # noqa: PLC0415  (few answers have one)

    return constraint_of(engine.grammars, model.tokenizer, sampling, turn)


def _budget(turn: Turn, tokenizer: Tokenizer, most: int | None) -> ThinkingBudget | None:
    """What ends the thoughts of an answer; None: they end by themselves."""
    if most is None or not turn.format.thinking:
        return None
    end = tokenizer.decode(turn.ids[-LONGEST_MARK:], special=True, continued=True).rstrip() if turn.thinking else ""
    opened = sorted(turn.format.thinking, key=lambda pair: not end.endswith(pair.open))  # the one that is, first
    pairs = []
    for pair in opened:
        closing = pair.close + turn.format.between
        pairs.append(
            (pair.open, pair.close, tokenizer.encode(closing, special=True, add_special=False, continued=True))
        )
    return ThinkingBudget(pairs, most, begun=turn.thinking)


def _samplers(asked: Asked, vocabulary: int, ids: Sequence[int]) -> list[Sampler]:
    """For each answer of a prompt, with seeds that follow each other."""
    first = Sampler(asked.sampling, vocabulary, ids)
    seeds = [(first.seed + i) % SEEDS for i in range(1, asked.each)]
    return [first, *(Sampler(replace(asked.sampling, seed=seed), vocabulary, ids) for seed in seeds)]


def _shown(turn: Turn, tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of control tokens by which the answer is read."""
    spelled = (part for marker in turn.format.markers for part in tokenizer.shown(marker))
    return frozenset(part for part in spelled if isinstance(part, int))


def _parser(turn: Turn, tokenizer: Tokenizer, shown: frozenset[int]) -> "AnswerParser | None":
    """What reads an answer; None if there is nothing to take apart."""
    if turn.format.plain:
        return None
    from sotol.answers.parser import AnswerParser  # noqa: PLC0415  (starts without chats do without)

    hidden = frozenset(map(tokenizer.token_text, shown))
    return AnswerParser(turn.format, turn.callable, thinking=turn.thinking, hidden=hidden, parallel=turn.parallel)


def _request(
    model: Loaded, ids: Sequence[int], sampler: Sampler, terms: policy.Terms, shown: frozenset[int]
) -> Generation:
    sampling, tokenizer = sampler.sampling, model.tokenizer
    limit = min(len(ids) + (sampling.max_tokens or model.context), model.context)
    # A stop string may spell tokens that answers don't show: then these stop, and so does the same in plain text.
    stops = [tokenizer.shown(stop) for stop in sampling.stop]
    free = sampling.ignore_eos and not sampling.constrained
    ends = frozenset[int]() if free else tokenizer.end_of_generation
    ends |= {stop[0] for stop in stops if len(stop) == 1 and isinstance(stop[0], int)}
    return Generation(
        list(ids),
        sampler,
        StreamDecoder(tokenizer, continued=True, shown=shown),
        StopMatcher([*sampling.stop, *stops]),
        ends,
        limit,
        deliver=lambda _event: None,
        terms=terms,
    )


def answers(engine: Engine, model: Loaded, asked: Asked, progress: Progress | None) -> Any:
    """Wait for all; a Completion, or lists as `LLM.generate` says. If one fails, or the caller is interrupted, all end.

    progress: told how many prompts have their answers.
    """
    ended: SimpleQueue[int] = SimpleQueue()
    streams = start(engine, model, asked, Stream, ended.put)
    try:
        tally = _Tally(asked, progress)
        while tally.left:
            number = ended.get()
            tally.take(number, streams[number].result())
        return tally.result()
    finally:
        for stream in streams:
            stream.close()


async def answers_async(engine: Engine, model: Loaded, asked: Asked, progress: Progress | None) -> Any:
    """The same for asyncio."""
    import asyncio  # noqa: PLC0415  (15 ms, and the command line does without)

    ended: asyncio.Queue[int] = asyncio.Queue()
    streams = start(engine, model, asked, AsyncStream, ended.put_nowait)
    try:
        tally = _Tally(asked, progress)
        while tally.left:
            number = await ended.get()
            tally.take(number, await streams[number].result())
        return tally.result()
    finally:
        for stream in streams:
            stream.close()


class _Tally:
    """The answers that have come, in whatever order."""

    def __init__(self, asked: Asked, progress: Progress | None) -> None:
        self._asked, self._progress = asked, progress
        self._missing = [asked.each] * len(asked.prompts)  # answers of each prompt
        self._done = 0  # prompts
        self._answers: dict[int, Completion] = {}
        self.left = asked.each * len(asked.prompts)
        if self.left:
            self._report()

    def take(self, number: int, answer: Completion) -> None:
        """The answer of a stream."""
        self._answers[number] = answer
        self.left -= 1
        prompt = number // self._asked.each
        self._missing[prompt] -= 1
        if not self._missing[prompt]:
            self._done += 1
            self._report()

    def result(self) -> Any:
        """All, as the caller wants them."""
        each = self._asked.each
        flat = [self._answers[number] for number in range(len(self._answers))]
        grouped = self._asked.sampling.n is not None
        all_of = [flat[at : at + each] for at in range(0, len(flat), each)] if grouped else flat
        return all_of[0] if self._asked.single else all_of

    def _report(self) -> None:
        if self._progress is not None:
            self._progress("answering prompts", self._done, len(self._missing))
