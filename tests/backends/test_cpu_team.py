"""One team of threads for all models of a process: turns, bits, comings and goings."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.running import limits_for, make_step

from sotol.backends.cpu import CpuRunner
from sotol.models import trace_model
from sotol.program.step import Step

STEPS = 300


def helpers() -> int:
    return sum(t.name.startswith("sotol-helper") for t in threading.enumerate())


def runner(architecture: str, threads: int) -> CpuRunner:
    program = trace_model(random_checkpoint(architecture), 64)
    return CpuRunner(program, limits_for(program, 64), threads=threads)


@pytest.fixture
def step() -> Step:
    return make_step([[1, 2, 3, 4, 5]], [0], [[0]], [4])


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = helpers()
    yield
    gc.collect()
    assert helpers() == before


def test_models_share_as_many_threads_as_the_largest_takes(step: Step) -> None:
    before = helpers()
    with closing(runner("llama", 3)) as first:
        assert helpers() == before + 2
        with closing(runner("qwen3", 5)) as second, closing(runner("qwen2", 2)):
            assert helpers() == before + 4
            second.run(step)
        assert helpers() == before + 4  # they end with the last model
        first.run(step)


def test_models_that_run_at_once_disturb_each_other_in_no_bit(step: Step) -> None:
    """Steps of three models from three threads, while a fourth is loaded, run and lost again and again."""
    models = [runner("llama", 4), runner("qwen3", 2), runner("qwen2", 3)]
    alone = [model.run(step)["logits"].copy() for model in models]
    right: list[bool] = []
    over = threading.Event()

    def drive(i: int) -> None:
        right.extend(np.array_equal(models[i].run(step)["logits"], alone[i]) for _ in range(STEPS))

    def come_and_go() -> None:
        while not over.is_set():
            guest = runner("llama", 6)
            guest.run(step)
            if os.urandom(1)[0] % 2:
                guest.close()
            del guest

    threads = [threading.Thread(target=drive, args=(i,)) for i in range(3)]
    guests = threading.Thread(target=come_and_go)
    for thread in (*threads, guests):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    guests.join()
    for model in models:
        model.close()
    assert len(right) == 3 * STEPS
    assert all(right)


def test_a_step_of_a_closed_model_is_done_by_its_caller(step: Step) -> None:
    with closing(runner("qwen3", 3)):
        model = runner("llama", 3)
        want = model.run(step)["logits"].copy()
        model.close()
        np.testing.assert_array_equal(model.run(step)["logits"], want)


def test_a_model_that_is_lost_in_the_middle_of_anothers_step(step: Step) -> None:
    """The garbage collector finds it in the thread that runs the step, between its kernels' start and its inputs."""
    model, lost = runner("llama", 3), [runner("qwen3", 3)]
    want = model.run(step)["logits"].copy()
    fill = model._memory.fill

    def losing(given: Step) -> None:
        fill(given)
        lost.clear()
        gc.collect()

    model._memory.fill = losing  # type: ignore[assignment]
    np.testing.assert_array_equal(model.run(step)["logits"], want)
    assert helpers() >= 2
    np.testing.assert_array_equal(model.run(step)["logits"], want)
    model.close()
