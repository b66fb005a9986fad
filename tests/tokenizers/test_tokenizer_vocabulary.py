"""Reading `tokenizer.ggml.*`: the ends of generation, and errors that name the faulty field."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotol.errors import FormatError, ModelError
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.vocabulary import TokenType, read_vocabulary

GOOD: dict[str, object] = {
    "model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab", "<|im_end|>", "<x>"], "merges": ["a b"],
    "token_type": [1, 1, 1, 3, 3], "eos_token_id": 4, "bos_token_id": 4, "scores": [0.0, 1, 2.5, 3.0, 4.0],
    "add_bos_token": True, "add_eos_token": True,
}  # fmt: skip


def fields(**changes: object) -> dict[str, object]:
    return {f"tokenizer.ggml.{name}": value for name, value in (GOOD | changes).items()}


def test_reads_lists_and_arrays() -> None:
    plain = read_vocabulary(fields())
    arrays = read_vocabulary(fields(token_type=np.array([1, 1, 1, 3, 3], np.int32), scores=np.arange(5.0)))
    assert plain.types.tolist() == arrays.types.tolist() == [TokenType.NORMAL] * 3 + [TokenType.CONTROL] * 2
    assert plain.ids["ab"] == 2
    assert len(plain.scores) == 0  # BPE has no use for them
    scored = {"model": "llama", "scores": np.arange(5.0, dtype=np.float32)}
    assert read_vocabulary(fields(**scored)).scores.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", None), ("tokens", []), ("tokens", "abc"), ("tokens", [1, 2]), ("token_type", ["a"] * 5),
        ("token_type", 1), ("merges", [3]), ("merges", "a b"), ("pre", 3), ("model", 1), ("bos_token_id", "a"),
        ("eot_token_id", True), ("eom_token_id", 1.0), ("add_eos_token", "yes"), ("add_bos_token", 2),
    ],
)  # fmt: skip
def test_broken_fields_are_named(field: str, value: object) -> None:
    with pytest.raises(FormatError, match=rf"m\.gguf: tokenizer\.ggml\.{field}"):
        Tokenizer.from_metadata(fields(**{field: value}), "m.gguf")


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), JUNK | st.lists(JUNK, max_size=6), max_size=4))
def test_junk_gives_a_clear_error_or_a_tokenizer(changes: dict[str, object]) -> None:
    with suppress(FormatError, ModelError):
        Tokenizer.from_metadata(fields(**changes)).encode("ab")


@pytest.mark.parametrize(
    ("texts", "types", "ids", "ends"),
    [
        (["x", "<|im_end|>", "<|endoftext|>"], [1, 3, 3], {"eos_token_id": 1}, {1, 2}),
        (["x", "<|eot_id|>", "<|eom_id|>", "<e>"], [1, 3, 3, 3], {"eos_token_id": 3}, {1, 2, 3}),
        (["x", "<end_of_turn>", "<y>"], [1, 3, 3], {"eos_token_id": 2}, {1, 2}),
        (["x", "y", "z"], [1, 1, 1], {"eot_token_id": 1, "eom_token_id": 2, "eos_token_id": 0}, {0, 1, 2}),
        # Gemma 3 has an HTML tag </s> as a user-defined token
        (["</s>", "<eos>"], [4, 3], {"eos_token_id": 1}, {1}),
        # an end of a turn is one whatever its type; only </s> may be HTML
        (["x", "</s>", "[EOS]", "<|im_end|>"], [1, 1, 1, 1], {}, {2, 3}),
        # harmony: <|end|> ends a message, and the model goes on
        (["<|return|>", "<|call|>", "<|end|>"], [3, 3, 3], {"eos_token_id": 0}, {0, 1}),
        (["<|end|>", "<|endoftext|>"], [4, 3], {"eos_token_id": 1}, {0, 1}),
    ],
)
def test_all_ends_of_generation(texts: list[str], types: list[int], ids: dict[str, int], ends: set[int]) -> None:
    metadata = {"tokenizer.ggml.tokens": texts, "tokenizer.ggml.token_type": types}
    metadata |= {f"tokenizer.ggml.{name}": value for name, value in ids.items()}
    assert read_vocabulary(metadata).end_of_generation == ends


def test_an_end_marked_as_text_is_control() -> None:
    tokenizer = Tokenizer.from_metadata(fields(token_type=[1, 1, 1, 1, 3]))
    assert tokenizer.encode("<|im_end|>", special=True, add_special=False) == [3]
    assert tokenizer.encode("<|im_end|>", add_special=False) == []  # it has no token for these characters
    assert tokenizer.decode([3]) == ""
