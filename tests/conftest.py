"""What many tests share: Hypothesis draws the same examples in every run, and the default model is loaded once.

`HYPOTHESIS_PROFILE=explore` draws others, and more wherever a test does not say how many.
"""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from sotol import LLM

# How long a draw takes says more about who else uses the machine than about the test.
settings.register_profile(
    "same", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Started in the background of a shell, pytest and the programs that it starts would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2() -> Iterator[LLM]:
    """The default model with a small context. Tests must leave it idle and open."""
    with LLM(ctx=256, threads=2) as llm:
        yield llm
