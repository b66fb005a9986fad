"""Each rule of Memory, in small examples. Blocks have 16 tokens."""

from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from tests.kv.fake_device import check, nodes

from sotol.kv.memory import Held, Memory
from sotol.program.memory import Copy, Group
from sotol.program.step import Limits, Step

FULL, STATE = Group(()), Group((), state=True)
WINDOW = Group((), window=24)


def text(length: int, seed: int = 0) -> list[int]:
    """Tokens; those of different seeds differ from the first token on."""
    return [1000 * seed + i for i in range(length)]


def make(*groups: Group, blocks: Sequence[int] = (), step: int = 64, reuse: bool = True) -> Memory:
    return Memory(groups, blocks or [100] * len(groups), step_tokens=step, reuse=reuse)


def begin(memory: Memory, tokens: Sequence[int], key: Hashable = (), most: int | None = None) -> Held:
    held = memory.open(tokens, len(tokens) - 1 if most is None else most, key)
    assert held is not None
    return held


def compute(memory: Memory, held: Held, tokens: Sequence[int], step: int = 64) -> None:
    """Run all steps to the end of the tokens."""
    while held.length < len(tokens):
        stop = memory.stop(held, min(len(tokens), held.length + step))
        assert memory.extend(held, stop)
        memory.commit(held, tokens, stop)


def finish(memory: Memory, tokens: Sequence[int], key: Hashable = (), generated: Sequence[int] = ()) -> Held:
    """Open a sequence, compute all of it, and close it."""
    held = begin(memory, tokens, key)
    compute(memory, held, tokens)
    for i in range(len(generated)):
        compute(memory, held, [*tokens, *generated[: i + 1]])
    memory.close(held)
    memory.take_copies()
    return held


def blocks(held: Held, group: int = 0) -> list[int]:
    return list(held.blocks[group])


def known(memory: Memory, tokens: Sequence[int], most: int | None = None) -> int:
    """How many of the tokens would be reused."""
    held = begin(memory, tokens, most=most)
    memory.close(held)
    memory.take_copies()
    return held.reused


# ---- prefixes


def test_a_prefix_is_shared_in_whole_blocks_while_its_sequence_runs() -> None:
    memory = make(FULL)
    first = begin(memory, text(40))
    compute(memory, first, text(40))
    second = begin(memory, text(40) + text(10, 1))
    assert second.length == second.reused == 32
    assert blocks(second) == blocks(first)[:2]
    compute(memory, second, text(40) + text(10, 1))
    assert blocks(second)[2] not in blocks(first)
    assert memory.load() == ((100, 95, 5, 0),)
    check(memory, [first, second])


def test_texts_of_other_keys_share_nothing() -> None:
    memory = make(FULL)
    finish(memory, text(40), "one adapter")
    assert begin(memory, text(40), "another").reused == 0
    assert begin(memory, text(40), "one adapter").reused == 39


def test_the_next_turn_of_a_chat_computes_what_is_new() -> None:
    memory = make(FULL, WINDOW)
    finish(memory, text(37))
    turn = begin(memory, text(60))
    assert turn.reused == 37
    copies = memory.take_copies()
    assert [(copy.group, copy.to) for copy in copies] == [(0, blocks(turn, 0)[2]), (1, blocks(turn, 1)[-1])]
    assert all(copy.source != copy.to for copy in copies)
    assert memory.take_copies() == []  # each is returned once
    check(memory, [turn])


def test_the_last_token_of_a_prompt_that_is_known_runs_again_in_a_copy() -> None:
    memory = make(FULL)
    finish(memory, text(32))
    again = begin(memory, text(32))
    assert again.reused == 31
    assert len(memory.take_copies()) == 1
    assert known(memory, text(32), most=0) == 0
    assert known(memory, text(32), most=20) == 20
    assert known(memory, text(32), most=32) == 32


def test_a_part_is_that_of_the_child_with_most_in_common() -> None:
    memory = make(FULL, blocks=[3000])
    for i in range(1000):
        finish(memory, [*text(16), *([7] * (i % 14)), 100 + i, 8])
    for count in (0, 5, 13):
        assert known(memory, [*text(16), *[7] * count, 9, 9]) == 16 + count
    assert known(memory, [*text(16), *[7] * 5, 105, 8, 8]) == 16 + 7
    assert known(memory, [*text(16), *[7] * 5, 117, 8, 8]) == 16 + 5  # 117 follows three sevens
    assert known(memory, [*text(16), *[7] * 3, 117, 8, 8]) == 16 + 5


