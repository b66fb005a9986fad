"""What is asked of an engine, and the figures of its answers, as JSON has them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.serving.engines import Play
from bench.serving.figures import gaps, load_of, percentile, tail_ratio
from bench.serving.play import Answer
from bench.serving.trace import NEW, PROMPT, TAIL, Client, Request, beside_prompts, poisson, with_prefix

__all__ = ["SCENARIOS", "Scenario", "Work", "warm_up"]

PREFIX, PREFIXES = 2000, 5  # tokens of a prefix, and how many of them
LONG, LONG_PROMPTS = 4096, 4  # tokens of a long prompt, and how many come back to back
RUNNING, RUNNING_PROMPT, RUNNING_NEW = 8, 64, 2048  # answers beside them, which end with the long prompts
SETTLED = 2.0  # seconds after which the long prompts begin: the answers run
PAGE = 256  # contexts are multiples of it


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked for."""

    ordinary: Sequence[int]  # ids of tokens that are text
    requests: int
    rate: float  # of arrivals per second
    seed: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked of each engine."""

    about: str
    context: int  # tokens of the longest request, rounded up
    run: Callable[[Play, Work], dict[str, Any]]


def warm_up(play: Play, work: Work) -> None:
    """A short request that does not count: the first touches memory and wakes threads."""
    play([Client((Request(0.0, tuple(work.ordinary[:32]), 4),))])


def _load(play: Play, work: Work) -> dict[str, Any]:
    clients = poisson(work.ordinary, work.requests, work.rate, work.seed)
    answers = [x for client in play(clients) for x in client]
    errors = sorted({x.error for x in answers if x.error})
    return {**asdict(load_of(answers)), "errors": errors, "answers": [_brief(x) for x in answers]}


def _brief(answer: Answer) -> dict[str, Any]:
    times = [round(at, 4) for at, _ in answer.arrivals]
    return {
        "asked": round(answer.asked, 4), "first": times[:1], "last": times[-1:], "tokens": answer.tokens,
        "error": answer.error,
    }  # fmt: skip


def _prefix(play: Play, work: Work) -> dict[str, Any]:
    firsts, seconds, errors = [], [], set[str]()
    for number in range(PREFIXES):
        [answers] = play(with_prefix(work.ordinary, PREFIX, 1, work.seed + number))
        errors |= {x.error for x in answers if x.error}
        if not any(x.error for x in answers):
            first, second = (x.arrivals[0][0] - x.asked for x in answers)
            firsts.append(first)
            seconds.append(second)
    ratios = [x / y for x, y in zip(firsts, seconds, strict=True)]
    return {
        "first": percentile(firsts, 50), "second": percentile(seconds, 50), "ratio": percentile(ratios, 50),
        "firsts": firsts, "seconds": seconds, "errors": sorted(errors),
    }  # fmt: skip


def _long(play: Play, work: Work) -> dict[str, Any]:
    prompts = (LONG,) * LONG_PROMPTS
    beside = beside_prompts(work.ordinary, RUNNING, RUNNING_PROMPT, prompts, RUNNING_NEW, SETTLED, work.seed + 1)
    *crowd, long = play(beside)
    answered = [x for x in long if not x.error]
    crowded, begun, ended = list[float](), 0, 1
    errors = {x.error for client in [*crowd, long] for x in client if x.error}
    if answered:
        since, until = answered[0].asked, answered[-1].arrivals[-1][0]
        crowded = [gap for [answer] in crowd for gap in gaps(answer, since, until)]
        counts = [[sum(n for at, n in answer.arrivals if at <= end) for end in (since, until)] for [answer] in crowd]
        begun, ended = min(first for first, _ in counts), max(last for _, last in counts)
        if any(answer.arrivals[-1][0] < until and answer.tokens == RUNNING_NEW for [answer] in crowd):
            errors.add(f"answers of {RUNNING_NEW} tokens ended before the long prompts")
    # The same answers without the prompts, at the same lengths: what a token takes grows with what comes before it.
    *running, _ = play(beside_prompts(work.ordinary, RUNNING, RUNNING_PROMPT, (), max(ended, 2), SETTLED, work.seed))
    quiet = [gap for [answer] in running for gap in gaps(answer)[begun:]]
    errors |= {x.error for client in running for x in client if x.error}
    return {
        "quiet": {"p50": median(quiet) if quiet else None, "p99": percentile(quiet, 99)},
        "crowded": {"p50": percentile(crowded, 50), "p99": percentile(crowded, 99), "gaps": len(crowded)},
        "ratio": tail_ratio(crowded, quiet),
        "prompt": percentile([x.arrivals[0][0] - x.asked for x in answered], 50),
        "errors": sorted(errors),
    }  # fmt: skip


def _context(tokens: int) -> int:
    return -(-tokens // PAGE) * PAGE


# What `--scenario` takes.
SCENARIOS = {
    "load": Scenario("requests that share their beginning", _context(PROMPT[1] + NEW[1]), _load),
    "prefix": Scenario(
        f"a prompt of {PREFIX} tokens, then the same with {TAIL} more", _context(PREFIX + TAIL + 1), _prefix
    ),
    "long": Scenario(
        f"{RUNNING} answers beside prompts of {LONG} tokens back to back", _context(LONG + 1), _long
    ),
}  # fmt: skip
