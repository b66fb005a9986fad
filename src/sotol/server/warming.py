"""What a first request would wait for, done while nobody waits: imports, the chat template, the vocabulary's trie."""

from contextlib import suppress

from sotol.engine.options import Sampling
from sotol.llm import LLM

__all__ = ["warm"]

MESSAGES = [{"role": "system", "content": "-"}, {"role": "user", "content": "-"}]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "-", "parameters": {"type": "object"}}}]


def warm(llm: LLM) -> None:
    """Do it for a model. What fails, fails again where somebody asks for it."""
    for tools in (None, TOOLS):
        with suppress(Exception):
            llm.turn(MESSAGES, tools=tools)
    with suppress(Exception):
        llm.compile(Sampling(json=True))
