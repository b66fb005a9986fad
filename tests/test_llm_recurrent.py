"""`LLM` over small models with recurrent layers: snapshots, preemption and company change no answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.tiny_model import tiny_model

from sotol import LLM, Completion

CONTEXT = 512
MEMORY = 70_000  # bytes: of 600 tokens, and of six to ten states
LONG = "".join("the quick brown fox jumps over the lazy dog, "[i % 45] for i in range(7, 150))


@pytest.fixture(scope="module", params=["qwen35", "nemotron_h", "lfm2"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp(request.param), architecture=request.param, context=CONTEXT)


@pytest.fixture(scope="module")
def judge(path: Path) -> Iterator[LLM]:
    """It computes everything anew."""
    with LLM(path, threads=1, prefix_cache=False) as llm:
        yield llm


def answer(llm: LLM, prompt: list[int], seed: int, tokens: int = 24) -> Completion:
    return llm.generate(prompt, max_tokens=tokens, temperature=1, seed=seed, ignore_eos=True)


def test_a_prompt_goes_on_from_a_snapshot(path: Path, judge: LLM) -> None:
    """The same prompt again; then, with its answer, as the beginning of another; then one that differs in its midst."""
    with LLM(path, threads=2) as llm:
        prompt = llm.tokenize(LONG)
        first = answer(llm, prompt, 1)
        assert first.usage.cached_tokens == 0
        again = answer(llm, prompt, 1)
        assert again.tokens == first.tokens == answer(judge, prompt, 1).tokens
        assert again.usage.cached_tokens == (len(prompt) - 1) // 16 * 16  # the last whole block
        longer = [*prompt, *first.tokens, *prompt[:9]]
        more = answer(llm, longer, 2)
        assert more.usage.cached_tokens == (len(prompt) + len(first.tokens) - 1) // 16 * 16
        assert more.tokens == answer(judge, longer, 2).tokens
        other = [*prompt[:100], 7, 7, *prompt[100:]]
        assert answer(llm, other, 3).tokens == answer(judge, other, 3).tokens


def test_answers_are_those_of_requests_alone(path: Path, judge: LLM) -> None:
    """Nine at once, with memory for few states and little more than one context, so that some must wait or give way."""
    prompts = [judge.tokenize(LONG)[: 20 + 13 * i] for i in range(9)]
    alone = [answer(judge, prompt, 4, 60).tokens for prompt in prompts]
    with LLM(path, threads=2, sequences=5, step_tokens=40, kv_memory=MEMORY) as llm:
        together = llm.generate(prompts, max_tokens=60, temperature=1, seed=4, ignore_eos=True)
    assert [one.tokens for one in together] == alone