def test_a_tail_makes_way_for_a_longer_one_and_for_a_whole_block() -> None:
    memory = make(FULL)
    for length, lengths in ((20, [4, 16]), (25, [9, 16]), (22, [9, 16]), (40, [8, 16, 16]), (23, [8, 16, 16])):
        finish(memory, text(length))
        assert sorted(len(node.tokens) for _, _, node in nodes(memory)) == lengths
        assert memory.load()[0].kept == len(lengths)
    check(memory, [])


def test_no_part_is_copied_where_no_block_is_to_be_had() -> None:
    memory = make(FULL, blocks=[4])
    finish(memory, text(20))
    other = begin(memory, text(32, 1))
    assert memory.extend(other, 32)
    again = begin(memory, text(20))
    assert again.reused == 16 + 3  # the sequence takes over the tail's block: nothing is copied
    assert memory.take_copies() == []
    third = begin(memory, text(20))
    assert third.reused == 16
    check(memory, [other, again, third])


def test_two_that_compute_the_same_have_it_once_in_the_end() -> None:
    memory = make(FULL, WINDOW)
    first, second = begin(memory, text(40)), begin(memory, text(40))
    assert second.reused == 0  # 32 tokens are not worth waiting for
    for held in (first, second):
        compute(memory, held, text(40))
    assert blocks(first)[:2] == blocks(second)[:2]
    assert blocks(first, 1)[:2] == blocks(second, 1)[:2]
    assert memory.load()[0] == (100, 96, 4, 0)
    check(memory, [first, second])


def test_a_sequence_that_gave_way_begins_where_it_was() -> None:
    memory = make(FULL, WINDOW)
    tokens = text(50)
    held = begin(memory, tokens[:33])
    compute(memory, held, tokens[:33])
    compute(memory, held, tokens)
    memory.close(held)
    assert begin(memory, [*tokens, 5]).reused == 50


def test_without_reuse_each_sequence_computes_its_own() -> None:
    memory = make(FULL, WINDOW, STATE, reuse=False)
    for _ in range(2):
        held = finish(memory, text(40))
        assert held.reused == 0
    first, second = begin(memory, text(200)), begin(memory, text(200))
    compute(memory, first, text(200))
    compute(memory, second, text(200))
    assert not set(blocks(first)) & set(blocks(second))
    assert len(blocks(first, 1)) < 10  # windows release their blocks all the same
    assert memory.take_copies() == []
    assert memory.stop(first, 10_000) == 10_000
    for held in (first, second):
        memory.close(held)
    assert [load.free for load in memory.load()] == [100, 100, 100]


# ---- windows


