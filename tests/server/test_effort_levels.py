"""Levels of effort in all dialects, as a template like gpt-oss's hears of them."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

TEMPLATE = (
    "{% set effort = reasoning_effort if reasoning_effort is defined else 'medium' %}"
    "{{ effort }} {{ enable_thinking is defined and enable_thinking }}<|assistant|>"
)
HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/chat/completions", {"messages": HI}, "medium False"),
        ("/v1/chat/completions", {"messages": HI, "reasoning_effort": "xhigh"}, "high True"),
        ("/v1/chat/completions", {"messages": HI, "reasoning_effort": "none"}, "medium False"),
        ("/v1/responses", {"input": "hi", "reasoning": {"effort": "low"}}, "low True"),
        ("/v1/messages", {"messages": HI, "max_tokens": 99}, "medium False"),
        ("/v1/messages", {"messages": HI, "max_tokens": 99, "output_config": {"effort": "max"}}, "high False"),
        (
            "/v1/messages",
            {"messages": HI, "max_tokens": 99, "output_config": {"effort": "low"}, "thinking": {"type": "adaptive"}},
            "low True",
        ),
        ("/api/chat", {"messages": HI, "think": "high", "stream": False}, "high True"),
        ("/api/chat", {"messages": HI, "think": False, "stream": False}, "medium False"),
    ],
)
def test_levels_by_dialect(serve: Callable[..., str], path: str, body: dict[str, Any], told: str) -> None:
    url = serve(lambda prompt: prompt.removesuffix("<|assistant|>"), template=TEMPLATE)
    answer = httpx.post(f"{url}{path}", json={"model": "model", **body})
    assert answer.status_code == 200, answer.text
    assert told in answer.text
