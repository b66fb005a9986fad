"""What every backend's runner promises (`program/runner.py`): one contract, held by all of them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.running import RUNNERS, make_step, make_table
from tests.support.single_op import Inputs, weight

from sotol.backends.table import BACKENDS, backend
from sotol.errors import ModelError
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.memory import Cache, Copy, Paged, State
from sotol.program.program import Program
from sotol.program.runner import Runner
from sotol.program.step import Limits, Step

VOCABULARY, WIDTH, CONTEXT = 40, 32, 64
FULL, WINDOW, STATE = range(3)  # the groups
LIMITS = Limits(tokens=48, sequences=3, rows=48, context=CONTEXT, blocks=(9, 8, 5))
Make = Callable[[Program, Limits], Any]


def values(*shape: int, seed: int) -> Weight:
    """Of size 1 / sqrt(the width), so that products stay as large as what goes in."""
    drawn = np.random.default_rng(seed).normal(size=shape) / shape[-1] ** 0.5
    return weight(drawn.astype(np.float32), name=f"w{seed}")


def program_of() -> Program:
    """A layer that sees everything, one with a window of 20, one that is recurrent; two results."""
    inputs = Inputs()
    x = inputs.rows(values(VOCABULARY, WIDTH, seed=1).decode(), "embedding")
    for i, window in enumerate((0, 20)):
        h = ops.rms_norm(x, values(WIDTH, seed=2 + i), eps=1e-5)
        q, k, v = (ops.linear(h, values(width, WIDTH, seed=10 * i + 20 + j)) for j, width in enumerate((32, 16, 24)))
        cache = Cache(f"kv.{i}", Paged(1, 16, 24, window=window))
        ops.remember(k.reshape("T", 1, 16), v.reshape("T", 1, 24), cache, inputs.step)
        out = ops.attention(q.reshape("T", 2, 16), cache, inputs.step, scale=0.25).reshape("T", 48)
        x = x + ops.linear(out, values(WIDTH, 48, seed=50 + i))
    decay = weight(np.linspace(0, 1, WIDTH).astype(np.float32), name="decay")
    x = x + ops.moving_average(x, decay, Cache("state.2", State((WIDTH,))), inputs.step)
    hidden = ops.rows(x, inputs.logit_rows)
    inputs.program.results = {"logits": ops.linear(hidden, values(VOCABULARY, WIDTH, seed=60)), "hidden": hidden}
    return inputs.program


@pytest.fixture(params=RUNNERS)
def make(request: pytest.FixtureRequest) -> Make:
    """A context manager over a runner of a program."""
    return RUNNERS[request.param]


TEXT = np.random.default_rng(7).integers(0, VOCABULARY, CONTEXT).tolist()
HERE = ([3, 0, 8, 5], [1, 6, 2, 4], [2])  # blocks of each group
THERE = ([1, 7, 2, 4], [0, 3, 5, 7], [4])


def step_at(begin: int, end: int, places: Sequence[Sequence[int]] = HERE, *, text: Sequence[int] = TEXT) -> Step:
    """Tokens begin .. end of one sequence, all of whose rows are wanted."""
    step = make_step([text[begin:end]], [begin], [[0]], range(end - begin))
    return step._replace(tables=tuple(make_table([blocks]) for blocks in places))


def run(runner: Runner, *arguments: Any, **options: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Copies of a step's results."""
    return {name: np.array(rows) for name, rows in runner.run(step_at(*arguments, **options)).items()}


def same(a: dict[str, Any], b: dict[str, Any], rows: slice = slice(None)) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name].view(np.int32), b[name][rows].view(np.int32), err_msg=name)


def test_a_runner_says_what_it_is(make: Make) -> None:
    with make(program_of(), LIMITS) as runner:
        assert runner.limits == LIMITS
        assert runner.threads >= 1
        described = [([cache.name for cache in g.caches], g.window, g.state) for g in runner.groups]
        assert described == [(["kv.0"], 0, False), (["kv.1"], 20, False), (["state.2"], 0, True)]


