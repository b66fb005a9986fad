"""GGUF's fields as tokenizer.json: the library `tokenizers`, whose files these are, gives the same ids."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tokenizers.conftest import CORPUS, byte_bpe, gemma4

from sotol.errors import ModelError
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.pretokenize import PRETOKENIZERS
from sotol.tools.hub_vocabulary import hub_vocabulary
from sotol.tools.pretokenizer_names import PROBE
from tokenizers import Tokenizer as Judge

ROWS = {row.expressions: name for name, row in reversed(PRETOKENIZERS.items())}  # the first name of each


def fields(model: str, tokens: list[str], **more: object) -> dict[str, object]:
    return {f"tokenizer.ggml.{key}": value for key, value in {"model": model, "tokens": tokens, **more}.items()}


def alphabet() -> list[str]:
    from sotol.tokenizers.bpe import CHARACTER_OF_BYTE

    return list(CHARACTER_OF_BYTE)


@pytest.mark.parametrize("name", ROWS.values())
def test_each_way_to_cut_words_is_that_of_the_library(name: str) -> None:
    """Merges of all bytes, so that a word is the fewest tokens: where words end shows in the ids."""
    tokens, merges = alphabet(), list[str]()
    words = sorted({spelled for text in (PROBE, *CORPUS) for spelled in map(spell, PRETOKENIZERS[name].split(text))})
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in tokens:
                tokens.append(word[:end])
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
    metadata = fields("gpt2", tokens, pre=name, merges=merges, add_bos_token=False)
    whole, _ = hub_vocabulary(metadata, Tokenizer.from_metadata(metadata))
    judge, ours = Judge.from_str(json.dumps(whole)), Tokenizer.from_metadata(metadata)
    for text in (PROBE, *CORPUS):
        assert judge.encode(text).ids == ours.encode(text)


def spell(word: str) -> str:
    return "".join(alphabet()[byte] for byte in word.encode())


def test_what_stands_around_and_within_texts(tmp_path: Path) -> None:
    vocabulary, _ = byte_bpe("qwen2")
    count = len(vocabulary)
    tokens = [vocabulary._vocabulary.tokens[i] for i in range(count)]
    types = vocabulary._vocabulary.types.tolist()
    metadata = fields(
        "gpt2", [*tokens, f"[PAD{count}]"], pre="qwen2", merges=vocabulary._vocabulary.merges,
        token_type=[*types, 5], bos_token_id=tokens.index("<bos>"), eos_token_id=tokens.index("<|im_end|>"),
        add_bos_token=True, add_eos_token=True, padding_token_id=0,
    )  # fmt: skip
    whole, config = hub_vocabulary(metadata, Tokenizer.from_metadata(metadata))
    judge, ours = Judge.from_str(json.dumps(whole)), Tokenizer.from_metadata(metadata)
    assert judge.get_vocab_size() == count
    for text in (*CORPUS, "a<|im_end|> <think> <|im_start|>"):
        assert judge.encode(text).ids == ours.encode(text, special=True)
        assert judge.decode(judge.encode(text).ids, skip_special_tokens=False) == ours.decode(
            ours.encode(text, special=True), special=True
        )
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<bos>", "<|im_end|>", tokens[0])
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    again = Tokenizer.from_folder(tmp_path)
    assert [again.encode(text) for text in CORPUS] == [ours.encode(text) for text in CORPUS]


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece(prefix: bool) -> None:
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefgh"]
    made = ["ab", "▁ab", "cd", "abcd", "▁abcd", "▁▁", "bc", "gh", "efgh", "ef"]
    types = [2, 3, 3, *[6] * 256, *[1] * (9 + len(made))]
    scores = np.array([0.0] * 259 + [-100.0] * 9 + [-float(i) for i in range(len(made))], np.float32)
    metadata = fields(
        "llama", [*texts, *made], token_type=types, scores=scores, add_space_prefix=prefix, bos_token_id=1,
        eos_token_id=2, unknown_token_id=0,
    )  # fmt: skip
    whole, _ = hub_vocabulary(metadata, Tokenizer.from_metadata(metadata))
    judge, ours = Judge.from_str(json.dumps(whole)), Tokenizer.from_metadata(metadata)
    for text in (*CORPUS, "abcd abc bcd", "  ab  cd", "efghgh"):
        ids = ours.encode(text)
        assert judge.encode(text).ids == ids
        assert judge.decode(ids) == ours.decode(ids)


def test_gemma4() -> None:
    ours, _ = gemma4()
    vocabulary = ours._vocabulary
    metadata = fields(
        "gemma4", vocabulary.tokens, token_type=vocabulary.types.tolist(), merges=vocabulary.merges,
        bos_token_id=vocabulary.bos, unknown_token_id=vocabulary.unknown,
    )  # fmt: skip
    metadata = {key: value for key, value in metadata.items() if value is not None}
    whole: dict[str, Any] = hub_vocabulary(metadata, Tokenizer.from_metadata(metadata))[0]
    judge, again = Judge.from_str(json.dumps(whole)), Tokenizer.from_metadata(metadata)
    for text in CORPUS:
        assert judge.encode(text, add_special_tokens=False).ids == again.encode(text, add_special=False)


def test_an_unknown_kind() -> None:
    ours, _ = byte_bpe("qwen2")
    broken = fields("llama", ["<unk>", "<s>", "</s>", "a", b"\xffa".decode(errors="surrogateescape")])
    with pytest.raises(ModelError, match="token 4 has bytes that are not UTF-8"):
        hub_vocabulary(broken, Tokenizer.from_metadata(broken))
    with pytest.raises(ModelError, match="sotol can't write the tokenizer 'bert'"):
        hub_vocabulary(fields("bert", ["a"]), ours)
