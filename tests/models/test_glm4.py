"""GLM-4: how much of a head rotates, and files of its relatives that see."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.configs import hf_checkpoint
from tests.support.tracing import IDS, logits_of, program_of, tables_by_layer

from sotol.errors import ModelError
from sotol.models import trace_model


def test_a_part_of_each_head_rotates() -> None:
    assert tables_by_layer(program_of("glm4", rope__dimension_count=8))[0].shape == (32, 2, 4)
    assert tables_by_layer(program_of("glm4"))[0].shape == (32, 2, 8)
    half, quarter = (trace_model(hf_checkpoint("glm4", partial_rotary_factor=f), 32) for f in (0.5, 0.25))
    assert [tables_by_layer(p)[1].shape for p in (half, quarter)] == [(32, 2, 4), (32, 2, 2)]


def test_the_share_may_be_among_the_parameters_of_rope() -> None:
    rope = {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.25}
    program = trace_model(hf_checkpoint("glm4", rope_parameters=rope), 32)
    assert tables_by_layer(program)[0].shape == (32, 2, 2)


def test_the_length_of_what_a_block_adds_does_not_matter() -> None:
    model = random_checkpoint("glm4", {"attention.layer_norm_rms_epsilon": 1e-30})
    longer = {name: 8 * model.weights[name].decode() for name in ("blk.0.attn_output.weight", "blk.1.ffn_down.weight")}
    plain, same = (logits_of(trace_model(c, 32), IDS) for c in (model, with_weights(model, {**longer})))
    np.testing.assert_allclose(same, plain, atol=1e-9)


def test_a_model_that_sees_is_refused() -> None:
    with pytest.raises(ModelError, match=r"glm4 with rope\.dimension_sections is not a model that sotol runs"):
        program_of("glm4", rope__dimension_sections=[8, 12, 12, 0])
