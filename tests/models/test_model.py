"""Every architecture: weights are bound by name, shape and encoding; a prompt's chunks and neighbours do not matter."""

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.checkpoints import (
    full_name,
    fused,
    home_of,
    is_matrix,
    joined_gates,
    random_checkpoint,
    with_weights,
)
from tests.support.running import limits_for, make_step, run_text

from sotol.backends.reference import ReferenceRunner
from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES, trace_model
from sotol.program import ops
from sotol.quant import ENCODINGS, Float32Array

CONTEXT = 48
WINDOW = {"attention.sliding_window": 5, "attention.sliding_window_pattern": 2}
WINDOWED = dict.fromkeys(("gemma2", "gemma3", "mistral3", "olmo2", "phi3"), WINDOW)


def checkpoint_of(architecture: str, *, optional: bool = False) -> Checkpoint:
    return random_checkpoint(architecture, WINDOWED.get(architecture), optional=optional)


def names(*, optional: bool) -> Iterator[tuple[str, str]]:
    """Of each architecture's checkpoint, each weight of its table, in layer 1 if that has it."""
    for architecture, module in ARCHITECTURES.items():
        for name in module.WEIGHTS:
            if (full := home_of(architecture, name, optional=optional)) is not None:
                yield architecture, full


def required_names() -> Iterator[tuple[str, str]]:
    return names(optional=False)


def all_names() -> Iterator[tuple[str, str]]:
    return names(optional=True)


