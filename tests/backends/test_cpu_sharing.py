"""How attention's work is shared out: every key that a tile sees is some part's, once; and nobody shares memory."""

from contextlib import closing
from itertools import pairwise

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.checkpoints import random_checkpoint
from tests.support.layers import Layer, program_of
from tests.support.running import limits_for, make_step

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.layout import SPAN
from sotol.backends.cpu.running.sharing import SPAN_ROWS, TILE_TOKENS, AttentionWork, Tiles, most_span_rows
from sotol.models import trace_model
from sotol.program.memory import Paged
from sotol.program.step import Limits

CONTEXT = 3000
spans = st.lists(st.tuples(st.integers(0, CONTEXT - 1), st.integers(1, 120)), min_size=1, max_size=6)


@given(spans, st.integers(1, 1500) | st.just(0), st.booleans())
@example([(555, 1)], 300, False)  # the first key that it sees begins a span
@example([(811, 30)], 300, False)
@example([(1023, 20)], 512, True)
@example([(CONTEXT - 1, 1), (0, 1)], 0, False)
def test_parts_are_the_spans_that_a_tile_sees(sequences: list[tuple[int, int]], window: int, chunked: bool) -> None:
    chunked = chunked and window > 0
    texts = [[0] * min(count, CONTEXT - begin) for begin, count in sequences]
    begins = [begin for begin, _ in sequences]
    step = make_step(texts, begins, [[0]] * len(texts), [0])
    limits = Limits(len(step.tokens), len(texts), 1, CONTEXT, (1,))
    tiles = Tiles(limits)
    work = AttentionWork(limits, tiles, window, chunked=chunked)
    for _ in range(2):  # what the last step left does not matter
        tiles.fill(step)
        work.fill()
    parts, sums = int(work.count[0]), list[tuple[int, int]]()
    found = list(
        zip(work.arrays["share_tiles"][:parts].tolist(), work.arrays["share_spans"][:parts].tolist(), strict=True)
    )
    assert len(found) == len(set(found))
    seen_tokens = list[int]()
    for tile, count in enumerate(tiles.counts):
        token, sequence = (int(tiles.arrays[name][tile]) for name in ("tile_tokens", "tile_sequences"))
        assert 0 < count <= TILE_TOKENS
        assert step.starts[sequence] <= token
        assert token + count <= step.starts[sequence + 1]
        seen_tokens += range(token, token + count)
        positions = step.positions[token : token + count]
        oldest = positions[0] // window * window if chunked else max(0, positions[0] - window + 1) if window else 0
        keys = np.arange(oldest, positions[-1] + 1)
        own = sorted(span for t, span in found if t == tile)
        wanted = sorted(set((keys // SPAN).tolist()))
        assert own in ([-1], wanted)
        if own != [-1]:
            first = int(work.arrays["tile_sums"][tile])
            sums.append((first, first + count * len(own)))
    assert seen_tokens == list(range(len(step.tokens)))
    assert all(end <= begin for (_, end), (begin, _) in pairwise(sums))
    assert max((end for _, end in sums), default=0) <= most_span_rows(limits) <= SPAN_ROWS


def test_attentions_of_one_phase_have_sums_of_their_own() -> None:
    """Those of other phases use the same memory again."""
    layers = [Layer(3, Paged(1, 16, 16)), Layer(1, Paged(1, 16, 16), reads=0), Layer(1, Paged(1, 16, 24, window=9))]
    program = program_of(layers)
    with closing(CpuRunner(program, limits_for(program, 600), threads=1)) as runner:
        number, phases = 0, list[int]()
        for call in runner._calls:
            phases.append(number)
            number += call.last
        attends = [
            (phase, call.arguments["sums"], call.arguments["finished"])
            for phase, call in zip(phases, runner._calls, strict=True)
            if call.key[0] == "attend"
        ]
        assert len(attends) == 3
        assert len({phase for phase, _, _ in attends}) == 1
        for place in (1, 2):
            places = sorted(attend[place] for attend in attends)
            assert len(set(places)) == 3
        sizes = [(sums.ctypes.data, sums.nbytes) for sums, _ in runner._memory._scratch.values()]
        for (start, size), (following, _) in pairwise(sorted(sizes)):
            assert start + size <= following


def test_layers_one_after_the_other_use_the_same_sums() -> None:
    program = trace_model(random_checkpoint("gemma3", {"block_count": 7, "attention.sliding_window": 9}), 64)
    with closing(CpuRunner(program, limits_for(program, 64), threads=1)) as runner:
        kept = [call.arguments["sums"] for call in runner._calls if call.key[0] == "attend"]
        assert (len(kept), len(set(kept))) == (7, 1)
