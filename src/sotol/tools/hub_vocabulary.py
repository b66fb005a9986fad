"""The `tokenizer.ggml.*` fields of a GGUF file as a tokenizer.json, and what tokenizer_config.json says beside it.

Byte-level vocabularies become what GPT-2's is in that format, SentencePiece's what Llama 2's is: BPE whose merges are
made of the scores. Whether the result gives the same ids is `same_tokenizers.py`'s question.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sotol.errors import ModelError
from sotol.tokenizers.pretokenize import DEEPSEEK_LLM, KANA, PRETOKENIZERS, SPACES, TRAILING_SPACES
from sotol.tokenizers.tokenizer import Tokenizer
from sotol.tokenizers.vocabulary import BYTE_TEXTS, TokenType, Vocabulary, read_vocabulary

__all__ = ["hub_vocabulary"]

SPACE = "▁"
PADDING = re.compile(r"\[PAD\d+\]")  # what converters call ids beyond the vocabulary
ESCAPED = re.compile(r"\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})")  # Oniguruma knows the first alone
NOT_UTF8 = re.compile("[\ud800-\udfff]")  # as `Cursor.texts` keeps such bytes
# Passes of rows whose own expressions are for `regex` alone: as the models' own files have them.
MARKS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
PASSES: Mapping[str, Sequence[str]] = {
    "deepseek-llm": tuple(r"\s+$" if one == TRAILING_SPACES else one for one in DEEPSEEK_LLM),
    "deepseek-v3": (
        r"\p{N}{1,3}",
        f"[{KANA}]+",
        rf"{MARKS}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{SPACES}",
    ),
}
HIDDEN = (TokenType.CONTROL, TokenType.UNKNOWN)
MERGED = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)  # what SentencePiece makes of characters


def hub_vocabulary(metadata: Mapping[str, object], tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer.json, and the part of tokenizer_config.json that is about tokens.

    tokenizer: that of the metadata. ModelError for a kind that has no such form.
    """
    vocabulary = read_vocabulary(metadata)
    if vocabulary.model not in KINDS:
        raise ModelError(f"sotol can't write the tokenizer {vocabulary.model!r:.60} as tokenizer.json")
    for i, text in enumerate(vocabulary.tokens):
        if not text.isascii() and NOT_UTF8.search(text):
            raise ModelError(f"token {i} has bytes that are not UTF-8: tokenizer.json can't have it")
    filling = {text for text in vocabulary.of_type(TokenType.UNUSED) if PADDING.fullmatch(text)}
    kept = {text: i for text, i in vocabulary.ids.items() if text not in filling}
    added = [
        *(_added(text, i, special=True) for text, i in vocabulary.of_type(*HIDDEN).items()),
        *(_added(text, i, special=False) for text, i in vocabulary.of_type(TokenType.USER_DEFINED).items()),
    ]
    parts = KINDS[vocabulary.model](vocabulary, kept, tokenizer.space_prefix)
    before = [tokenizer.bos] if tokenizer.adds_bos else []
    behind = [tokenizer.eos] if tokenizer.adds_eos else []
    texts = {i: vocabulary.tokens[i] for i in (*before, *behind) if i is not None}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda item: item["id"]),
        **parts,
        "post_processor": _around(
            [texts[i] for i in before if i in texts], [texts[i] for i in behind if i in texts], texts
        ),
    }
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": tokenizer.adds_bos,
        "add_eos_token": tokenizer.adds_eos,
        "clean_up_tokenization_spaces": False,
    }
    named = {"bos": vocabulary.bos, "eos": vocabulary.eos, "unk": vocabulary.unknown}
    padding = metadata.get("tokenizer.ggml.padding_token_id")
    if isinstance(padding, int) and 0 <= padding < len(vocabulary.tokens):
        named["pad"] = padding
    config |= {f"{name}_token": vocabulary.tokens[i] for name, i in named.items() if i is not None}
    return whole, config


def _added(text: str, token: int, *, special: bool) -> dict[str, Any]:
    return {
        "id": token, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": special,
    }  # fmt: skip


def _around(before: Sequence[str], behind: Sequence[str], texts: Mapping[int, str]) -> dict[str, Any] | None:
    """The tokens around a text, as a template."""
    if not texts:
        return None

    def piece(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def sequence(name: str, kind: int) -> list[dict[str, Any]]:
        text = {"Sequence": {"id": name, "type_id": kind}}
        return [*(piece(one, kind) for one in before), text, *(piece(one, kind) for one in behind)]

    table = {text: {"id": text, "ids": [token], "tokens": [text]} for token, text in texts.items()}
    first = sequence("A", 0)
    return {
        "type": "TemplateProcessing", "single": first, "pair": first + sequence("B", 1), "special_tokens": table,
    }  # fmt: skip


# ---- byte-level BPE


def _byte_level(vocabulary: Vocabulary, kept: Mapping[str, int], _prefix: bool) -> dict[str, Any]:
    row = PRETOKENIZERS[vocabulary.pre]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    name = next(name for name, other in PRETOKENIZERS.items() if other.expressions == row.expressions)
    splits = [_split(expression) for expression in PASSES.get(name, row.expressions)]
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "decoder": {**level, "use_regex": True},
        "model": _bpe(kept, [merge.split(" ") for merge in vocabulary.merges], ignore_merges=row.whole_words),
    }


def _split(expression: str) -> dict[str, Any]:
    spelled = ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)), expression)
    return {"type": "Split", "pattern": {"Regex": spelled}, "behavior": "Isolated", "invert": False}


def _bpe(kept: Mapping[str, int], merges: Sequence[Sequence[str]], **more: object) -> dict[str, Any]:
    return {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, **more,
        "vocab": dict(kept), "merges": merges,
    }  # fmt: skip


# ---- text with byte tokens


def _sentencepiece(vocabulary: Vocabulary, kept: Mapping[str, int], prefix: bool) -> dict[str, Any]:
    return _with_byte_tokens(vocabulary, kept, prefix, _merges_of_scores(vocabulary, kept))


def _gemma4(vocabulary: Vocabulary, kept: Mapping[str, int], _prefix: bool) -> dict[str, Any]:
    # No text begins with a space of its own, whatever a file says.
    return _with_byte_tokens(vocabulary, kept, False, [merge.split(" ") for merge in vocabulary.merges])


def _with_byte_tokens(
    vocabulary: Vocabulary, kept: Mapping[str, int], prefix: bool, merges: Sequence[Sequence[str]]
) -> dict[str, Any]:
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    before = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    shown = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    unknown = None if vocabulary.unknown is None else vocabulary.tokens[vocabulary.unknown]
    falls = set(BYTE_TEXTS) <= kept.keys()
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [shown, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": _bpe(kept, merges, unk_token=unknown, fuse_unk=True, byte_fallback=falls),
    }


def _merges_of_scores(vocabulary: Vocabulary, kept: Mapping[str, int]) -> list[tuple[str, str]]:
    """Merges that have the effect of scores: those that make the best token come first."""
    # Tokens with spaces are found in texts before spaces become ▁, so nothing is merged to them.
    able = {text: i for text, i in vocabulary.of_type(*MERGED).items() if text in kept and " " not in text}
    merges = list[tuple[str, str]]()
    for text in sorted(able, key=lambda text: (-vocabulary.scores[able[text]], able[text])):
        halves = ((text[:at], text[at:]) for at in range(1, len(text)))
        merges += [(left, right) for left, right in halves if left in able and right in able]
    return merges


KINDS = {"gpt2": _byte_level, "llama": _sentencepiece, "gemma4": _gemma4}
