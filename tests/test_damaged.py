"""A model with a weight that is not finite: requests that meet it fail, and no others, not in its blocks either."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.tiny_model import TOKENS, tiny_model

from sotol import LLM, ModelError
from sotol.formats import read_gguf, write_gguf

BAD = TOKENS.index("z")


@pytest.fixture(params=[np.nan, np.inf])
def llm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LLM]:
    """The embedding of z is damaged; the head is another matrix."""
    model = read_gguf(tiny_model(tmp_path))
    embedding = model.weights["token_embd.weight"].decode().copy()
    embedding[BAD, 3] = request.param
    head = random_checkpoint("llama", seed=9).weights["token_embd.weight"].decode()
    damaged = with_weights(model, {"token_embd.weight": embedding, "output.weight": head})
    write_gguf(tmp_path / "damaged.gguf", model.metadata, damaged.weights.values())
    with LLM(tmp_path / "damaged.gguf", threads=2) as loaded:
        yield loaded


def healthy(llm: LLM) -> str:
    """An answer without z in it."""
    bias = {BAD: -float("inf")}
    return llm.generate("abc", max_tokens=12, seed=1, ignore_eos=True, logit_bias=bias).text


def spoilt(llm: LLM) -> str:
    """It fills three blocks of the cache with what is damaged."""
    return llm.generate([TOKENS.index("a"), *[BAD] * 47], max_tokens=1).text


def test_who_comes_next_gets_the_blocks_but_not_the_damage(llm: LLM) -> None:
    alone = healthy(llm)
    for _ in range(3):
        with pytest.raises(ModelError, match="weights are damaged"):
            spoilt(llm)
        assert healthy(llm) == alone


def test_who_is_in_the_same_batch_does_not_notice(llm: LLM) -> None:
    alone = healthy(llm)
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(healthy, llm) for _ in range(3)]
        failures = [pool.submit(spoilt, llm) for _ in range(3)]
        assert [answer.result() for answer in answers] == [alone] * 3
        for failure in failures:
            with pytest.raises(ModelError, match="weights are damaged"):
                failure.result()
