"""The team of threads: its end, its sleep, and a machine with more threads than cores."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.child import QUIET
from tests.support.running import limits_for, make_step
from tests.support.single_op import Inputs, ended

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.running.memory import Codecs
from sotol.backends.cpu.running.threads import default_threads
from sotol.errors import ModelError, SotolError
from sotol.formats import read_gguf, write_gguf
from sotol.formats.files import files_of
from sotol.formats.weights import Weight
from sotol.models import trace_model
from sotol.program import ops
from sotol.program.program import Program
from sotol.program.step import Limits
from sotol.quant import ENCODINGS


@pytest.fixture
def program() -> Program:
    return trace_model(random_checkpoint("llama"), 64)


def helpers() -> int:
    return sum(t.name.startswith("sotol-helper") for t in threading.enumerate())


def test_losing_a_runner_ends_its_threads(program: Program) -> None:
    """Without close(), and right after a step, when helpers may still be looking at its memory."""
    before = helpers()
    for _ in range(20):
        runner = CpuRunner(program, limits_for(program, 64), threads=5)
        assert helpers() == before + 4
        runner.run(make_step([[1, 2, 3]], [0], [[0]], [2]))
        del runner
        gc.collect()
        assert helpers() == before


def test_a_process_that_forgets_to_close_ends_well() -> None:
    program = (
        f"{QUIET}from sotol import LLM\n"
        "llm = LLM(threads=4, ctx=128)\n"
        "print(llm.generate('The sky is', max_tokens=3, temperature=0).text)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip()
    assert not done.stderr


def test_many_steps_with_more_threads_than_cores(program: Program) -> None:
    """Thousands of short steps: a lost wake-up or a straggler's mistake would hang or change a bit."""
    step = make_step([[1, 2, 3, 4, 5]], [0], [[0]], [4])
    runner = CpuRunner(program, limits_for(program, 64), threads=9)
    try:
        first = runner.run(step)["logits"].copy()
        for _ in range(2000):
            np.testing.assert_array_equal(first, runner.run(step)["logits"])
    finally:
        runner.close()


def test_steps_beyond_the_limits_are_refused(program: Program) -> None:
    runner = CpuRunner(program, Limits(4, 1, 1, 64, (4,)), threads=1)
    try:
        with pytest.raises(ValueError, match="a step of 5 tokens"):
            runner.run(make_step([[1, 2, 3, 4, 5]], [0], [[0]], [4]))
        with pytest.raises(ValueError, match="token ids must be in"):
            runner.run(make_step([[1, 48]], [0], [[0]], [1]))
    finally:
        runner.close()


def test_profiles_name_every_op(program: Program) -> None:
    runner = CpuRunner(program, limits_for(program, 64), threads=2)
    ticks = iter([1.0, 3.0])
    try:
        times = runner.profile(make_step([[1, 2, 3]], [0], [[0]], [2]), lambda: next(ticks))
    finally:
        runner.close()
    assert {t.kernel for t in times} >= {"embed", "rms_norm", "linear", "rope", "attend", "glu", "rows", "store_cache"}
    assert sum(t.seconds for t in times) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads must be from 1 to 1024: not 0"),
        ({"threads": 2**31 - 1}, "threads must be from 1 to 1024"),
        ({"codecs": "q8"}, r"codec is one of \('f16', 'f32'\): not 'q8'"),
        ({"codecs": Codecs("f16", "f64")}, "not 'f64'"),
        ({"codecs": Codecs(others={"kv.1": ("f32", "bf16")})}, "not 'bf16'"),
        ({"codecs": Codecs(others={"kv.2": ("f32", "f32")})}, "codecs for 'kv.2': the program has no such cache"),
    ],
)
def test_bad_options(program: Program, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CpuRunner(program, limits_for(program, 64), **options)  # type: ignore[arg-type]


def test_a_context_that_the_machine_can_not_hold(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything of its size is made: 128 bytes of keys and values for each token."""
    monkeypatch.setattr("sotol.backends.cpu.running.runner.whole_memory", lambda: 100 << 20)
    monkeypatch.setattr(
        "sotol.backends.cpu.running.runner.missing", lambda *_: []
    )  # the program is of a shorter context
    monkeypatch.setattr("sotol.backends.cpu.running.runner.Memory", None)
    said = (
        r"needs 128 MB of memory \(0 for weights, 128 bytes for each of 1048576 tokens of context\).* has 100 MB: give"
    )
    with pytest.raises(SotolError, match=said):
        CpuRunner(program, limits_for(program, 1 << 20), threads=1)


def test_profiles_need_no_weights_in_memory(tmp_path: Path) -> None:
    """Once loaded, a runner keeps neither its program's weights nor their file."""
    checkpoint = random_checkpoint("llama")
    write_gguf(tmp_path / "m.gguf", checkpoint.metadata, checkpoint.weights.values())
    traced = trace_model(read_gguf(tmp_path / "m.gguf"), 64)
    weights = [x for node in traced.nodes for x in node.inputs if isinstance(x, Weight)]
    sizes = {x.name: (x.shape, x.encoding, x.nbytes) for x in weights}
    file = weakref.ref(files_of(weights)[0])
    runner = CpuRunner(traced, limits_for(traced, 64), threads=2)
    traced.nodes.clear()
    weights.clear()
    runner.wait(lambda *_: None)
    assert file() is None
    profile = runner.profile(make_step([[1, 2, 3]], [0], [[0]], [2]), time.perf_counter)
    seen = [x for op in profile for x in op.node.inputs if isinstance(x, Weight)]
    assert {x.name: (x.shape, x.encoding, x.nbytes) for x in seen} == sizes
    runner.close()


def test_what_the_backend_lacks_is_named() -> None:
    limits = Limits(4, 1, 4, 16, ())
    inputs = Inputs()
    x = inputs.rows(np.ones((4, 256), np.float32), "x")
    known = ENCODINGS["Q8_K"]
    ops.linear(x, Weight.from_bytes("blk.0.w", known, (16, 256), np.zeros(16 * known.size, np.uint8)))
    with pytest.raises(ModelError, match=r"can't run Q8_K \(linear of blk.0.w\)"):
        CpuRunner(ended(inputs.program), limits, threads=1)


def test_default_threads_are_within_the_machine() -> None:
    import os

    assert 1 <= default_threads() <= (os.cpu_count() or 1)
