"""ERNIE 4.5 is a Llama whose checkpoints of Hugging Face's need no other order of channels."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.configs import hf_checkpoint
from tests.support.programs import same_programs
from tests.support.tracing import IDS, logits_of, program_of

from sotol.errors import ModelError
from sotol.models import trace_model


def test_it_is_a_llama() -> None:
    llama = trace_model(random_checkpoint("llama"), 32)
    np.testing.assert_array_equal(logits_of(program_of("ernie4_5"), IDS), logits_of(llama, IDS))


def test_channels_of_a_checkpoint_are_taken_as_they_lie() -> None:
    ours = trace_model(random_checkpoint("ernie4_5", optional=True), 32)
    same_programs(trace_model(hf_checkpoint("ernie4_5"), 32), ours)


def test_a_model_that_sees_is_refused() -> None:
    with pytest.raises(ModelError, match=r"ernie4_5 with rope\.dimension_sections is not a model that sotol runs"):
        program_of("ernie4_5", rope__dimension_sections=[16, 24, 24, 0])
