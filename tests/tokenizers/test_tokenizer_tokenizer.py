"""The Tokenizer: special tokens in text, bos and eos, decoding, lone surrogates, and time linear in the text."""

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sotol.tokenizers
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.provenance import Marked, joined, mask_of, trusted
from sotol.tokenizers.special import LongestMatcher
from sotol.tokenizers.words import CACHE_WORDS

SEARCH = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_public_names() -> None:
    assert set(sotol.tokenizers.__all__) >= {"Tokenizer", "StreamDecoder"}


def test_control_tokens_in_text_are_text_unless_asked_for(trained: Callable[[str], Any]) -> None:
    tokenizer = trained("smollm")[0]
    end, think = tokenizer.id_of("<|im_end|>"), tokenizer.id_of("<think>")
    text = "a<|im_end|><think>b"
    plain, parsed = tokenizer.encode(text), tokenizer.encode(text, special=True)
    assert end not in plain
    assert parsed.count(end) == 1
    assert think in set(plain) & set(parsed)  # user-defined tokens are part of the text in any case
    assert tokenizer.decode(plain) == tokenizer.decode(parsed, special=True) == text
    assert tokenizer.decode(parsed) == "a<think>b"
    assert tokenizer.token_bytes(end) == b""
    assert tokenizer.token_bytes(end, special=True) == b"<|im_end|>"


BITS = st.sampled_from(["<|im_end|>", "<|im_", "end|>", "<think>", "<eos>", "<", "|", "x", "  \t", "é"])


@pytest.mark.parametrize("pre", ["smollm", "qwen2"])
def test_a_users_text_is_encoded_as_plain_text(pre: str, trained: Callable[[str], Any]) -> None:
    tokenizer = trained(pre)[0]

    @SEARCH
    @given(st.lists(BITS, max_size=12).map("".join))
    def check(text: str) -> None:
        assert tokenizer.encode(Marked(text), special=True) == tokenizer.encode(text)
        assert tokenizer.encode(trusted(text), special=True) == tokenizer.encode(text, special=True)

    check()


def test_a_control_token_is_trusted_to_the_last_character(trained: Callable[[str], Any]) -> None:
    """The same as a search at each position for the longest token that is allowed there."""
    tokenizer = trained("smollm")[0]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>", "<bos>", "<eos>"]
    user = ["<think>", "</think>", "  \t"]

    def expected(text: str) -> list[int]:
        ids: list[int] = []
        start = at = 0
        mask = mask_of(text)
        while at < len(text):
            fitting = [
                t for t in user + control if text.startswith(t, at) and (t in user or all(mask[at : at + len(t)]))
            ]
            if fitting:
                token = max(fitting, key=len)
                ids += [*tokenizer.encode(str.__str__(text[start:at])), tokenizer.id_of(token)]
                start = at = at + len(token)
            else:
                at += 1
        return [*ids, *tokenizer.encode(str.__str__(text[start:]))]

    @SEARCH
    @given(st.lists(st.tuples(BITS, st.booleans()), max_size=12))
    def check(pieces: list[tuple[str, bool]]) -> None:
        text = joined([trusted(piece) if ours else piece for piece, ours in pieces])
        assert tokenizer.encode(text, special=True) == expected(text)

    check()


def test_overlapping_control_tokens() -> None:
    tokens = ["a", "b", "<", ">", "<a>", "><b", "b<<", "<a><"]
    types = [1, 1, 1, 1, 3, 3, 3, 4]
    values = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": types, "merges": ["a a"]}
    tokenizer = Tokenizer.from_metadata({f"tokenizer.ggml.{name}": value for name, value in values.items()})
    text = "<a>b<<a>"
    assert tokenizer.encode(text, special=True) == [4, 6, 0, 3]
    assert tokenizer.encode(Marked(text), special=True) == [2, 0, 3, 1, 2, 2, 0, 3]
    assert tokenizer.encode(trusted("<a>b<") + "<a>", special=True) == [4, 1, 2, 2, 0, 3]
    assert tokenizer.encode(trusted("<a>") + "<a>", special=True) == [7, 0, 3]  # 7 is user-defined: it may be untrusted


