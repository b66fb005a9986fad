"""The longest usable prefix, without eviction, against a naive search of everything that was computed."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kv.fake_device import check, common

from sotol.kv.memory import STATE_TOKENS, Held, Memory
from sotol.program.memory import Group

FULL, STATE = Group(()), Group((), state=True)


class Request(NamedTuple):
    like: int  # index of an earlier text
    cut: int  # how many of its tokens this one begins with
    token: int
    new: int  # how many tokens follow
    generated: int
    most: int  # how many may be reused; beyond the length: all but the last
    closes: bool


REQUESTS = st.lists(
    st.builds(
        Request,
        like=st.integers(0, 9),
        cut=st.integers(0, 150) | st.sampled_from([16, 32, 48, 64]),
        token=st.integers(0, 2),
        new=st.integers(1, 60),
        generated=st.integers(0, 40),
        most=st.just(1000) | st.integers(0, 100),
        closes=st.booleans(),
    ),
    min_size=1,
    max_size=10,
)


def tokens_of(request: Request, texts: list[list[int]]) -> tuple[list[int], int]:
    """Its tokens, and how many of them may be reused."""
    before = texts[request.like % len(texts)] if texts else []
    tokens = before[: request.cut] + [request.token] * request.new
    return tokens, min(request.most, len(tokens) - 1)


def run_to(memory: Memory, held: Held, tokens: list[int]) -> None:
    """Compute all of them."""
    while held.length < len(tokens):
        stop = memory.stop(held, min(len(tokens), held.length + 30))
        assert memory.extend(held, stop)
        memory.commit(held, tokens, stop)


@pytest.mark.parametrize("groups", [(FULL,), (FULL, Group((), 24)), (Group((), 5), Group((), 24))])
@given(requests=REQUESTS)
def test_of_pages_all_that_was_computed_can_be_used(groups: tuple[Group, ...], requests: list[Request]) -> None:
    memory = Memory(groups, [1000] * len(groups), step_tokens=30)
    texts: list[list[int]] = []
    known: list[list[int]] = []
    helds: list[Held] = []
    for request in requests:
        tokens, most = tokens_of(request, texts)
        held = memory.open(tokens, most)
        assert held is not None
        assert held.reused == max((common(tokens[:most], other) for other in known), default=0)
        run_to(memory, held, tokens)
        for _ in range(request.generated):
            tokens.append(request.token)
            run_to(memory, held, tokens)
        texts.append(tokens)
        if request.closes:
            memory.close(held)
            known.append(tokens)
        else:
            helds.append(held)
            known.append(tokens[: len(tokens) // 16 * 16])
        check(memory, helds)


@pytest.mark.parametrize("groups", [(STATE,), (FULL, Group((), 24), STATE)])
@given(requests=REQUESTS, long=st.booleans())
def test_of_states_those_that_were_kept_can_be_used(
    groups: tuple[Group, ...], requests: list[Request], long: bool
) -> None:
    memory = Memory(groups, [1000] * len(groups), step_tokens=30)
    texts = [[2] * (700 if long else 20)]
    known = {tuple[int, ...]()}
    for request in requests:
        tokens, most = tokens_of(request, texts)
        if long:
            tokens = texts[0] + tokens
            most += len(texts[0])
        held = memory.open(tokens, most)
        assert held is not None
        usable = max(end for end in range(most + 1) if tuple(tokens[:end]) in known)
        assert held.reused == usable
        last, own = (len(tokens) - 1) // 16 * 16, None
        ends = [end for end in range(16, last + 1, 16) if end > usable and (end % STATE_TOKENS == 0 or end == last)]
        known |= {tuple(tokens[:end]) for end in ends}
        run_to(memory, held, tokens)
        for _ in range(request.generated):
            tokens.append(request.token)
            run_to(memory, held, tokens)
        for end in range(max(last, usable) + 16, len(tokens) + 1, 16):
            known -= {own} if own else set()
            own = None if tuple(tokens[:end]) in known else tuple(tokens[:end])
            known.add(tuple(tokens[:end]))
        texts.append(tokens if not long else tokens[len(texts[0]) :])
        memory.close(held)
        check(memory, [])