def test_results_are_by_name_and_their_rows_those_that_were_asked_for(make: Make) -> None:
    with make(program_of(), LIMITS) as runner:
        whole = run(runner, 0, 40)
        assert {name: (rows.shape, rows.dtype) for name, rows in whole.items()} == {
            "logits": ((40, VOCABULARY), np.float32),
            "hidden": ((40, WIDTH), np.float32),
        }
        picked = runner.run(step_at(0, 40)._replace(logit_rows=np.array([39, 5, 5], np.int32)))
        for name in whole:
            np.testing.assert_allclose(picked[name], whole[name][[39, 5, 5]], rtol=1e-5, atol=1e-5)


def test_backends_agree() -> None:
    results = []
    for make in RUNNERS.values():
        with make(program_of(), LIMITS) as runner:
            results.append(run(runner, 0, 30) | {"later": run(runner, 30, CONTEXT)["logits"]})
    for name in results[0]:
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-4, atol=1e-4)


def test_the_program_stays_as_it_is(make: Make) -> None:
    """Several runners may be made of one."""
    program = program_of()
    before = str(program)
    with make(program, LIMITS) as runner:
        first = run(runner, 0, 20)
    with make(program, LIMITS) as runner:
        same(first, run(runner, 0, 20))
    assert str(program) == before
    assert all(np.isfinite(w.decode()).all() for w in program.weights())


