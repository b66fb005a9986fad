"""How memory is divided among groups: at least one context, more for more tokens, never beyond the budget."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sotol.kv.sizing import pool_sizes, states_within, tokens_within
from sotol.program.memory import BLOCK_TOKENS, Cache, Group, Paged, State

FULL = Group((Cache("kv.0", Paged(2, 8, 8)),))
STATES = Group((Cache("state.0", State((8,))),), state=True)


def windowed(window: int) -> Group:
    return Group((Cache("kv.1", Paged(2, 8, 8, window=window)),), window)


groups = st.lists(
    st.one_of(st.just(FULL), st.integers(1, 5000).map(windowed), st.just(STATES)), min_size=1, max_size=4
).map(tuple)
contexts, tokens = st.integers(1, 10000), st.integers(1, 100000)
step_tokens, sequences = st.integers(1, 1024), st.integers(1, 64)


@given(groups, tokens, st.integers(0, 100000), contexts, step_tokens, sequences)
def test_more_tokens_are_never_fewer_blocks(
    groups: tuple[Group, ...], tokens: int, more: int, context: int, step_tokens: int, sequences: int
) -> None:
    few, many = (
        pool_sizes(groups, n, context=context, step_tokens=step_tokens, sequences=sequences)
        for n in (tokens, tokens + more)
    )
    assert len(few) == len(groups)
    assert all(0 < a <= b for a, b in zip(few, many, strict=True))


@given(groups, tokens, contexts, step_tokens, sequences)
def test_one_context_always_fits(
    groups: tuple[Group, ...], tokens: int, context: int, step_tokens: int, sequences: int
) -> None:
    """A window needs what a step attends to, wherever it begins; states two blocks for each sequence."""
    sizes = pool_sizes(groups, tokens, context=context, step_tokens=step_tokens, sequences=sequences)
    for group, blocks in zip(groups, sizes, strict=True):
        if group.state:
            assert blocks == 2 * sequences
            continue
        for begin in {0, 1, 15, 16, context // 2, max(0, context - step_tokens), context - 1}:
            last = min(context, begin + step_tokens) - 1
            oldest = max(0, begin - group.window + 1) if group.window else 0
            assert last // BLOCK_TOKENS - oldest // BLOCK_TOKENS < blocks


def test_a_window_has_twice_the_share_of_whole_contexts() -> None:
    """8 contexts of 1024 tokens: with a window of 96 and steps of 32, 10 of a context's 64 blocks are in use."""
    groups = (FULL, windowed(96), windowed(4096), STATES)
    assert pool_sizes(groups, 8 * 1024, context=1024, step_tokens=32, sequences=3) == (512, 160, 512, 6)


@given(groups, st.lists(st.integers(1, 10**6), min_size=4, max_size=4), contexts, step_tokens, sequences, st.data())
def test_the_most_that_fits_is_found(
    groups: tuple[Group, ...], sizes: list[int], context: int, step_tokens: int, sequences: int, data: st.DataObject
) -> None:
    assume(not all(group.state for group in groups))
    sizes = sizes[: len(groups)]

    def taken(tokens: int) -> int:
        counts = pool_sizes(groups, tokens, context=context, step_tokens=step_tokens, sequences=sequences)
        return sum(count * size for count, size in zip(counts, sizes, strict=True))

    least = taken(context)
    memory = data.draw(st.integers(least, 40 * least) | st.integers(1, 300).map(lambda n: taken(n * context)))
    found = tokens_within(memory, groups, sizes, context=context, step_tokens=step_tokens, sequences=sequences)
    assert found >= context
    assert taken(found) <= memory < taken(found + 1)


@given(groups, st.lists(st.integers(1, 10**6), min_size=4, max_size=4), contexts, step_tokens, sequences)
def test_less_than_a_context_is_refused(
    groups: tuple[Group, ...], sizes: list[int], context: int, step_tokens: int, sequences: int
) -> None:
    sizes = sizes[: len(groups)]
    counts = pool_sizes(groups, context, context=context, step_tokens=step_tokens, sequences=sequences)
    needed = sum(count * size for count, size in zip(counts, sizes, strict=True))
    message = f"^a context of {context} tokens needs {needed} bytes: {needed - 1} are too few$"
    with pytest.raises(ValueError, match=message):
        tokens_within(needed - 1, groups, sizes, context=context, step_tokens=step_tokens, sequences=sequences)


def test_states_alone_set_no_bound() -> None:
    """A recurrent model needs as much memory for a million tokens as for one."""
    found = tokens_within(6 * 64, (STATES,), [64], context=100, step_tokens=8, sequences=3)
    assert found > 10**9


@given(st.integers(0, 10**6), st.integers(1, 10**4), sequences)
def test_states_take_at_most_half_of_the_memory(memory: int, size: int, sequences: int) -> None:
    """Nor what one context needs; but two of them there are in any case. The rest of the memory is for others."""
    sizes, limits = [512, size], {"context": 32, "step_tokens": 8, "sequences": sequences}
    states, one_context = states_within(memory, (FULL, STATES), sizes, **limits), 2 * 512
    assert 2 <= states <= 2 * sequences
    most = min(memory // 2, memory - one_context)
    assert states in (2, 2 * sequences) or most - size < states * size <= most
    assert pool_sizes((FULL, STATES), 64, **limits, states=states) == (4, states)
    if memory >= one_context + 2 * size:
        found = tokens_within(memory, (FULL, STATES), sizes, **limits, states=states)
        assert found == (memory - states * size) // 512 * BLOCK_TOKENS
    else:
        with pytest.raises(ValueError, match=f"needs {one_context + 2 * size} bytes: {memory} are too few"):
            tokens_within(memory, (FULL, STATES), sizes, **limits, states=states)


def test_without_states_none_are_counted() -> None:
    assert states_within(1000, (FULL,), [512], context=32, step_tokens=8, sequences=3) == 6
