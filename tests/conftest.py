"""What many tests share."""

from collections.abc import Iterator

import pytest

from sotol import LLM


@pytest.fixture(scope="session")
def smollm2() -> Iterator[LLM]:
    """The default model with a small context. Tests must leave it idle and open."""
    with LLM(ctx=256, threads=2) as llm:
        yield llm