def test_a_window_lets_go_of_what_is_behind_it() -> None:
    memory = make(WINDOW)
    held = begin(memory, text(200))
    seen = []
    for end in (16, 39, 40, 64, 65, 104):
        assert memory.extend(held, end)
        memory.commit(held, text(200), end)
        assert memory.extend(held, end)
        (table,) = memory.tables([held])
        seen.append(int(table.first[0]))
        assert len(blocks(held)) == -(-end // 16) - seen[-1]
    assert seen == [0, 1, 1, 2, 2, 5]  # position `end` sees 23 tokens before it
    assert memory.load()[0] == (100, 93, 2, 5)


def test_a_prefix_needs_the_blocks_of_its_last_window_alone() -> None:
    memory = make(FULL, WINDOW, blocks=[20, 8])
    finish(memory, text(96))  # 6 blocks
    other = begin(memory, text(60, 1))
    assert memory.extend(other, 60)  # takes the two free ones, and two that the window has released
    assert known(memory, [*text(96), 1]) == 96
    assert known(memory, [*text(64), 1]) == 64
    assert known(memory, [*text(48), 1]) == 0
    assert known(memory, text(60), most=60) == 0  # even a partial block would need an evicted one
    check(memory, [other])


def test_the_middle_of_a_long_text_ages_first() -> None:
    memory = make(FULL, WINDOW, blocks=[40, 16])
    finish(memory, text(160))
    for i in (1, 2, 3, 4):
        finish(memory, text(48, i))  # 12 blocks: six that are free, and the first six of the long text
    assert known(memory, [*text(48), 1]) == 0
    assert known(memory, [*text(160), 1]) == 160


# ---- eviction


def test_the_least_recently_used_leaf_goes_first() -> None:
    memory = make(FULL, blocks=[6])
    finish(memory, text(32, 1))
    finish(memory, text(32, 2))
    finish(memory, text(32, 3))
    assert known(memory, text(32, 1), most=32) == 32  # the most recently used
    held = begin(memory, text(48, 4))
    assert memory.extend(held, 48)  # three blocks: both of text 2, and the last of text 3
    assert [known(memory, text(32, i), most=32) for i in (1, 2, 3)] == [32, 0, 16]
    check(memory, [held])


def test_a_prefix_that_several_used_outlives_newer_ones() -> None:
    memory = make(FULL, blocks=[12])
    system = text(32)
    for i in (1, 2, 3):
        finish(memory, system + text(16, i))
    for i in range(4, 24):
        finish(memory, text(48, i))
    assert known(memory, [*system, 5]) == 32
    assert known(memory, system + text(16, 1)) == 32


def test_windows_go_by_age_alone() -> None:
    memory = make(FULL, WINDOW, blocks=[100, 8])
    for i in (1, 2, 3):
        finish(memory, text(32) + text(16, i))
    finish(memory, text(48, 4))
    held = begin(memory, text(64, 5))  # four of eight blocks: the three ends, and one of their common prefix
    assert memory.extend(held, 64)
    assert known(memory, [*text(32), 5]) == 16
    assert known(memory, [*text(48, 4), 5]) == 48


def test_what_is_only_asked_for_is_not_used() -> None:
    """A request without room is opened and closed again, perhaps in every step."""
    memory = make(FULL, blocks=[12])
    finish(memory, text(32))
    for _ in range(5):
        assert known(memory, [*text(32), 5]) == 32
    for i in range(4, 24):
        finish(memory, text(48, i))
    assert known(memory, [*text(32), 5]) == 0


def test_what_runs_is_never_evicted_and_room_is_all_or_nothing() -> None:
    memory = make(FULL, WINDOW, blocks=[4, 9])
    held = begin(memory, text(40))
    compute(memory, held, text(40))
    other = begin(memory, text(20, 1))
    before = memory.load()
    assert not memory.extend(other, 20)  # one full block is free, two are wanted
    assert memory.load() == before
    assert memory.available() == (1, 6)
    assert memory.extend(other, 16)
    memory.close(held)
    assert memory.extend(other, 64)
    check(memory, [other])


def test_a_full_block_takes_windows_and_states_along() -> None:
    memory = make(FULL, WINDOW, STATE, blocks=[4, 20, 5])
    finish(memory, text(49))
    assert [load.kept for load in memory.load()] == [3, 3, 1]
    held = begin(memory, text(64, 1))
    assert memory.extend(held, 32)
    assert [load.kept for load in memory.load()] == [2, 2, 0]
    check(memory, [held])


def test_all_that_nobody_runs_can_be_forgotten() -> None:
    memory = make(FULL, STATE)
    finish(memory, text(49))
    held = begin(memory, text(20, 1))
    compute(memory, held, text(20, 1))
    memory.clear()
    assert [load.kept for load in memory.load()] == [0, 0]
    assert known(memory, text(49)) == 0
    check(memory, [held])


# ---- states


def test_a_sequence_begins_with_a_copy_of_the_state_that_was_kept() -> None:
    memory = make(FULL, STATE)
    first = begin(memory, text(40))
    assert memory.stop(first, 40) == 32
    assert memory.extend(first, 32)
    slot = blocks(first, 1)
    memory.commit(first, text(40), 32)
    (kept,) = memory.take_copies()
    assert (kept.group, kept.source) == (1, slot[0])
    assert memory.stop(first, 40) == 40
    second = begin(memory, [*text(35), 5])
    assert second.reused == 32
    assert memory.take_copies() == [Copy(1, kept.to, blocks(second, 1)[0])]
    assert len({*slot, kept.to, *blocks(second, 1)}) == 3


def test_states_are_kept_where_a_prompt_ends_and_each_512_tokens() -> None:
    memory = make(STATE)
    held, stops = begin(memory, text(1200)), list[int]()
    while held.length < 1200:
        stops.append(memory.stop(held, min(1200, held.length + 300)))
        assert memory.extend(held, stops[-1])
        memory.commit(held, text(1200), stops[-1])
    assert stops == [300, 512, 812, 1024, 1184, 1200]
    assert [known(memory, [*text(n), 5]) for n in (500, 512, 1023, 1100, 1184, 1199, 1200)] == [
        0,
        512,
        512,
        1024,
        1184,
        1184,
        1200,
    ]


def test_of_what_is_generated_the_last_state_is_kept() -> None:
    memory = make(STATE)
    finish(memory, text(20), generated=text(50, 1))
    whole = text(20) + text(50, 1)
    assert memory.load()[0].kept == 2
    assert known(memory, [*whole[:63], 5]) == 16
    assert known(memory, [*whole, 5]) == 64


def test_a_state_that_another_went_on_from_stays() -> None:
    memory = make(STATE)
    tokens = text(80)
    held = begin(memory, tokens[:20])
    compute(memory, held, tokens[:20])
    compute(memory, held, tokens[:40])
    other = begin(memory, [*tokens[:32], 5, 6])
    assert other.reused == 32
    compute(memory, held, tokens)
    assert known(memory, [*tokens[:79], 6]) == 32
    assert known(memory, [*tokens, 6]) == 80


def test_states_that_are_kept_stand_in_nobodys_way() -> None:
    memory = make(STATE, blocks=[3])
    finish(memory, text(40, 1))
    finish(memory, text(40, 2))
    finish(memory, text(40, 3))
    assert memory.load() == ((3, 1, 0, 2),)  # the third needed a block to run in, so the first was evicted
    helds = [begin(memory, text(40, i)) for i in (3, 5, 6)]
    assert all(memory.extend(held, 16) for held in helds)
    assert helds[0].reused == 32
    late = begin(memory, text(40, 3))
    assert late.reused == 0  # no block to begin in
    assert memory.needs(late, 16) == (1,)
    assert not memory.extend(late, 16)
    memory.close(helds[1])
    assert memory.extend(late, 16)


def test_the_state_that_was_used_last_stays_longest() -> None:
    memory = make(STATE, blocks=[4])
    for i in (1, 2, 3):
        finish(memory, text(40, i))
    assert known(memory, text(40, 1)) == 32  # a sequence reuses it
    finish(memory, text(40, 4))
    assert [known(memory, text(40, i)) for i in (2, 1)] == [0, 32]
    memory = make(STATE, blocks=[5])
    first, second = begin(memory, text(40)), begin(memory, text(40))
    compute(memory, first, text(40))
    finish(memory, text(40, 1))
    compute(memory, second, text(40))  # another sequence computed as far as this
    third = begin(memory, text(40, 2))
    compute(memory, third, text(40, 2))
    assert known(memory, text(40)) == 32
    check(memory, [first, second, third])


def test_a_state_may_make_way_for_its_own_copy() -> None:
    memory = make(STATE, blocks=[1])
    held = begin(memory, text(40))
    compute(memory, held, text(40))
    memory.close(held)
    assert memory.load() == ((1, 1, 0, 0),)  # there was no room for a kept state
    memory = make(STATE, blocks=[2])
    finish(memory, text(40))
    other = begin(memory, text(40, 1))
    assert memory.extend(other, 16)
    again = begin(memory, text(40))
    assert again.reused == 32
    assert memory.take_copies() == []
    assert memory.load() == ((2, 0, 2, 0),)


# ---- promises


def test_a_prefix_that_another_is_about_to_compute_is_waited_for() -> None:
    memory = make(FULL)
    first = begin(memory, text(100))
    assert memory.open(text(100), 99) is None
    assert memory.open(text(100), 99, "another key") is not None
    assert memory.open([*text(63), 5], 63) is not None  # 48 tokens are not worth it
    assert memory.open([*text(64), 5], 64) is None
    assert memory.open(text(100), 63) is not None
    assert memory.extend(first, 16)
    memory.commit(first, text(100), 16)
    assert memory.open(text(100), 99) is None  # 80 more
    assert memory.extend(first, 48)
    memory.commit(first, text(100), 48)
    second = memory.open(text(100), 99)
    assert second is not None
    assert second.reused == 48


@pytest.mark.parametrize("groups", [(FULL,), (FULL, WINDOW), (STATE,)])
def test_a_promise_ends_with_who_made_it(groups: tuple[Group, ...]) -> None:
    memory = make(*groups)
    first = begin(memory, text(100))
    assert memory.open(text(100), 99) is None
    memory.close(first)
    assert known(memory, text(100)) == 0
    assert not list(nodes(memory))


def test_a_promise_that_was_kept_holds_nobody_up() -> None:
    memory = make(STATE, blocks=[1])  # no room for the promised state
    first = begin(memory, text(100))
    assert memory.open(text(100), 99) is None
    assert memory.extend(first, 96)
    memory.commit(first, text(100), 96)
    assert known(memory, text(100)) == 0


def test_a_promise_of_states_holds_where_they_are_kept() -> None:
    memory = make(STATE)
    begin(memory, text(700))
    assert known(memory, text(700), most=511) == 0  # not waited for
    assert known(memory, [*text(500), 5]) == 0
    assert memory.open([*text(512), 5], 512) is None
    assert memory.open(text(700), 699) is None


# ---- how much there is


@pytest.mark.parametrize("step", [1, 7, 16, 64])
@pytest.mark.parametrize("window", [1, 2, 16, 17, 24, 40, 100])
def test_what_a_sequence_needs_is_what_it_takes(window: int, step: int) -> None:
    memory = make(FULL, Group((), window), STATE, step=step, reuse=False)
    held = begin(memory, text(300))
    ends = range(step, 301, step)
    needs, used = [memory.needs(held, end) for end in ends], [0, 0, 0]
    for end, need in zip(ends, needs, strict=True):
        assert memory.extend(held, end)
        memory.commit(held, text(300), end)
        used = [max(u, load.held) for u, load in zip(used, memory.load(), strict=True)]
        assert need[0] == used[0]
        assert need[2] == 1
        assert used[1] <= need[1] <= used[1] + 1  # a window that begins at a block's edge may need one less
        assert memory.needs(held, end) == (0, 0, 0)
        assert memory.needs(held, 300)[0] == -(-300 // 16) - len(blocks(held))


@pytest.mark.parametrize("window", [1, 17, 24, 100])
def test_a_window_needs_less_when_it_has_some(window: int) -> None:
    memory = make(Group((), window), step=20, reuse=False)
    held = begin(memory, text(300))
    needs, had, first = list[int](), list[int](), list[int]()
    for end in range(20, 301, 20):
        assert memory.extend(held, end)
        needs.append(memory.needs(held, 300)[0])
        had.append(len(blocks(held)))
        first.append(held.first[0])
        memory.commit(held, text(300), end)
    for i, need in enumerate(needs[:-1]):
        more = max(had[i:]) - had[i]
        assert more <= need <= more + 1  # at a block's edge, one less may do


def test_tables_are_those_of_a_step() -> None:
    memory = make(FULL, WINDOW, STATE)
    limits = Limits(8, 2, 2, 300, (100, 100, 100))
    short, long = begin(memory, text(5)), begin(memory, text(200, 1))
    compute(memory, long, text(200, 1))
    for held, end in ((short, 2), (long, 201)):
        assert memory.extend(held, end)
    tables = memory.tables([short, long])
    positions = np.array([0, 1, 200], np.int32)
    step = Step(positions, positions, np.array([0, 2, 3], np.int32), tables, np.array([2], np.int32))
    step.check(limits, (FULL, WINDOW, STATE), 1000)
    assert tables[0].blocks.shape == (2, 13)
    assert tables[0].blocks[1].tolist() == blocks(long)
    assert tables[0].blocks[0].tolist() == blocks(short) + [0] * 12
    assert tables[1].first.tolist() == [0, 11]
    assert tables[2].blocks.tolist() == [blocks(short, 2), blocks(long, 2)]
    for table in tables:
        for array in table:
            assert array.dtype == np.int32
            assert array.flags.c_contiguous


# ---- errors


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="memory of 2 groups needs as many counts of blocks, not 1"):
        Memory([FULL, STATE], [3], step_tokens=16)
    with pytest.raises(ValueError, match="step_tokens must be 1 or more, not 0"):
        Memory([FULL], [3], step_tokens=0)
    memory = make(FULL)
    for most in (-1, 4):
        with pytest.raises(ValueError, match=rf"most must be in 0\.\.3, the number of tokens, not {most}"):
            memory.open([1, 2, 3], most)
    held = begin(memory, [1, 2, 3])
    with pytest.raises(ValueError, match="can't commit 3 of 3 tokens: 0 are, 0 have room"):
        memory.commit(held, [1, 2, 3], 3)
    memory.extend(held, 3)
    with pytest.raises(ValueError, match="can't commit 4 of 3 tokens: 0 are, 16 have room"):
        memory.commit(held, [1, 2, 3], 4)
    memory.close(held)
    with pytest.raises(ValueError, match="the sequence is closed: open it again"):
        memory.close(held)
    with pytest.raises(ValueError, match="the sequence is closed: open it again"):
        memory.extend(held, 40)
    with pytest.raises(ValueError, match="the sequence is closed: open it again"):
        memory.commit(held, [1, 2, 3], 3)


def test_a_program_that_remembers_nothing_has_no_tables() -> None:
    memory = make()
    held = begin(memory, text(40))
    compute(memory, held, text(40))
    assert memory.tables([held]) == ()
    memory.close(held)
