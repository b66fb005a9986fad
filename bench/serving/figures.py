"""Numbers of played traces. Seconds and tokens; what has no value, since all failed, is None."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from statistics import median

from bench.serving.play import Answer
from bench.serving.trace import SHARED, Client

__all__ = ["Load", "Speeds", "gaps", "ideal_seconds", "load_of", "percentile", "tail_ratio"]


@dataclass(frozen=True, slots=True)
class Load:
    """How an engine did under load."""

    requests: int
    failures: int
    tokens: int  # of all answers
    seconds: float | None  # from the first request's arrival to the last token
    throughput: float | None  # tokens / seconds
    first: dict[str, float | None]  # seconds to the first token: "p50", "p90", "p99" of the requests
    between: dict[str, float | None]  # seconds between a request's tokens: "p50", "p99" of all gaps of all


@dataclass(frozen=True, slots=True)
class Speeds:
    """What sotol does with one kind of work alone, in tokens per second."""

    prefill: float  # one prompt of 512
    decode: dict[int, float]  # of so many sequences together, all of their tokens

    @property
    def batch(self) -> float:
        """The best of the batches."""
        return max(self.decode.values())


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value below which so many percent of the values lie, linear between two of them; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = ordered[floor(place)], ordered[ceil(place)]
    return low + (high - low) * (place - floor(place))


def gaps(answer: Answer, since: float = float("-inf"), until: float = float("inf")) -> list[float]:
    """Seconds before each token but those that came first, of tokens that came between two times.

    Tokens that came together share their gap evenly: an engine that holds back a token whose text is an incomplete
    character did not take two steps' time for one token.
    """
    found = list[float]()
    for i, (at, count) in enumerate(answer.arrivals[1:]):
        if since <= at <= until:
            found += [(at - answer.arrivals[i][0]) / count] * count
    return found


def load_of(answers: Iterable[Answer]) -> Load:
    """How an engine did. Tokens of answers that failed do not count, nor do their times."""
    every = list(answers)
    good = [x for x in every if not x.error]
    tokens = sum(x.tokens for x in good)
    first = [x.arrivals[0][0] - x.asked for x in good]
    between = [gap for x in good for gap in gaps(x)]
    seconds = max(x.arrivals[-1][0] for x in good) - min(x.asked for x in every) if good else None
    return Load(
        requests=len(every),
        failures=len(every) - len(good),
        tokens=tokens,
        seconds=seconds,
        throughput=tokens / seconds if seconds else None,
        first={f"p{x}": percentile(first, x) for x in (50, 90, 99)},
        between={f"p{x}": percentile(between, x) for x in (50, 99)},
    )


def ideal_seconds(clients: Sequence[Client], speeds: Speeds) -> float:
    """Seconds of a `trace.poisson` if each kind of work went as it does alone, and shared tokens were read once.

    (shared + unshared tokens of prompts) / prefill + new tokens / batch. Arrivals do not count.
    """
    requests = [request for client in clients for request in client.requests]
    prompts = SHARED + sum(len(request.prompt) - SHARED for request in requests)
    return prompts / speeds.prefill + sum(request.new for request in requests) / speeds.batch


def tail_ratio(crowded: Sequence[float], quiet: Sequence[float]) -> float | None:
    """p99 of the gaps beside other work over the median of those without; None if there are none of either."""
    worst = percentile(crowded, 99)
    return worst / median(quiet) if worst is not None and quiet else None
