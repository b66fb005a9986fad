"""Real vocabularies of many models: llama.cpp's files with expected ids, and `tokenizers` objects built from them.

`SOTOL_PARITY` names a folder with `vocabularies/`: llama.cpp's files `models/ggml-vocab-*.gguf`, `.inp` and `.out`. The
expected ids in `.out` are those of `transformers`, without bos and with control tokens as plain text.
"""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotol.formats.gguf import read_gguf
from sotol.tokenizers import StreamDecoder, Tokenizer
from tokenizers import AddedToken, models, normalizers
from tokenizers import Tokenizer as Judge

FOLDER = Path(os.environ.get("SOTOL_PARITY", "")) / "vocabularies"
FILES = sorted(path for path in FOLDER.glob("*.gguf") if path.with_name(path.name + ".inp").exists())
UNSUPPORTED = {"bert"}  # `tokenizer.ggml.model` of files that sotol does not read
SEPARATOR = "\n__ggml_vocab_test__\n"

PRETOKENIZERS = json.loads((Path(__file__).parents[1] / "tokenizers" / "pretokenizers.json").read_text())
# The pre-tokenizer of each vocabulary that a `tokenizers` object is built for; None: Gemma 4, which has none.
JUDGED = {
    "llama-bpe": "llama-bpe",
    "gpt-2": "gpt-2",
    "qwen2": "qwen2",
    "qwen35": "qwen35",
    "deepseek-llm": "deepseek-llm",
    "deepseek-coder": "deepseek-coder",
    "starcoder": "smollm",
    "falcon": "falcon",
    "gemma-4": None,
}

pytestmark = pytest.mark.skipif(
    not FILES, reason="SOTOL_PARITY names no folder with vocabularies/*.gguf from llama.cpp's models/ folder"
)

PIECES = [
    " ",
    "  ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    "'s",
    "'LL",
    "12345",
    "½",
    "word",
    "Word",
    "WORD",
    "é",
    "e\u0301",
    "漢字",
]
PIECES += ["カ", "\u30fb", "한국", "!?", "_", "//", "😀", "\u200d", "\x00", "don't", " def f(x):\n    return", "1.5e-3"]
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\u0295▁")
TEXTS = st.lists(st.sampled_from(PIECES) | CHARACTERS, max_size=30).map("".join)
SEARCH = settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@cache
def load(path: Path) -> Tokenizer:
    if read_gguf(path).metadata["tokenizer.ggml.model"] in UNSUPPORTED:
        pytest.skip("sotol does not read this kind of vocabulary")
    return Tokenizer.from_gguf(path)


def build_judge(path: Path, pre: str | None) -> Judge:
    """A `tokenizers` object with that file's tokens and merges, and the published pre-tokenizer."""
    fields: Any = read_gguf(path).metadata
    tokens, merges = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.merges"]
    vocabulary = {text: i for i, text in enumerate(tokens)}
    pairs = [tuple(pair.split(" ")) for pair in merges]
    model: dict[str, Any] = {"ignore_merges": pre == "llama-bpe"}
    if pre is None:
        model = {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    judge = Judge(models.BPE(vocabulary, pairs, **model))
    if pre is None:
        judge.normalizer = normalizers.Replace(" ", "▁")
    else:
        judge = Judge.from_str(json.dumps(json.loads(judge.to_str()) | {"pre_tokenizer": PRETOKENIZERS[pre]}))
    user = [text for text, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True) if kind == 4]
    judge.add_tokens([AddedToken(text, normalized=False) for text in user])
    return judge


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_expected_ids(path: Path) -> None:
    tokenizer = load(path)
    texts = path.with_name(path.name + ".inp").read_bytes().decode().split(SEPARATOR)
    lines = path.with_name(path.name + ".out").read_text().split("\n")
    assert len(texts) > 40
    for text, line in zip(texts, lines, strict=False):
        ids = tokenizer.encode(text, add_special=False)
        assert ids == [int(number) for number in line.split()], text
        assert tokenizer.decode(ids) == text
        stream = StreamDecoder(tokenizer)
        assert "".join([*map(stream.push, ids), stream.finish()]) == text


@pytest.mark.parametrize("name", JUDGED)
def test_equals_tokenizers_on_any_text(name: str) -> None:
    path = FOLDER / f"ggml-vocab-{name}.gguf"
    tokenizer, judge = load(path), build_judge(path, JUDGED[name])
    texts = [
        text for file in FILES for text in file.with_name(file.name + ".inp").read_bytes().decode().split(SEPARATOR)
    ]
    for text in texts:
        assert tokenizer.encode(text, add_special=False) == judge.encode(text, add_special_tokens=False).ids

    @SEARCH
    @given(TEXTS)
    def check(text: str) -> None:
        assert tokenizer.encode(text, add_special=False) == judge.encode(text, add_special_tokens=False).ids

    check()


HARD: dict[str, Callable[[], str]] = {
    "one letter": lambda: "a" * 1_000_000,
    "spaces": lambda: " " * 1_000_000,
    "emoji": lambda: "😀🎉🇩🇪" * 62_500,
    "letters": lambda: "".join(chr(97 + i * i * 7919 % 26) for i in range(1_000_000)),
}


@pytest.mark.parametrize("name", ["llama-bpe", "llama-spm", "gemma-4"])
def test_a_megabyte_without_words_takes_seconds(name: str) -> None:
    tokenizer = load(FOLDER / f"ggml-vocab-{name}.gguf")
    for make in HARD.values():
        text = make()
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text
