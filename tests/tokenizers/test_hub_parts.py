"""Normalizers, pre-tokenizers and decoders of tokenizer.json, each judged by the library that defines them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotol.errors import FormatError, ModelError, SotolError
from sotol.tokenizers.hub import parts
from sotol.tokenizers.hub.decoders import read_decoder
from sotol.tokenizers.hub.normalizers import read_normalizer
from sotol.tokenizers.hub.parts import Part, Unsupported
from sotol.tokenizers.hub.splitters import BEHAVIORS, read_splitter
from tokenizers import Tokenizer as Judge
from tokenizers import models

PIECES = [
    " ", "  ", "\t", "\n", "\r\n", "a", "A", "word", "Word ", "'s", "12", "1", "½", "é", "e\u0301", "Σ", "ΑΣ", "İ", "ß",
    "漢字", "カ", "한국", "!", "?!", "_", ".", "-", "$", "▁",
    "\u00a0", "\u3000", "\u200d", "\ufeff", "\x00", "\x7f", "\x1c",
    "\x85", "\u2028", "\ufffd", "😀", "ﬁ", "①", "\ue000", "ǅ",
]  # fmt: skip
# Characters that Python's tables and the library's know alike.
CHARACTERS = st.characters(codec="utf-8", max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn"])
TEXTS = st.lists(st.sampled_from(PIECES) | CHARACTERS, max_size=12).map("".join)


def judge_of(**parts: object) -> Judge:
    return Judge.from_str(json.dumps(json.loads(Judge(models.BPE()).to_str()) | parts))


def part(value: object) -> Part:
    return Part.of(value, "x", "part")


NORMALIZERS: list[dict[str, Any]] = [
    *({"type": kind} for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel")),
    {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    {"type": "Replace", "pattern": {"Regex": "\\s{2,}"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": "^a|\\p{Lu}"}, "content": "\\1$0"},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]},
    {"type": "Sequence", "normalizers": []},
    *(
        {"type": "BertNormalizer", "clean_text": a, "handle_chinese_chars": b, "strip_accents": c, "lowercase": d}
        for a, b, c, d in ((True, True, None, True), (True, False, True, False), (False, True, None, False))
    ),
]


@pytest.mark.parametrize("value", NORMALIZERS, ids=lambda value: str(value["type"]))
@given(text=TEXTS)
def test_normalizers(value: dict[str, Any], text: str) -> None:
    ours = read_normalizer(part(value))
    normalizer = judge_of(normalizer=value).normalizer
    assert (text if ours is None else ours(text)) == normalizer.normalize_str(text)


SPLITTERS: list[dict[str, Any]] = [
    *({"type": kind} for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")),
    *({"type": "Punctuation", "behavior": behavior} for behavior in BEHAVIORS),
    *({"type": "Digits", "individual_digits": each} for each in (True, False)),
    {"type": "CharDelimiterSplit", "delimiter": "_"},
    *(
        {"type": "ByteLevel", "add_prefix_space": a, "trim_offsets": True, "use_regex": b}
        for a in (True, False)
        for b in (True, False)
    ),
    *(
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
        for scheme in ("always", "first", "never")
        for split in (True, False)
    ),
    *(
        {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
        for pattern in ({"String": " "}, {"Regex": "\\p{L}+|\\d"}, {"Regex": "(a)|(?i:wor)d|$"})
        for behavior in BEHAVIORS
        for invert in (True, False)
    ),
    {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": False},
            {
                "type": "Sequence",
                "pretokenizers": [{"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}],
            },
            {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True, "trim_offsets": True},
        ],
    },
]


@pytest.mark.parametrize("value", SPLITTERS, ids=lambda value: "-".join(map(str, value.values()))[:60])
@settings(max_examples=60)
@given(text=TEXTS)
def test_splitters(value: dict[str, Any], text: str) -> None:
    ours = read_splitter(part(value))
    assert ours is not None
    words = [word for word, _ in judge_of(pre_tokenizer=value).pre_tokenizer.pre_tokenize_str(text)]
    assert (ours([text], True) if text else []) == words


TOKENS = st.lists(
    st.sampled_from(["▁the", "▁", "a", "##b", "c", "Ġx", "Ã©", "x</w>", ".", "n't", "▁▁", "▁a▁b", "é"]), min_size=1
)
REPLACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
DECODERS: list[dict[str, Any]] = [
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Sequence", "decoders": [REPLACE, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    {
        "type": "Sequence",
        "decoders": [REPLACE, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}],
    },
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    {"type": "Fuse"},
    *({"type": "WordPiece", "prefix": "##", "cleanup": cleanup} for cleanup in (True, False)),
]


@pytest.mark.parametrize("value", DECODERS, ids=lambda value: str(value["type"]))
@given(tokens=TOKENS)
def test_decoders(value: dict[str, Any], tokens: list[str]) -> None:
    decoding = read_decoder(part(value))
    if value["type"] == "WordPiece" and tokens[0].startswith("##"):
        return  # the library keeps the ## of a token that begins a text; a sequence's middle may begin so, too
    data = b"".join(map(decoding.bytes_of, tokens))
    data = data.removeprefix(b" ") if decoding.drops_space else data
    assert data.decode(errors="replace") == judge_of(decoder=value).decoder.decode(tokens)


# ---- what sotol lacks, and what is wrong


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (read_normalizer, {"type": "Nmt"}, "part Nmt"),
        (read_normalizer, {"type": "Sequence", "normalizers": [{"type": "Nmt"}]}, r"normalizers\[0\] Nmt"),
        (read_splitter, {"type": "UnicodeScripts"}, "part UnicodeScripts"),
        (read_splitter, {"type": "Split", "pattern": {"Regex": "(?R)?a"}}, "part.pattern with "),
        (read_splitter, {"type": "Split", "pattern": {"Regex": "\\h+"}}, "part.pattern with "),
        (read_splitter, {"type": "Metaspace", "prepend_scheme": "odd"}, "part.prepend_scheme 'odd'"),
        (read_splitter, {"type": "Punctuation", "behavior": "Odd"}, "part.behavior 'Odd'"),
        (read_decoder, {"type": "CTC"}, "part CTC"),
        (read_decoder, {"type": "Strip", "content": " ", "start": 1, "stop": 0}, "part Strip before Fuse"),
        (read_decoder, {"type": "Sequence", "decoders": [REPLACE, {"type": "ByteLevel"}]}, "ByteLevel with other"),
        (read_decoder, {"type": "Replace", "pattern": {"Regex": "a"}, "content": ""}, "Replace of an expression"),
    ],
)  # fmt: skip
def test_what_is_not_supported(read: Any, value: object, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        read(part(value))


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (read_normalizer, {}, r"x: part\.type is None, not text"),
        (read_normalizer, {"type": "Prepend", "prepend": 3}, r"x: part\.prepend is 3, not text"),
        (read_normalizer, {"type": "Sequence", "normalizers": 1}, r"x: part\.normalizers is 1, not a list"),
        (read_normalizer, {"type": "Sequence", "normalizers": [1]}, r"x: part\.normalizers\[0\] is 1, not an object"),
        (read_normalizer, {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 65}, "more than 64 parts"),
        (read_normalizer, {"type": "Replace", "pattern": " ", "content": ""}, r"part\.pattern is ' ', not an object"),
        (read_normalizer, {"type": "Replace", "pattern": {"String": ""}, "content": ""}, r"pattern\.String is ''"),
        (read_splitter, {"type": "Split", "pattern": {"Regex": "x" * 70_000}}, "has 70000 characters"),
        (read_splitter, {"type": "Split", "pattern": {"Regex": "((a{999}){999})"}}, "repeats its parts 10000 times"),
        (read_splitter, {"type": "Split", "pattern": {"Regex": "a{9999999}"}}, "repeats its parts 10000 times"),
        (read_splitter, {"type": "Metaspace", "replacement": "ab"}, "not one character"),
        (read_splitter, {"type": "CharDelimiterSplit", "delimiter": ""}, "not one character"),
        (read_splitter, {"type": "ByteLevel", "use_regex": "yes"}, "not true or false"),
    ],
)
def test_what_is_wrong(read: Any, value: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(part(value))


DOUBLED = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    ("read", "key", "item", "most"),
    [
        (read_normalizer, "normalizers", DOUBLED, 6),
        (read_normalizer, "normalizers", {"type": "ByteLevel"}, 3),
        (read_normalizer, "normalizers", {"type": "Prepend", "prepend": "x" * 4000}, 0),
        (read_normalizer, "normalizers", {"type": "Replace", "pattern": {"Regex": "a"}, "content": "x" * 64}, 0),
        (read_splitter, "pretokenizers", {"type": "ByteLevel"}, 3),
        (read_decoder, "decoders", DOUBLED, 6),
    ],
)
def test_texts_do_not_grow_without_bound(read: Any, key: str, item: object, most: int) -> None:
    read(part({"type": "Sequence", key: [item] * most}))
    with pytest.raises(Unsupported, match="which can make a text more than 64 times as long"):
        read(part({"type": "Sequence", key: [item] * (most + 1)}))


def test_sequences_in_sequences_end() -> None:
    value: dict[str, Any] = {"type": "NFC"}
    for _ in range(20):
        value = {"type": "Sequence", "normalizers": [value]}
    with pytest.raises(FormatError, match="nested too deeply"):
        read_normalizer(part(value))


@pytest.mark.parametrize("expression", ["(", "[", "a{2,1}", "(?P<x>", "\\p{Nonsense}"])
def test_an_expression_that_is_none(expression: str) -> None:
    with pytest.raises(ModelError, match=r"x: part\.pattern can't be compiled"):
        read_splitter(part({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}))


def test_an_expression_that_takes_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SECONDS", 0.1)
    split = read_splitter(part({"type": "Split", "pattern": {"Regex": "(?:a|aa)+[bc]"}, "behavior": "Isolated"}))
    assert split is not None
    with pytest.raises(SotolError, match="a pattern of the tokenizer takes too long for a text of 60 characters"):
        split(["a" * 60], True)