def copies_to_there(tokens: int) -> list[Copy]:
    """Of all that a sequence of so many tokens has."""
    pages = -(-tokens // 16)
    return [
        Copy(group, source, to)
        for group in (FULL, WINDOW, STATE)
        for source, to in list(zip(HERE[group], THERE[group], strict=True))[: pages if group != STATE else 1]
    ]


@pytest.mark.parametrize("tokens", [16, 23, 47])
def test_copies_are_the_same_read_through_another_table(make: Make, tokens: int) -> None:
    """And each goes on by itself: what one appends, the other does not see."""
    with make(program_of(), LIMITS) as runner:
        run(runner, 0, tokens)
        runner.copy(copies_to_there(tokens))
        rest = run(runner, tokens, CONTEXT)
        other = [*TEXT[:tokens], *reversed(TEXT[tokens:])]
        fork = run(runner, tokens, CONTEXT, THERE, text=other)
    with make(program_of(), LIMITS) as runner:
        run(runner, 0, tokens, THERE)
        same(rest, run(runner, tokens, CONTEXT, THERE))
    with make(program_of(), LIMITS) as runner:
        run(runner, 0, tokens)
        same(fork, run(runner, tokens, CONTEXT, text=other))
        assert not np.array_equal(fork["logits"], rest["logits"])


@pytest.mark.parametrize("group", [FULL, WINDOW, STATE])
def test_copies_are_made_in_order(make: Make, group: int) -> None:
    with make(program_of(), LIMITS) as runner:
        run(runner, 0, 10)
        filled, between = HERE[group][0], THERE[group][0]
        empty = next(n for n in range(LIMITS.blocks[group]) if n not in (filled, between))
        data, nothing = runner.read(group, filled), runner.read(group, empty)
        assert data != nothing
        runner.copy([Copy(group, filled, between), Copy(group, empty, filled), Copy(group, between, empty)])
        assert [runner.read(group, block) for block in (filled, between, empty)] == [nothing, data, data]


def test_what_is_read_goes_on_in_another_runner(make: Make) -> None:
    with make(program_of(), LIMITS) as runner:
        run(runner, 0, 37)
        kept = {(copy.group, copy.to): runner.read(copy.group, copy.source) for copy in copies_to_there(37)}
        rest = run(runner, 37, CONTEXT)
    with make(program_of(), LIMITS) as runner:
        for (group, block), data in kept.items():
            runner.write(group, block, data)
            assert runner.read(group, block) == data
        same(rest, run(runner, 37, CONTEXT, THERE))


@pytest.mark.parametrize("group", [FULL, WINDOW, STATE])
def test_data_of_another_size_is_refused(make: Make, group: int) -> None:
    with make(program_of(), LIMITS) as runner:
        run(runner, 0, 10)
        data = runner.read(group, HERE[group][0])
        for wrong in (b"", data[:-1], data + b"\0"):
            said = rf"^a block of group {group} has {len(data)} bytes, not {len(wrong)}$"
            with pytest.raises(ValueError, match=said):
                runner.write(group, HERE[group][0], wrong)
        assert runner.read(group, HERE[group][0]) == data


@pytest.mark.parametrize(("group", "block"), [(-1, 0), (3, 0), (FULL, -1), (FULL, 9), (WINDOW, 8), (STATE, 5)])
def test_a_block_that_there_is_not_is_refused(make: Make, group: int, block: int) -> None:
    said = rf"^there is no block {block} of group {group}$"
    with make(program_of(), LIMITS) as runner:
        run(runner, 0, 10)
        before = [runner.read(g, n) for g, count in enumerate(LIMITS.blocks) for n in range(count)]
        with pytest.raises(ValueError, match=said):
            runner.read(group, block)
        with pytest.raises(ValueError, match=said):
            runner.write(group, block, before[0])
        with pytest.raises(ValueError, match=said):
            runner.copy([Copy(group, block, 0)])
        with pytest.raises(ValueError, match=said):
            runner.copy([Copy(group, 0, block)])
        assert before == [runner.read(g, n) for g, count in enumerate(LIMITS.blocks) for n in range(count)]


def without(tables: Sequence[Any], number: int) -> tuple[Any, ...]:
    return tuple(table for i, table in enumerate(tables) if i != number)


WRONG: dict[str, tuple[Callable[[Step], Step], str]] = {
    "a table missing": (lambda s: s._replace(tables=without(s.tables, 1)), "for 3 groups of caches has 2 tables"),
    "a page too many": (
        lambda s: s._replace(tables=(make_table([[9, 0, 1]]), *s.tables[1:])), r"block ids must be in 0\.\.8",
    ),
    "too short a table": (
        lambda s: s._replace(tables=(s.tables[0], make_table([[1]]), s.tables[2])), "does not have all",
    ),
    "a table that begins late": (
        lambda s: s._replace(tables=(s.tables[0], make_table([[1, 2, 3]], [1]), s.tables[2])), "does not have all",
    ),
    "no such state": (lambda s: s._replace(tables=(*s.tables[:2], make_table([[5]]))), r"block ids must be in 0\.\.4"),
    "no such token": (lambda s: s._replace(tokens=s.tokens + VOCABULARY), r"token ids must be in 0\.\.39"),
    "too many tokens": (lambda _: step_at(0, 49), "a step of 49 tokens, 1 sequences, 49 rows exceeds"),
}  # fmt: skip


@pytest.mark.parametrize("why", WRONG)
def test_a_wrong_step_is_refused_and_does_no_harm(make: Make, why: str) -> None:
    change, message = WRONG[why]
    with make(program_of(), LIMITS) as runner:
        first = run(runner, 0, 20)
        with pytest.raises(ValueError, match=message):
            runner.run(change(step_at(0, 20)))
        same(first, run(runner, 0, 20))


@pytest.mark.parametrize("blocks", [(), (9, 8), (9, 8, 5, 1)])
def test_limits_for_other_groups_are_refused(make: Make, blocks: tuple[int, ...]) -> None:
    said = f"limits for {len(blocks)} groups of caches: the program has 3"
    with pytest.raises(ValueError, match=said), make(program_of(), LIMITS._replace(blocks=blocks)):
        pass


def test_a_runner_may_be_closed_again(make: Make) -> None:
    with make(program_of(), LIMITS) as runner:
        runner.wait(lambda *_: None)
        run(runner, 0, 3)
        runner.close()
        runner.close()


class Crowd:
    """Three sequences on one runner, each of which has the results that it has alone on another."""

    def __init__(self, runner: Runner, judge: Runner, rng: np.random.Generator, *, exact: bool) -> None:
        self._runner, self._judge, self._rng, self._exact = runner, judge, rng, exact
        self._free = [set(range(count)) for count in LIMITS.blocks]
        self._texts: list[list[int]] = [[], [], []]
        self._places: list[list[list[int]]] = [[[], [], []] for _ in self._texts]

    def step(self, s: int) -> None:
        """Some tokens more, if there is room."""
        begin = len(self._texts[s])
        count = min(int(self._rng.integers(1, 20)), CONTEXT - begin)
        if count and self._grow(s, begin + count):
            text = self._texts[s] = self._texts[s] + self._rng.integers(0, VOCABULARY, count).tolist()
            got = run(self._runner, begin, len(text), self._places[s], text=text)
            parts = [run(self._judge, at, min(at + 32, len(text)), text=text) for at in range(0, len(text), 32)]
            alone = {name: np.concatenate([part[name] for part in parts])[begin:] for name in got}
            if self._exact:
                same(got, alone)
            for name in got:
                np.testing.assert_allclose(got[name], alone[name], rtol=1e-4, atol=1e-4)

    def fork(self, s: int) -> None:
        """The next one becomes a copy of this one."""
        other = (s + 1) % 3
        self.drop(other)
        if self._texts[s] and self._grow(other, len(self._texts[s])):
            pairs = enumerate(zip(self._places[s], self._places[other], strict=True))
            copies = [(group, zip(*blocks, strict=True)) for group, blocks in pairs]
            self._runner.copy([Copy(group, source, to) for group, both in copies for source, to in both])
            self._texts[other] = self._texts[s]

    def drop(self, s: int) -> None:
        """Its blocks are anybody's."""
        for free, blocks in zip(self._free, self._places[s], strict=True):
            free.update(blocks)
        self._texts[s], self._places[s] = [], [[], [], []]

    def _grow(self, s: int, tokens: int) -> bool:
        """Take blocks for so many tokens, if there are."""
        wanted = [1 if group == STATE else -(-tokens // 16) for group in (FULL, WINDOW, STATE)]
        needed = [count - len(blocks) for count, blocks in zip(wanted, self._places[s], strict=True)]
        if any(len(free) < count for free, count in zip(self._free, needed, strict=True)):
            return False
        for free, blocks, count in zip(self._free, self._places[s], needed, strict=True):
            blocks += [free.pop() for _ in range(count)]
        return True


@pytest.mark.parametrize("name", RUNNERS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    acts=st.lists(st.tuples(st.sampled_from(["step", "step", "step", "fork", "drop"]), st.integers(0, 2)), max_size=15),
)
def test_sequences_go_on_whatever_happens_to_others(name: str, seed: int, acts: list[tuple[str, int]]) -> None:
    """Steps, forks and ends of three sequences: on the CPU the bits that each has alone. NumPy sums in other orders."""
    with RUNNERS[name](program_of(), LIMITS) as runner, RUNNERS[name](program_of(), LIMITS) as judge:
        crowd = Crowd(runner, judge, np.random.default_rng(seed), exact=name == "cpu")
        for act, s in acts:
            getattr(crowd, act)(s)


# ---- the modules that make runners


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_says_how_large_blocks_are(name: str) -> None:
    module = backend(name)
    assert module.missing(program_of(), CONTEXT) == []
    runner = module.make_runner(program_of(), LIMITS, threads=1)
    try:
        assert module.block_bytes(runner.groups) == [len(runner.read(group, 0)) for group in (FULL, WINDOW, STATE)]
    finally:
        runner.close()


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match="backend is 'tpu'; it must be one of cpu, reference"):
        backend("tpu")


def test_a_program_without_results_is_refused() -> None:
    inputs = Inputs()
    inputs.rows(values(VOCABULARY, WIDTH, seed=1).decode(), "x")
    with pytest.raises(ModelError, match="a program without results"):
        backend("cpu").make_runner(inputs.program, LIMITS._replace(blocks=()), threads=1)
