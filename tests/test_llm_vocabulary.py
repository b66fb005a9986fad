"""LLM where vocabulary and model do not match, and stop strings that spell tokens which answers do not show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.tiny_model import TOKENS, tiny_model

from sotol import LLM
from sotol.engine.sampling import Picked

END = TOKENS.index("<|im_end|>")
KEPT = 40  # tokens of a shorter vocabulary


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., LLM]:
    """A tiny model's LLM, with changed metadata."""
    return lambda metadata=None: LLM(tiny_model(tmp_path, metadata), threads=1)


@pytest.fixture
def padded(tiny: Callable[..., LLM]) -> LLM:
    """A model with logits for 48 tokens, whose vocabulary has 40."""
    types, scores = [2, *[3] * 4, *[1] * (KEPT - 5)], [0.0] * KEPT
    short = {"tokens": TOKENS[:KEPT], "token_type": types, "scores": scores}
    return tiny({f"tokenizer.ggml.{name}": value for name, value in short.items()})


def test_logits_beyond_the_vocabulary_are_never_chosen(padded: LLM) -> None:
    with padded as llm:
        assert llm.logits([[1, 45]])[0].shape == (2, 48)
        beyond = False
        for seed in range(8):
            options: dict[str, Any] = {
                "temperature": 5.0,
                "top_k": 0,
                "seed": seed,
                "logprobs": 20,
                "repeat_penalty": 1.2,
            }
            out = llm.generate([1, 45, 7], max_tokens=30, ignore_eos=True, **options)
            assert max(out.tokens) < KEPT
            assert out.logprobs is not None
            assert max(entry.token for row in out.logprobs for entry in row.top) < KEPT
            rows = llm.logits([[1, 45, 7, *out.tokens]])[0]
            beyond = beyond or bool((rows.argmax(axis=1) >= KEPT).any())
        assert beyond  # so they would be chosen if they could
        assert llm.detokenize([TOKENS.index("a"), 45, 47]) == "a"
        with pytest.raises(ValueError, match="names token 40, but the vocabulary ends at 39"):
            llm.generate([1], logit_bias={KEPT: 1})
        with pytest.raises(ValueError, match="token id 48 is not in the vocabulary"):
            llm.detokenize([48])


# ---- stop strings


@pytest.mark.parametrize(
    ("stop", "tokens", "text", "reason"),
    [
        ("<|im_start|>", "a <|im_start|> b", "a", "stop"),
        ("a<|im_start|>b", "b a <|im_start|> b c", "b", "stop"),
        ("<|im_start|><s>", "a <|im_start|> <s> b", "a", "stop"),
        ("a<|im_start|>b", "a <|im_start|> a b", "aab", "length"),
        ("ab", "a <|im_start|> b c", "", "stop"),  # what is not shown does not part the text
        # the same written in plain letters
        ("<|im_end|>", "a < | i m _ e n d | > b", "a", "stop"),
        (["<|im_start|>b", "c"], "a <|im_start|> c", "a", "stop"),
    ],
)
def test_a_stop_may_spell_tokens_that_are_not_shown(
    stop: str | list[str],
    tokens: str,
    text: str,
    reason: str,
    tiny: Callable[..., LLM],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = iter(TOKENS.index(token) for token in tokens.split())
    monkeypatch.setattr("sotol.engine.engine.pick", lambda *_: [Picked(next(script), None, ())])
    with tiny() as llm:
        out = llm.generate("a", max_tokens=len(tokens.split()), stop=stop)
    assert (out.text, out.finish_reason) == (text, reason)


def test_a_control_token_stops_though_ends_are_ignored(tiny: Callable[..., LLM]) -> None:
    with tiny() as llm:
        options: dict[str, Any] = {"max_tokens": 3, "temperature": 0, "ignore_eos": True, "logit_bias": {END: 1e4}}
        assert llm.generate("a", **options).finish_reason == "length"
        stopped = llm.generate("a", stop="<|im_end|>", **options)
        assert (stopped.finish_reason, stopped.text, stopped.tokens) == ("stop", "", ())


# ---- what is not ids or text


@pytest.mark.parametrize("ids", [5, None, [1.0], ["a"], [[1]], [None], [-1], [48], [2**70]])
def test_ids_that_are_none(ids: Any, tiny: Callable[..., LLM]) -> None:
    with tiny() as llm, pytest.raises(ValueError, match="token id"):
        llm.detokenize(ids)


@pytest.mark.parametrize("text", [5, None, b"a", ["a"]])
def test_text_that_is_none(text: Any, tiny: Callable[..., LLM]) -> None:
    with tiny() as llm, pytest.raises(ValueError, match=r"the text is .*; it must be a string"):
        llm.tokenize(text)