def test_bos_and_eos_as_the_metadata_says(make_metadata: Callable[..., dict[str, object]]) -> None:
    tokens = ["a", "<bos>", "<eos>"]

    def ids(pre: str, **fields: object) -> list[int]:
        all_fields = make_metadata("gpt2", tokens, pre=pre, merges=["a a"], bos_token_id=1, eos_token_id=2, **fields)
        return Tokenizer.from_metadata(all_fields).encode("a")

    assert ids("gpt-2") == [0]
    assert ids("llama-bpe") == [1, 0]
    assert ids("llama-bpe", add_bos_token=False) == [0]
    assert ids("gpt-2", add_bos_token=True, add_eos_token=True) == [1, 0, 2]


def test_ids_and_texts(trained: Callable[[str], Any]) -> None:
    tokenizer = trained("gpt-2")[0]
    assert all(tokenizer.id_of(tokenizer.token_text(i)) == i for i in range(len(tokenizer)))
    assert tokenizer.id_of("no such token") is None
    for wrong in (-1, len(tokenizer)):
        for call in (tokenizer.token_text, tokenizer.token_bytes, lambda i: tokenizer.decode([i])):
            with pytest.raises(ValueError, match=rf"token id {wrong} is not in the vocabulary"):
                call(wrong)


def test_what_is_not_utf8_is_replaced(trained: Callable[[str], Any]) -> None:
    tokenizer = trained("gpt-2")[0]
    half = tokenizer.encode("é")
    assert tokenizer.decode([tokenizer.id_of("Ã"), *tokenizer.encode("x")]) == "\ufffdx"
    assert tokenizer.decode(half) == "é"
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


@SEARCH
@given(st.lists(st.text("ab<|>", min_size=1, max_size=6), max_size=12, unique=True), st.text("ab<|>", max_size=40))
def test_special_tokens_leftmost_longest(texts: list[str], text: str) -> None:
    found, at = [], 0
    while at < len(text):
        here = max((t for t in texts if text.startswith(t, at)), key=len, default="")
        found += [here] if here else []
        at += len(here) or 1
    pieces = LongestMatcher(texts).split(text)
    assert pieces[1::2] == found
    assert "".join(pieces) == text


def test_special_tokens_that_are_long_and_alike() -> None:
    longest = LongestMatcher(["a" * n for n in range(1, 3000)] + ["a" * 3000 + "b"])
    start = time.process_time()
    assert longest.split("a" * 5 + "b" + "a" * 7000 + "b") == [
        "", "a" * 5, "b", "a" * 2999, "", "a" * 2999, "", "a" * 1002, "b"
    ]  # fmt: skip
    assert time.process_time() - start < 1


def test_the_cache_is_bounded(trained: Callable[[str], Any]) -> None:
    tokenizer = trained("gpt-2")[0]
    text = " ".join(map(str, range(CACHE_WORDS + 1000)))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer._encode_plain.__self__._cache) <= CACHE_WORDS


@pytest.fixture(scope="module")
def hard_texts() -> dict[str, Callable[[int], str]]:
    """Texts of about n bytes without word boundaries, the worst case for encoding."""
    draw = random.Random(7)
    return {
        "one letter": lambda n: "a" * n,
        "spaces": lambda n: " " * n + "x",
        "runs of spaces": lambda n: ("x" + " " * 999) * (n // 1000),
        "newlines": lambda n: " \n" * (n // 2),
        "random letters": lambda n: "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=n)),
        "capitals": lambda n: "ABCDEFGH" * (n // 8),
        "emoji": lambda n: "".join(draw.choices("😀😁🎉🇩🇪", k=n // 4)),
        "half special tokens": lambda n: "<|im_end|<|im_" * (n // 14),
        "digits": lambda n: "7" * n,
    }


@pytest.mark.parametrize("kind", ["smollm", "llama-bpe", "gpt-4o", "deepseek-llm", "deepseek-v3", "spaced"])
def test_time_is_linear_on_hard_texts(
    kind: str, trained: Callable[[str], Any], spaced: Any, hard_texts: dict[str, Callable[[int], str]]
) -> None:
    tokenizer = (spaced if kind == "spaced" else trained(kind))[0]
    for name, make in hard_texts.items():
        text = make(60_000)
        start = time.process_time()
        ids = tokenizer.encode(text, special=True, add_special=False)
        spent = time.process_time() - start
        assert spent < 3, f"{name}: {spent:.1f} s; it takes 0.2 s, and a quadratic method far more than 3"
        assert tokenizer.decode(ids, special=True) == text
