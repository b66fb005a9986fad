"""What many tests share: Hypothesis draws the same examples in every run, and the default model is loaded once."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from sotol import LLM

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def smollm2() -> Iterator[LLM]:
    """The default model with a small context. Tests must leave it idle and open."""
    with LLM(ctx=256, threads=2) as llm:
        yield llm
