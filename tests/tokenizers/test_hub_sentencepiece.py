"""tokenizer.model, which has the same vocabulary as GGUF's metadata: ids are the same, and damage is one error."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sentencepieces import PIECES, field, model_file

from sotol.errors import FormatError, ModelError, SotolError
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.hub.sentencepiece import read_sentencepiece


def test_the_same_as_of_gguf(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model_file())
    tokenizer = Tokenizer.from_folder(tmp_path)
    gguf = Tokenizer.from_metadata({
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text.replace("▁", " ") if kind == 4 else text for text, _, kind in PIECES],
        "tokenizer.ggml.scores": [s for _, s, _ in PIECES], "tokenizer.ggml.token_type": [k for *_, k in PIECES],
    })  # fmt: skip
    for text in ("the", "the the  x", "é  x", "<s>a</s>", ""):
        assert tokenizer.encode(text) == gguf.encode(text)
        assert tokenizer.encode(text, special=True) == gguf.encode(text, special=True)
    assert tokenizer.decode(tokenizer.encode("the b é")) == "the b é"
    assert (tokenizer.bos, tokenizer.eos, tokenizer.adds_bos) == (1, 2, True)


def test_files_beside(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model_file(normalizer=field(3, 0) + field(4, 0)))
    count = len(PIECES)
    added = {
        str(count): {"content": "<end>", "special": True},
        str(count + 1): {"content": "<tool>", "special": False},
    }
    config = {"add_bos_token": False, "eos_token": "<end>", "added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 9999]}')
    tokenizer = Tokenizer.from_folder(tmp_path, logits=count + 8)
    assert len(tokenizer) == count + 2
    assert (tokenizer.eos, tokenizer.adds_bos, tokenizer.space_prefix) == (count, False, False)
    assert tokenizer.end_of_generation == {2, count}
    assert tokenizer.encode("a<tool><end>", special=True)[1:] == [count + 1, count]
    assert len(Tokenizer.from_folder(tmp_path, logits=count + 1)) == count + 1  # of the model's, not all added tokens


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (model_file(kind=1), "its kind Unigram"),
        (model_file(kind=99), "its kind 99"),
        (model_file(normalizer=field(2, b"abc") + field(4, 0)), "its normalizer"),
        (model_file(normalizer=b""), "that it removes spaces"),
        (model_file(suffix=1), "that a space follows a word"),
    ],
)
def test_what_is_not_supported(data: bytes, message: str) -> None:
    with pytest.raises(
        ModelError, match=f"^x: sotol does not support {message}: save the tokenizer as tokenizer.json$"
    ):
        read_sentencepiece(data, "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (model_file()[:-1], "x: the file is no message"),
        (b"\xff" * 20, "x: the file is no message"),
        (b"\x0b", "x: the file is no message"),
        (field(1, b"\x0a\xff"), "x: piece 0 is no message"),
        (field(1, field(1, 5)), "x: piece 0 is no piece with a text and a type"),
        (b"\x00\x01", "x: the file is no message"),
    ],
)
def test_what_is_damaged(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=f"^{message}"):
        read_sentencepiece(data, "x")


@given(st.binary(max_size=60), st.integers(0, 4000), st.integers(0, 40))
def test_any_bytes_anywhere(junk: bytes, at: int, size: int) -> None:
    data = model_file()
    data = data[: at % len(data)] + junk + data[at % len(data) + size :]
    with suppress(SotolError):
        Tokenizer.from_metadata(read_sentencepiece(data, "x"), "x").encode("the é x")
