"""Files that mix encodings, as real ones do: rows that are no whole blocks of one, numbers of other kinds."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.checkpoints import is_matrix, random_checkpoint
from tests.support.running import RUNNERS, limits_for, run_text

from sotol.formats import Weight, read_gguf, write_gguf
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.program.fuse import quantize_inputs
from sotol.program.program import Program
from sotol.quant import ENCODINGS, Float32Array

CONTEXT = 32
IDS = np.random.default_rng(6).integers(0, 48, 20).tolist()
# 96 channels are no multiple of 256, like the 896 of Qwen2 0.5B; the 256 of the feed-forward network are one.
NARROW: dict[str, object] = {
    "embedding_length": 96,
    "feed_forward_length": 256,
    "attention.head_count": 3,
    "attention.head_count_kv": 3,
}
# What llama-quantize falls back to where rows are no whole blocks (`llama-quant.cpp`, tensor_type_fallback).
FALLBACKS = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ4_XS": "IQ4_NL", "TQ1_0": "Q4_0",
             "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # fmt: skip


def saved(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    write_gguf(path, checkpoint.metadata, checkpoint.weights.values())
    return read_gguf(path)


def logits(program: Program, runner: str, chunks: list[int]) -> Float32Array:
    with RUNNERS[runner](program, limits_for(program, CONTEXT)) as backend:
        found: Float32Array = run_text(backend, IDS, chunks)
    return found


def check(checkpoint: Checkpoint) -> None:
    """The CPU's logits are the reference's; with int8 activations, the same bits however the text is cut.

    Rounding to int8 turns the last bit of a number into a step now and then, so f32 is compared with the reference.
    """
    exact = trace_model(checkpoint, CONTEXT)
    want = logits(exact, "reference", [20])
    np.testing.assert_allclose(logits(exact, "cpu", [20]), want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    rounded = quantize_inputs(exact)
    whole, cut = (logits(rounded, "cpu", chunks) for chunks in ([20], [12, 1, 1, 6]))
    np.testing.assert_array_equal(whole.view(np.int32), cut.view(np.int32))
    assert np.abs(whole - want).max() < 0.2 * np.abs(want).max()


@pytest.mark.parametrize("encoding", FALLBACKS)
def test_rows_that_are_no_whole_blocks_are_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    plain = random_checkpoint("llama", NARROW)
    weights = {}
    for name, weight in plain.weights.items():
        kind = "F32"
        if len(weight.shape) == 2:
            kind = encoding if weight.shape[1] % ENCODINGS[encoding].values == 0 else FALLBACKS[encoding]
        weights[name] = Weight.from_values(name, weight.decode(), kind)
    found = saved(tmp_path / "mixed.gguf", plain._replace(weights=weights))
    assert {w.encoding.name for w in found.weights.values()} == {"F32", encoding, FALLBACKS[encoding]}
    check(found)


def test_numbers_of_other_kinds(tmp_path: Path) -> None:
    """F64 as vectors and matrices, and matrices and vectors of whole numbers: all are used as f32."""
    plain = random_checkpoint("llama")
    weights = {}
    for name, weight in plain.weights.items():
        values = weight.decode()
        if "attn_q" in name or "norm" in name:
            weights[name] = Weight.from_values(name, values, "F64")
        elif "ffn_up" in name:
            data = np.rint(values * 4).astype(np.int16 if "blk.0" in name else np.int8)
            kind = ENCODINGS["I16" if "blk.0" in name else "I8"]
            weights[name] = Weight.from_bytes(name, kind, weight.shape, data.reshape(-1).view(np.uint8))
        else:
            weights[name] = weight
    ones = np.ones(32, np.int64).view(np.uint8)
    weights["output_norm.weight"] = Weight.from_bytes("output_norm.weight", ENCODINGS["I64"], (32,), ones)
    found = saved(tmp_path / "odd.gguf", plain._replace(weights=weights))
    assert {w.encoding.name for w in found.weights.values()} == {"F32", "F64", "I8", "I16", "I64"}
    check(found)


def test_experts_of_a_gpt_oss_in_mxfp4(tmp_path: Path) -> None:
    """As its GGUF files are: experts in MXFP4, routers, sinks, norms and biases in F32, all else in Q8_0."""
    plain = random_checkpoint("gpt-oss", optional=True)
    weights = {}
    for name, weight in plain.weights.items():
        kind = "Q8_0" if is_matrix(weight) and "ffn_gate_inp" not in name else "F32"
        kind = "MXFP4" if name.endswith("_exps.weight") else kind
        weights[name] = Weight.from_values(name, weight.decode(), kind)
    found = saved(tmp_path / "gpt-oss.gguf", plain._replace(weights=weights))
    assert sum(weight.encoding.name == "MXFP4" for weight in found.weights.values()) == 2 * 3
    check(found)