@pytest.mark.parametrize(("architecture", "name"), [pair for pair in required_names() if pair[1] != "token_embd"])
def test_a_missing_weight_is_named(architecture: str, name: str) -> None:
    with pytest.raises(ModelError, match=rf"^random\.gguf: weight {re.escape(name)} is missing$"):
        trace_model(with_weights(checkpoint_of(architecture), {full_name(name): None}), CONTEXT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_missing_embedding_is_named(architecture: str) -> None:
    with pytest.raises(ModelError, match=r"^random\.gguf: weight token_embd\.weight is missing or no matrix"):
        trace_model(with_weights(checkpoint_of(architecture), {"token_embd.weight": None}), CONTEXT)


@pytest.mark.parametrize(("architecture", "name"), [pair for pair in all_names() if pair[1] != "token_embd"])
def test_a_misshapen_weight_is_named(architecture: str, name: str) -> None:
    checkpoint = checkpoint_of(architecture, optional=True)
    shape = checkpoint.weights[full_name(name)].shape
    wrong = np.zeros((shape[0] + 16, *shape[1:]), np.float32)
    message = (
        rf"weight {re.escape(name)} has shape {re.escape(str(list(wrong.shape)))}, not {re.escape(str(list(shape)))}$"
    )
    with pytest.raises(ModelError, match=message):
        trace_model(with_weights(checkpoint, {full_name(name): wrong}), CONTEXT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["blk.9.attn_norm.weight", "blk.0.attn_r.weight", "blk.0.attn_norm.scale", "surprise"])
def test_an_extra_weight_is_named(architecture: str, name: str) -> None:
    extra = with_weights(checkpoint_of(architecture), {name: np.zeros((32, 32), np.float32)})
    with pytest.raises(ModelError, match=rf"weight '{re.escape(name.removesuffix('.weight'))}' \(of 1\) is not part"):
        trace_model(extra, CONTEXT)


def test_an_encoding_that_can_not_be_decoded_is_named() -> None:
    checkpoint = random_checkpoint("llama", {"embedding_length": 256})
    unknown = next(e for e in ENCODINGS.values() if e.decode is None and 256 % e.values == 0)
    weight = checkpoint.weights["blk.1.ffn_up.weight"]
    size = weight.shape[0] * weight.shape[1] // unknown.values * unknown.size
    other = Weight.from_bytes(weight.name, unknown, weight.shape, np.zeros(size, np.uint8))
    changed = Checkpoint(checkpoint.path, checkpoint.metadata, {**checkpoint.weights, other.name: other})
    with pytest.raises(ModelError, match=rf"weight blk\.1\.ffn_up is {unknown.name}, which sotol can't run yet"):
        trace_model(changed, CONTEXT)


def test_an_architecture_is_imported_when_it_is_asked_for() -> None:
    program = (
        "import sys\n"
        "from sotol.models import ARCHITECTURES\n"
        "def there(): return sorted(n for n in ARCHITECTURES if f'sotol.models.{n}' in sys.modules)\n"
        "before, asked = there(), 'olmo2' in ARCHITECTURES\n"
        "assert ARCHITECTURES['qwen3'].__name__ == 'sotol.models.qwen3'\n"
        "print(before, asked, there())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert said.strip() == "[] True ['qwen3']"


@pytest.mark.parametrize("name", ["gpt17", None, 5])
def test_an_unknown_architecture_is_named(name: object) -> None:
    checkpoint = Checkpoint(Path("odd.gguf"), {"general.architecture": name}, {})
    with pytest.raises(
        ModelError, match=rf"odd\.gguf: architecture {name!r} is not one that sotol runs: gemma3, llama"
    ):
        trace_model(checkpoint, CONTEXT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_where_a_prompt_is_cut_does_not_matter(architecture: str, data: st.DataObject) -> None:
    program = trace_model(checkpoint_of(architecture, optional=True), CONTEXT)
    ids = data.draw(st.lists(st.integers(0, 47), min_size=17, max_size=40))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(ids) - 1), max_size=6)))
    chunks = np.diff([0, *cuts, len(ids)]).tolist()
    whole, parts = (
        run_text(ReferenceRunner(program, limits_for(program, CONTEXT), np.float64, np.float64), ids, sizes)
        for sizes in ([len(ids)], chunks)
    )
    np.testing.assert_allclose(parts, whole, atol=1e-11)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sequences_side_by_side_do_not_touch(architecture: str) -> None:
    program = trace_model(checkpoint_of(architecture), CONTEXT)
    rng = np.random.default_rng(5)
    texts = [rng.integers(0, 48, size).tolist() for size in (3, 20, 17)]
    alone = [
        run_text(ReferenceRunner(program, limits_for(program, CONTEXT), np.float64, np.float64), ids, [len(ids)])
        for ids in texts
    ]
    limits = limits_for(program, CONTEXT, sequences=3)
    limits = limits._replace(blocks=(9,) * len(limits.blocks))  # so many states, too
    runner = ReferenceRunner(program, limits, np.float64, np.float64)
    # two steps: the texts are cut at different places, and their blocks lie mixed
    groups, tables, cuts = len(runner.groups), [[4], [7, 0], [2, 8]], [1, 16, 9]
    heads = [text[:cut] for text, cut in zip(texts, cuts, strict=True)]
    tails = [text[cut:] for text, cut in zip(texts, cuts, strict=True)]
    first = runner.run(make_step(heads, [0, 0, 0], tables, range(26), groups=groups))["logits"]
    second = runner.run(make_step(tails, cuts, tables, range(14), groups=groups))["logits"]
    split = [np.split(x, np.cumsum(sizes)[:-1]) for x, sizes in ((first, cuts), (second, [2, 4, 8]))]
    for expected, head, tail in zip(alone, *split, strict=True):
        np.testing.assert_allclose(np.concatenate([head, tail]), expected, atol=1e-11)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_untied_head_is_used_if_it_is_there(architecture: str) -> None:
    tied, untied = (trace_model(checkpoint_of(architecture, optional=o), CONTEXT) for o in (False, True))
    heads = [[node for node in program.nodes if node.op is ops.linear][-1] for program in (tied, untied)]
    assert [getattr(head.inputs[1], "name", "") for head in heads] == ["token_embd.weight", "output.weight"]


def reference_logits(checkpoint: Checkpoint) -> Float32Array:
    ids = np.random.default_rng(4).integers(0, 48, 12).tolist()
    program = trace_model(checkpoint, CONTEXT)
    runner = ReferenceRunner(program, limits_for(program, CONTEXT), np.float64, np.float64)
    return run_text(runner, ids, [len(ids)])


@pytest.mark.parametrize(
    ("architecture", "name"),
    sorted(pair for pair in {*all_names()} - {*required_names()} if pair[1].endswith(".bias")),
)
def test_each_bias_that_a_file_may_have_counts(architecture: str, name: str) -> None:
    """One of zeros changes nothing, another one does."""
    plain, full = checkpoint_of(architecture), full_name(name)
    shape = checkpoint_of(architecture, optional=True).weights[full].shape
    expected = reference_logits(plain)
    np.testing.assert_array_equal(reference_logits(with_weights(plain, {full: np.zeros(shape, np.float32)})), expected)
    numbers = np.linspace(-1, 2, math.prod(shape), dtype=np.float32).reshape(shape)
    other = with_weights(plain, {full: numbers})
    # A constant on keys would cancel in the softmax, were it not rotated.
    assert np.abs(reference_logits(other) - expected).max() > 1e-3


