"""SentencePiece's BPE against a naive version that works on the whole text, with random vocabularies and texts."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotol.tokenizers import Tokenizer
from sotol.tokenizers.spm import _ranks

CONTROL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SEARCH = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

PIECES = st.sets(st.text("▁ab\né", min_size=1, max_size=4), max_size=30).map(lambda pieces: sorted(pieces | {"▁"}))


def fields_of(pieces: list[str], scores: list[float], space_prefix: bool = True) -> dict[str, object]:
    tokens = CONTROL + BYTES + pieces
    values = {
        "model": "llama",
        "tokens": tokens,
        "scores": [0.0] * (3 + 256) + scores,
        "token_type": [2, 3, 3, *[6] * 256, *[1] * len(pieces)],
        "unknown_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_space_prefix": space_prefix,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in values.items()}


def naive(text: str, scores: dict[str, float]) -> list[str]:
    """Tokens of the whole text by rescanning it for each merge; symbols without a token become byte tokens."""
    symbols = list(text.replace(" ", "▁"))
    while True:
        pairs = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]
        if not pairs:
            break
        _, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    return [token for s in symbols for token in ([s] if s in scores else [BYTES[byte] for byte in s.encode()])]


@SEARCH
@given(PIECES, st.data(), st.booleans())
def test_equals_the_naive_twin(pieces: list[str], data: st.DataObject, space_prefix: bool) -> None:
    numbers = st.lists(st.integers(-6, 0).map(float), min_size=len(pieces), max_size=len(pieces))
    scores = data.draw(numbers)
    text = data.draw(st.text(" ab\néж😀", max_size=60))
    tokenizer = Tokenizer.from_metadata(fields_of(pieces, scores, space_prefix))
    ids = tokenizer.encode(text)
    full = " " + text if space_prefix and text else text
    assert [tokenizer.token_text(i) for i in ids] == ["<s>", *naive(full, dict(zip(pieces, scores, strict=True)))]
    assert tokenizer.decode(ids) == text


@given(st.integers(0, 40), st.lists(st.integers(-45, 0).map(float), max_size=9), st.integers(0, 9))
def test_ranks_are_in_the_order_of_scores(falling: int, others: list[float], before: int) -> None:
    """As in most files: scores fall by one per token, except for some tokens at the beginning and the end."""
    scores = np.array([*others[:before], *(-float(i) for i in range(falling)), *others[before:]])
    ids = {f"token {i}": i for i in range(len(scores))}
    ranks = np.array([_ranks(ids, scores)[text] for text in ids])
    np.testing.assert_array_equal(ranks[:, None] < ranks, scores[:, None] > scores)


def test_the_space_in_front_is_put_and_taken() -> None:
    pieces = ["▁a", "a", "▁", "b"]
    tokenizer = Tokenizer.from_metadata(fields_of(pieces, [-1.0, -2.0, -3.0, -4.0]))
    first = 3 + 256
    assert tokenizer.encode("a a") == [1, first, first]
    assert tokenizer.encode("") == [1]
    assert tokenizer.decode([1, first, first]) == "a a"
    assert tokenizer.decode([first, first], continued=True) == " a a"
    assert tokenizer.decode([1, first], special=True) == "<s> a"
    # llama.cpp and the slow `transformers` tokenizer put it after every special token too
    assert tokenizer.encode("a</s>a", special=True) == [1, first, 2, first]
    plain = Tokenizer.from_metadata(fields_of(pieces, [-1.0, -2.0, -3.0, -4.0], space_prefix=False))
    assert plain.encode("a a") == [1, first + 1, first]
    assert plain.decode([first]) == " a"


def test_text_does_not_spell_control_or_byte_tokens() -> None:
    pieces = ["s>", "<s", "<", "s", ">", "0x41>", "<0x", "/s>", "</"]
    tokenizer = Tokenizer.from_metadata(fields_of(pieces, [-1.0] * len(pieces), space_prefix=False))
    ids = tokenizer.encode("<s></s><0x41>", add_special=False)
    assert not {0, 1, 2, 3 + 0x41} & set(ids)
    assert tokenizer.decode(ids) == "<s></s><0x41>"


def test_bytes_without_a_token_are_unknown(make_metadata: Callable[..., dict[str, object]]) -> None:
    tokens = ["<unk>", "<bos>", "a"]
    fields = make_metadata("llama", tokens, scores=[0.0, 0.0, 0.0], unknown_token_id=0, bos_token_id=1)
    tokenizer = Tokenizer.from_metadata(fields | {"tokenizer.ggml.add_space_prefix": False})
    assert tokenizer.encode("aé") == [1, 2, 0, 0]


def test_an_unknown_token_that_ends_texts_is_not_written(make_metadata: Callable[..., dict[str, object]]) -> None:
    fields = make_metadata("llama", ["<unk>", "<bos>", "a"], scores=[0.0] * 3, unknown_token_id=0, eos_token_id=0)
    assert Tokenizer.from_metadata(fields).encode("éa", add_special=False) == [2]
