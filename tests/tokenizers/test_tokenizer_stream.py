"""Streaming gives the same text as decoding all ids at once, and never emits half a character."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sotol.tokenizers import StreamDecoder, Tokenizer

SEARCH = settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=["byte", "prefix", "spaced"])
def tokenizer(
    request: pytest.FixtureRequest, trained: Callable[[str], Any], spaced: Any, make_metadata: Callable[..., Any]
) -> Tokenizer:
    """One of each family: bytes as characters, SentencePiece with its leading space, Gemma 4 with byte tokens."""
    if request.param == "byte":
        return trained("smollm")[0]  # type: ignore[no-any-return]
    if request.param == "spaced":
        return spaced[0]  # type: ignore[no-any-return]
    tokens = ["<unk>", "<bos>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "a", "▁", "▁▁", "é", "▁é😀"]
    fields = make_metadata("llama", tokens, scores=[0.0] * len(tokens), bos_token_id=1, eos_token_id=2)
    return Tokenizer.from_metadata(fields)


def test_equals_decoding_at_once(tokenizer: Tokenizer) -> None:
    @SEARCH
    @given(st.lists(st.integers(0, len(tokenizer) - 1), max_size=40), st.booleans(), st.booleans())
    def check(ids: list[int], special: bool, continued: bool) -> None:
        stream = StreamDecoder(tokenizer, special=special, continued=continued)
        pieces = [*map(stream.push, ids), stream.finish()]
        assert "".join(pieces) == tokenizer.decode(ids, special=special, continued=continued)

    check()


def test_a_character_comes_when_it_is_complete(tokenizer: Tokenizer) -> None:
    @SEARCH
    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    @example("▁")
    def check(text: str) -> None:
        stream = StreamDecoder(tokenizer)
        ids = tokenizer.encode(text)
        so_far = ""
        for count, token in enumerate(ids, 1):
            so_far += stream.push(token)
            whole = tokenizer.join(ids[:count])
            if tokenizer.space_prefix:
                whole = whole.removeprefix(b" ")
            assert so_far == whole.decode(errors="ignore")
        assert so_far + stream.finish() == (text.replace("▁", " ") if spaces else text)

    spaces = tokenizer.id_of("▁") is not None  # the vocabulary writes a space as ▁
    check()


def test_an_incomplete_character_ends_as_a_replacement(trained: Callable[[str], Any]) -> None:
    tokenizer = trained("gpt-2")[0]
    ids = tokenizer.encode("🂡")  # a card, which the training text lacks: several tokens
    assert len(ids) > 1
    stream = StreamDecoder(tokenizer)
    assert [stream.push(i) for i in ids[:-1]] == [""] * (len(ids) - 1)
    assert stream.finish() == "\ufffd"
