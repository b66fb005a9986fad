"""How many blocks each group of caches gets from a common budget of memory."""

from collections.abc import Sequence

from sotol.program.memory import BLOCK_TOKENS, Group

__all__ = ["pool_sizes", "states_within", "tokens_within"]

MOST_BLOCKS = 2**36  # the limit where blocks take no memory: a program without caches


def pool_sizes(
    groups: Sequence[Group], tokens: int, *, context: int, step_tokens: int, sequences: int, states: int | None = None
) -> tuple[int, ...]:
    """Blocks of each group, to cache `tokens` tokens in all, and at least one context.

    A group with a sliding window gets what those tokens need if they are contexts of full length, twice: once for
    running sequences, once for cached prefixes. states: blocks of a group of states; None: two per sequence, for the
    same reason.
    """
    whole = -(-max(tokens, context) // BLOCK_TOKENS)

    def blocks(group: Group) -> int:
        if group.state:
            return 2 * sequences if states is None else states
        if not group.window:
            return whole
        seen = min(context, group.window + step_tokens + 2 * BLOCK_TOKENS)  # tokens that one sequence's step attends to
        return min(whole, max(-(-seen // BLOCK_TOKENS), -(-2 * whole * seen // context)))

    return tuple(map(blocks, groups))


def states_within(
    memory: int, groups: Sequence[Group], block_bytes: Sequence[int], *, context: int, step_tokens: int, sequences: int
) -> int:
    """How many states half of `memory` bytes holds, beside one context; at most two per sequence, at least two in all.

    A state can be as large as a thousand tokens' keys and values. Sequences that find none wait for others to end.
    """
    size = sum(bytes_ for group, bytes_ in zip(groups, block_bytes, strict=True) if group.state)
    if not size:
        return 2 * sequences
    least = pool_sizes(groups, context, context=context, step_tokens=step_tokens, sequences=sequences, states=0)
    rest = memory - sum(count * bytes_ for count, bytes_ in zip(least, block_bytes, strict=True))
    return min(2 * sequences, max(2, min(memory // 2, rest) // size))


def tokens_within(
    memory: int, groups: Sequence[Group], block_bytes: Sequence[int], *, context: int, step_tokens: int, sequences: int,
    states: int | None = None,
) -> int:  # fmt: skip
    """The most tokens whose blocks fit in `memory` bytes, in whole blocks. ValueError if not even one context fits."""

    def taken(blocks: int) -> int:
        tokens = blocks * BLOCK_TOKENS
        sizes = pool_sizes(groups, tokens, context=context, step_tokens=step_tokens, sequences=sequences, states=states)
        return sum(count * size for count, size in zip(sizes, block_bytes, strict=True))

    least = most = -(-context // BLOCK_TOKENS)
    if taken(least) > memory:
        raise ValueError(f"a context of {context} tokens needs {taken(least)} bytes: {memory} are too few")
    while taken(most) <= memory and most < MOST_BLOCKS:
        most *= 2
    while most - least > 1:  # `least` blocks fit, `most` do not
        middle = (least + most) // 2
        least, most = (middle, most) if taken(middle) <= memory else (least, middle)
    return least * BLOCK_TOKENS