@pytest.mark.parametrize("encoding", ["F32", "Q8_0"])
@pytest.mark.parametrize("architecture", [a for a, m in ARCHITECTURES.items() if "blk.{}.attn_k" in m.WEIGHTS])
def test_queries_keys_and_values_may_lie_in_one_weight(architecture: str, encoding: str) -> None:
    plain = checkpoint_of(architecture, optional=True)
    encoded = {
        name: Weight.from_values(name, w.decode(), encoding) if len(w.shape) == 2 and is_matrix(w) else w
        for name, w in plain.weights.items()
    }
    plain = plain._replace(weights=encoded)
    joined = fused(plain)
    for layer in [name.split(".")[1] for name in plain.weights if name.endswith(".attn_q.weight")]:
        assert f"blk.{layer}.attn_qkv.weight" in joined.weights
        assert (f"blk.{layer}.attn_qkv.bias" in joined.weights) is (f"blk.{layer}.attn_q.bias" in plain.weights)
        assert f"blk.{layer}.attn_q.weight" not in joined.weights
    assert joined.weights.keys() != plain.weights.keys()
    np.testing.assert_array_equal(reference_logits(joined), reference_logits(plain))


@pytest.mark.parametrize("encoding", ["F32", "Q8_0"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gate_and_up_may_lie_in_one_weight(architecture: str, encoding: str) -> None:
    plain = checkpoint_of(architecture, optional=True)
    encoded = {
        name: Weight.from_values(name, w.decode(), encoding) if len(w.shape) == 2 and is_matrix(w) else w
        for name, w in plain.weights.items()
    }
    plain = plain._replace(weights=encoded)
    joined = joined_gates(plain)
    assert "blk.0.ffn_gate.weight" not in joined.weights
    np.testing.assert_array_equal(reference_logits(joined), reference_logits(plain))


def test_a_joined_weight_beside_its_parts_is_extra() -> None:
    plain = checkpoint_of("llama")
    both = plain._replace(weights={**plain.weights, **fused(plain).weights})
    with pytest.raises(ModelError, match=r"weight 'blk\.0\.attn_qkv' \(of 2\) is not part"):
        trace_model(both, CONTEXT)


def test_a_joined_weight_of_other_rows_is_named() -> None:
    wrong = {"blk.1.attn_qkv.weight": np.zeros((96, 32), np.float32)}
    with pytest.raises(ModelError, match=r"weight blk\.1\.attn_qkv has shape \[96, 32\], not \[64, 32\]$"):
        trace_model(with_weights(fused(checkpoint_of("llama")), wrong), CONTEXT)


def test_joined_gates_of_other_rows_are_the_part_alone() -> None:
    wrong = {"blk.1.ffn_up.weight": np.zeros((80, 32), np.float32)}
    with pytest.raises(ModelError, match=r"weight blk\.1\.ffn_up has shape \[80, 32\], not \[64, 32\]$"):
        trace_model(with_weights(joined_gates(checkpoint_of("llama")), wrong), CONTEXT)


def test_a_joined_bias_that_can_not_be_cut_is_named() -> None:
    """Blocks of 32 numbers may reach from one part into the next."""
    joined = fused(checkpoint_of("qwen2"))
    bias = joined.weights["blk.0.attn_qkv.bias"]
    changed = Weight.from_values(bias.name, bias.decode(), "Q8_0")
    with pytest.raises(ModelError, match=r"weight blk\.0\.attn_qkv\.bias is Q8_0: it can't be cut into its parts$"):
        trace_model(joined._replace(weights={**joined.weights, bias.name: changed}), CONTEXT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ones_before_a_shape_do_not_matter(architecture: str) -> None:
    plain = fused(checkpoint_of(architecture, optional=True))
    longer = plain._replace(weights={name: replace(w, shape=(1, *w.shape)) for name, w in plain.weights.items()})
    np.testing.assert_array_equal(reference_logits(longer), reference_logits(plain))
    norm = "token_embd_norm" if "token_embd_norm" in ARCHITECTURES[architecture].WEIGHTS else "output_norm"
    with pytest.raises(ModelError, match=rf"weight {norm} has shape \[2, 32\], not \[32\]$"):
        trace_model(with_weights(plain, {f"{norm}.weight": np.ones((2, 32), np.float32)}), CONTEXT)


def test_frequencies_that_the_metadata_says_anyway_are_left_out() -> None:
    plain = checkpoint_of("llama")
    buffers = ["rope.freqs", "blk.1.attn_rot_embd.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
    more = with_weights(plain, {name: np.ones(8, np.float32) for name in buffers})
    np.testing.assert_array_equal(reference_logits(more), reference_logits(plain))
