"""Hunyuan: a stretched base, and norms that follow the rotation."""

import numpy as np
import pytest
from tests.support.configs import hf_checkpoint
from tests.support.tracing import program_of, tables_by_layer

from sotol.errors import ModelError
from sotol.models import trace_model


def test_alpha_stretches_the_base() -> None:
    table = tables_by_layer(trace_model(hf_checkpoint("hunyuan-dense"), 32))[1].value
    base = 10000.0 * 50.0 ** (16 / 14)
    angle = np.outer(np.arange(32), base ** -(np.arange(8) / 8))
    np.testing.assert_allclose(table, np.stack([np.cos(angle), np.sin(angle)], axis=1), atol=1e-6)
    same = program_of("hunyuan-dense", rope__freq_base=float(np.float32(base)))
    np.testing.assert_array_equal(tables_by_layer(same)[0].value, table)


def test_what_alpha_can_not_stretch_is_named() -> None:
    plain = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(ModelError, match=r"rope\.scaling\.type is 'dynamic': sotol has none, linear and yarn"):
        trace_model(hf_checkpoint("hunyuan-dense", rope_parameters=plain), 32)
    with pytest.raises(ModelError, match=r"rope\.scaling\.alpha is for heads of which more than one pair rotates"):
        program_of("hunyuan-dense", rope__scaling__alpha=50.0, rope__dimension_count=2)


def test_norms_follow_the_rotation() -> None:
    program = program_of("hunyuan-dense")
    for node in program.nodes:
        if node.op.name == "rope":
            (reader,) = (
                n
                for n in program.nodes
                if any(getattr(x, "index", None) == program.nodes.index(node) for x in n.inputs)
            )
            assert reader.op.name == "rms_norm"
