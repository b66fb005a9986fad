"""Llama 4: chunks, layers that do not rotate, a temperature by position, experts that weigh what goes in."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.configs import hf_checkpoint
from tests.support.tracing import CONTEXT, IDS, attributes, logits_of, program_of, tables_by_layer

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.program.memory import Paged
from sotol.program.program import Constant, Program


def said(checkpoint: Checkpoint, **keys: object) -> Checkpoint:
    """The same weights with other metadata."""
    metadata = {**checkpoint.metadata, **{f"llama4.{key}": value for key, value in keys.items()}}
    return checkpoint._replace(metadata=metadata)


def chunks_of(program: Program) -> list[int]:
    """Of each layer's cache; 0: none."""
    layouts = [cache.layout for cache in program.caches()]
    return [layout.window if layout.chunked else 0 for layout in layouts if isinstance(layout, Paged)]


def test_each_fourth_layer_sees_everything_and_does_not_rotate() -> None:
    program = program_of("llama4", block_count=9)
    assert chunks_of(program) == [7, 7, 7, 0, 7, 7, 7, 0, 7]
    assert list(tables_by_layer(program)) == [0, 1, 2, 4, 5, 6, 8]
    assert [node.layer for node in program.nodes if node.op.name == "scale_by_position"] == [3, 7]


def test_what_a_file_without_keys_means() -> None:
    assert chunks_of(program_of("llama4", block_count=4, attention__sliding_window=None)) == [8192] * 3 + [0]


def test_a_file_of_a_model_without_chunks_rotates_everywhere() -> None:
    program = program_of("llama4", block_count=4, attention__sliding_window=0)
    assert chunks_of(program) == [0] * 4
    assert list(tables_by_layer(program)) == [0, 1, 2, 3]
    assert not [node for node in program.nodes if node.op.name == "scale_by_position"]


def test_a_token_does_not_see_the_chunk_before_its_own() -> None:
    """One layer: what comes before a border does not reach behind it."""
    program = program_of("llama4", block_count=1)
    before = logits_of(program, IDS)
    after = logits_of(program, [(IDS[0] + 1) % 48, *IDS[1:]])
    moved = np.abs(after - before).max(axis=1) > 1e-9
    assert np.flatnonzero(moved).tolist() == list(range(7))


@pytest.mark.parametrize(
    ("config", "chunks", "rotating"),
    [
        ({"no_rope_layers": [0, 1]}, [0, 7], [1]),
        ({"no_rope_layers": [1, 1], "layer_types": ["full_attention", "chunked_attention"]}, [0, 7], [0, 1]),
        ({"attention_chunk_size": None}, [0, 0], [0, 1]),
        ({"no_rope_layers": None, "no_rope_layer_interval": 2}, [7, 0], [0]),
    ],
)
def test_a_config_says_which(config: dict[str, object], chunks: list[int], rotating: list[int]) -> None:
    program = trace_model(hf_checkpoint("llama4", **config), CONTEXT)
    assert chunks_of(program) == chunks
    assert list(tables_by_layer(program)) == rotating


def test_queries_and_keys_are_normalised_but_for_maverick() -> None:
    def norms(**keys: object) -> int:
        program = program_of("llama4", block_count=3, **keys)
        return sum(len(node.shape) == 3 for node in program.nodes if node.op.name == "rms_norm")

    assert norms() == 6
    assert norms(expert_count=128, expert_used_count=1) == 0
    program = trace_model(hf_checkpoint("llama4", use_qk_norm=False), CONTEXT)
    assert not any(len(node.shape) == 3 for node in program.nodes if node.op.name == "rms_norm")


def test_the_temperature() -> None:
    config = {"no_rope_layers": [0, 0], "floor_scale": 8, "attn_scale": 0.3}
    program = trace_model(hf_checkpoint("llama4", **config), CONTEXT)
    (table,) = {
        x
        for node in program.nodes
        if node.op.name == "scale_by_position"
        for x in node.inputs
        if isinstance(x, Constant)
    }
    want = 1 + 0.3 * np.log1p((np.arange(CONTEXT) + 1) // 8)
    np.testing.assert_allclose(table.value, want, rtol=1e-6)
    for off in (False, 0):
        program = trace_model(hf_checkpoint("llama4", **config, attn_temperature_tuning=off), CONTEXT)
        assert not [node for node in program.nodes if node.op.name == "scale_by_position"]


def test_layers_with_experts() -> None:
    """Each second one here; the file of a model that has them everywhere lacks nothing else."""
    program = program_of("llama4", block_count=4)
    assert [node.layer for node in program.nodes if node.op.name == "choose_experts"] == [1, 3]
    assert attributes(program, "choose_experts", "scores") == ["chosen_sigmoid"] * 2
    assert attributes(program, "combine", "weighted") == [False] * 2
    plain = random_checkpoint("llama4")
    with pytest.raises(ModelError, match=r"weight blk\.0\.ffn_gate_inp is missing"):
        trace_model(said(plain, interleave_moe_layer_step=1), CONTEXT)
    with pytest.raises(ModelError, match=r"weight blk\.1\.ffn_gate is missing"):
        trace_model(said(plain, interleave_moe_layer_step=0), CONTEXT)


def test_a_list_of_layers_with_experts() -> None:
    program = trace_model(hf_checkpoint("llama4", moe_layers=[1]), CONTEXT)
    assert [node.layer for node in program.nodes if node.op.name == "choose_experts"] == [1]
    with pytest.raises(ModelError, match=r"config\.json's moe_layers is '1', not a list of layers"):
        trace_model(hf_checkpoint("llama4", moe_layers=1), CONTEXT)
