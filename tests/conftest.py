"""What many tests share: Hypothesis draws the same examples in every run, and the default model is loaded once."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from sotol import LLM

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

# Started in the background of a shell, pytest and the programs that it starts would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2() -> Iterator[LLM]:
    """The default model with a small context. Tests must leave it idle and open."""
    with LLM(ctx=256, threads=2) as llm:
        yield llm
