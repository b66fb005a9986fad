"""One arithmetic: a model's logits are the same bits whatever the threads, chunks, company and CPU level."""

import sys
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest
from tests.support.checkpoints import mixed_encodings, random_checkpoint, wide_sizes
from tests.support.floats import unusual_floats
from tests.support.levels import LEVELS
from tests.support.running import limits_for, make_step, run_text

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.target import Target, host_target, target_for
from sotol.catalog import find_model
from sotol.formats import read_gguf
from sotol.models import ARCHITECTURES, trace_model
from sotol.program.early_rows import early_rows
from sotol.program.fuse import quantize_inputs
from sotol.program.program import Program
from sotol.program.step import Limits
from sotol.quant import Float32Array

LENGTH = 150
SIZES = {"embedding_length": 256, "feed_forward_length": 256, "context_length": 256}
EXPERTS = {"expert_count": 6, "expert_used_count": 3, "expert_feed_forward_length": 256}
EXTRA = {
    "llama": {"block_count": 3},
    "gemma3": {"attention.sliding_window": 40, "block_count": 7},
    "gpt-oss": {**EXPERTS, "attention.sliding_window": 40, "block_count": 3},
    "deepseek2": EXPERTS,
    "qwen2moe": {**EXPERTS, "expert_shared_feed_forward_length": 256, "block_count": 3},
    "qwen35": {"block_count": 4},
    "nemotron_h_moe": {**EXPERTS, "expert_shared_feed_forward_length": 256},
}


@pytest.fixture(scope="module", params=EXTRA)
def program(request: pytest.FixtureRequest) -> Program:
    """A small model with every encoding; windows of 40 are shorter than the text."""
    fields, whole = {**SIZES, **EXTRA[request.param], **wide_sizes(request.param)}, request.param == "gpt-oss"
    checkpoint = mixed_encodings(random_checkpoint(request.param, fields, optional=whole))
    return trace_model(checkpoint, 256)


@pytest.fixture(scope="module")
def text() -> list[int]:
    return np.random.default_rng(3).integers(0, 48, LENGTH).tolist()  # type: ignore[no-any-return]


def logits(
    program: Program, text: Sequence[int], chunks: Sequence[int], *, threads: int = 2, target: Target | None = None,
    precision: str = "int8",
) -> Float32Array:  # fmt: skip
    program = quantize_inputs(program) if precision == "int8" else program
    limits = limits_for(program, 256)
    with closing(CpuRunner(program, limits, threads=threads, target=target or host_target())) as runner:
        return run_text(runner, text, chunks)


def same_bits(a: Float32Array, b: Float32Array) -> None:
    np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


def in_chunks(size: int) -> list[int]:
    return [min(size, LENGTH - start) for start in range(0, LENGTH, size)]


@pytest.mark.parametrize("precision", ["int8", "f32"])
@pytest.mark.parametrize("threads", [1, 5])
def test_threads(program: Program, text: list[int], threads: int, precision: str) -> None:
    whole = logits(program, text, [LENGTH], precision=precision)
    assert np.isfinite(whole).all()
    assert np.unique(whole.argmax(axis=1)).size > 5  # the text matters
    same_bits(whole, logits(program, text, [LENGTH], threads=threads, precision=precision))


@pytest.mark.skipif(sys.platform != "linux", reason="sets floats as glibc does")
@pytest.mark.parametrize("threads", [1, 3])
def test_how_the_program_has_its_floats(program: Program, text: list[int], threads: int) -> None:
    """Another library may round otherwise, or flush subnormal numbers, in the thread that runs steps."""
    whole, quantized = logits(program, text, [LENGTH]), quantize_inputs(program)
    with unusual_floats(), closing(CpuRunner(quantized, limits_for(quantized, 256), threads=threads)) as runner:
        assert np.float32(1e-39) * np.float32(1) == 0
        same_bits(whole, run_text(runner, text, [LENGTH]))
    assert np.float32(1e-39) * np.float32(1) > 0


@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks(program: Program, text: list[int], size: int) -> None:
    same_bits(logits(program, text, [LENGTH]), logits(program, text, in_chunks(size)))


@pytest.mark.parametrize("level", LEVELS[:-1])
@pytest.mark.parametrize("precision", ["int8", "f32"])
def test_levels(program: Program, text: list[int], level: str, precision: str) -> None:
    """Each lesser CPU level against this machine's best."""
    best = logits(program, text, [LENGTH], precision=precision)
    same_bits(best, logits(program, text, [LENGTH], target=target_for(level), precision=precision))


def test_company(program: Program, text: list[int]) -> None:
    """A text beside two others, at other places, in the same steps."""
    alone = logits(program, text, [LENGTH])
    program = quantize_inputs(program)
    limits = limits_for(program, 256, sequences=3)._replace(tokens=256)
    limits = limits._replace(blocks=(48,) * len(limits.blocks))  # so many states, too
    parts = [np.zeros((0, 48), np.float32)]
    with closing(CpuRunner(program, limits, threads=2)) as runner:
        for start in range(0, LENGTH, 50):
            span = text[start : start + 50]
            other = [list(reversed(text[:13])), span, text[5 : 5 + 22]]
            begins = [13 * (start // 50), start, 22 * (start // 50)]
            tables = [range(16), range(16, 32), range(32, 48)]
            rows = range(13, 13 + 50)
            step = make_step(other, begins, tables, rows, groups=len(runner.groups))
            parts.append(runner.run(step)["logits"].copy())
    same_bits(alone, np.concatenate(parts))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chunks_and_threads_of_every_architecture(architecture: str) -> None:
    """With windows that are shorter than the text, where it has some, and the least CPU level."""
    keys = {"attention.sliding_window": 40, "block_count": 4}
    keys |= {"expert_feed_forward_length": 256, "expert_shared_feed_forward_length": 256}
    checkpoint = random_checkpoint(architecture, {**SIZES, **keys, **wide_sizes(architecture)})
    program = trace_model(mixed_encodings(checkpoint, first=3), 256)
    ids = np.random.default_rng(3).integers(0, 48, LENGTH).tolist()
    whole = logits(program, ids, [LENGTH])
    assert np.isfinite(whole).all()
    assert len(np.unique(whole, axis=0)) > 48  # not the tokens alone, but what comes before them
    for size, threads in ((1, 2), (7, 5), (64, 1)):
        same_bits(whole, logits(program, ids, in_chunks(size), threads=threads))
    same_bits(whole, logits(program, ids, in_chunks(64), target=target_for(LEVELS[0])))
    same_bits(whole, logits(early_rows(program), ids, in_chunks(64)))  # the last: `program` is empty then


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_levels_on_a_real_model(level: str) -> None:
    """SmolLM2 over a few tokens of a prompt."""
    program = quantize_inputs(trace_model(read_gguf(find_model("smollm2")), 64))
    prompt = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2]
    limits = Limits(64, 1, 64, 64, (4,))
    results = []
    for target in (target_for(level), host_target()):
        with closing(CpuRunner(program, limits, threads=2, target=target)) as runner:
            results.append(run_text(runner, prompt, [len(prompt)]))
    same_bits(*results)
