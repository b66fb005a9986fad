"""Fuzzes tokenizer.json: small ones of every kind, with something wrong or odd, over random and adversarial texts.

A file is refused with one SotolError of a sentence, or gives a tokenizer whose ids are its own and decode the same
piece by piece; plain text has no control tokens. Where the library `tokenizers` takes the file too and nothing is odd,
the ids are the library's. 128 kB of any repetition take no longer than any other 128 kB.
Run `python -m tests.fuzz.fuzz_hub --seconds 60 --seed 1`.
"""

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.fuzz.fuzz_tokenizer import hurry, text
from tests.support.fuzzing import Bounds, Broken, files_in, run, sentence
from tests.support.mutating import spoilt

from sotol.errors import SotolError
from sotol.tokenizers import StreamDecoder, Tokenizer
from sotol.tokenizers.bpe import CHARACTER_OF_BYTE
from sotol.tokenizers.vocabulary import BYTE_TEXTS
from tokenizers import Tokenizer as Judge

BOUNDS = Bounds(memory=512 << 20)
EMPTY = 0.7  # of the files with something wrong, how many lack most single bytes: these take long to read
HURRIED = 0.01  # of the good tokenizers, how many have to encode a long text
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json")
LETTERS = [
    "a",
    "b",
    "ab",
    "t",
    "h",
    "e",
    "the",
    "é",
    "▁",
    "▁t",
    "▁the",
    "Ġ",
    "Ġt",
    "##b",
    "##ab",
    "1",
    "12",
    "日",
    "本",
    ".",
]
QWEN = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
NORMALIZERS: list[Any] = [
    None, {"type": "NFC"}, {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "ByteLevel"},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
     "lowercase": True},
]  # fmt: skip
SPLITTERS: list[Any] = [
    None, {"type": "BertPreTokenizer"}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"},
    {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "Digits", "individual_digits": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": False},
    {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithNext", "invert": False},
]  # fmt: skip
REPLACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
DECODERS: list[Any] = [
    None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Sequence", "decoders": [REPLACE, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    {"type": "WordPiece", "prefix": "##", "cleanup": True},
]  # fmt: skip


def some(rng: random.Random, parts: list[Any], key: str) -> Any:
    """One of these, or a sequence of them."""
    if rng.random() < 0.7:
        return rng.choice(parts)
    return {"type": "Sequence", key: [part for part in rng.sample(parts, 3) if part is not None]}


def tokenizer_json(rng: random.Random, *, whole: bool = True) -> dict[str, Any]:
    """A valid file of any kind; whole: with a token for each byte."""
    kind = rng.choice(["BPE", "BPE", "Unigram", "WordPiece", "WordLevel"])
    tokens = ["<unk>", "<s>", "</s>", *rng.sample(LETTERS, rng.randrange(4, len(LETTERS)))]
    falls = rng.random() < 0.4
    single = [*(BYTE_TEXTS if falls else ()), *CHARACTER_OF_BYTE]
    tokens += [t for t in single[: None if whole else 9] if t not in tokens]
    vocab: Any = {t: i for i, t in enumerate(tokens)}
    model: dict[str, Any] = {"type": kind, "vocab": vocab, "unk_token": "<unk>"}
    if kind == "BPE":
        pairs = [(t[:i], t[i:]) for t in tokens for i in range(1, len(t)) if t[:i] in vocab and t[i:] in vocab]
        rng.shuffle(pairs)
        merges: list[Any] = [f"{a} {b}" for a, b in pairs if " " not in a + b]
        if rng.random() < 0.5:
            merges = [list(pair) for pair in pairs]
        model |= {"merges": merges, "byte_fallback": falls, "fuse_unk": rng.random() < 0.5, "dropout": None}
        model |= {"ignore_merges": rng.random() < 0.3, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    elif kind == "Unigram":
        scored = [[t, -rng.random() * 9] for t in tokens]
        model = {"type": kind, "unk_id": 0, "vocab": scored, "byte_fallback": falls}
    elif kind == "WordPiece":
        model |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": rng.choice([5, 100])}
    ends = [{"id": i, "content": t, "special": True, "normalized": False} for i, t in enumerate(tokens[:3])]
    more = {"id": len(tokens), "content": rng.choice(["<x>", "the ", "  ", "Te"]), "special": rng.random() < 0.3}
    more |= {name: rng.random() < 0.3 for name in ("lstrip", "rstrip", "single_word", "normalized")}
    added = [
        item | {name: item.get(name, False) for name in ("lstrip", "rstrip", "single_word")} for item in (*ends, more)
    ]
    around = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
              {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}},
              {"Sequence": {"id": "B", "type_id": 0}}],
              "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": some(rng, NORMALIZERS, "normalizers"), "pre_tokenizer": some(rng, SPLITTERS, "pretokenizers"),
        "post_processor": rng.choice([None, around]), "decoder": rng.choice(DECODERS), "model": model,
    }  # fmt: skip


def check(tokenizer: Tokenizer, sample: str) -> None:
    """A text's ids, as what a template writes and as a user's; and what they stand for."""
    for special in (True, False):
        ids = tokenizer.encode(sample, special=special, add_special=False)
        if any(not 0 <= i < len(tokenizer) for i in ids):
            raise Broken(f"ids outside the vocabulary for {sample!r:.200}")
    if tokenizer.end_of_generation & {i for i in ids if tokenizer.token_text(i).startswith("<")}:
        raise Broken(f"{sample!r:.200} spells an end of a generation")
    decoder = StreamDecoder(tokenizer)
    if "".join(map(decoder.push, ids)) + decoder.finish() != tokenizer.decode(ids):
        raise Broken(f"decoding {ids[:50]} piece by piece differs")


def compare(tokenizer: Tokenizer, judge: Judge, sample: str) -> None:
    """The ids of a text without control tokens are the library's."""
    ids = judge.encode(sample, add_special_tokens=False).ids
    if tokenizer.encode(sample, special=True, add_special=False) != ids:
        raise Broken(f"{sample!r:.200} has other ids than in tokenizers: {ids[:50]}")


def files(rng: random.Random, given: dict[str, Any], *, sound: bool) -> dict[str, bytes]:
    """The files of a case: the tokenizer, and what lies beside it."""
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": rng.random() < 0.5}
    found = {"tokenizer_config.json": json.dumps(config).encode(), "tokenizer.json": json.dumps(given).encode()}
    if not sound and rng.random() < 0.8:
        found["tokenizer.json"] = spoilt(given, rng)
    elif not sound:
        added = {"3": {"content": "<x>", "special": True, "lstrip": False}}
        beside = config | {"eos_token_id": [1, 2], "added_tokens_decoder": added, "text_config": {"eos_token_id": 1}}
        found[rng.choice(BESIDE)] = spoilt(beside, rng)
    return found


def case(rng: random.Random, folder: Path) -> bool:
    """One file and a few texts."""
    sound = rng.random() < 0.2
    given = tokenizer_json(rng, whole=sound or rng.random() > EMPTY)
    work = folder / "model"
    files_in(work).put(files(rng, given, sound=sound))
    try:
        tokenizer = Tokenizer.from_folder(work)
    except SotolError as error:
        if sound:
            raise Broken(f"a good tokenizer is refused: {error}") from error
        return sentence(error, str(work))
    with suppress(SotolError):  # a pattern that takes too long
        check(tokenizer, text(rng, 40))
    if sound and plain(given):
        judge = Judge.from_str(json.dumps(given))
        for _ in range(3):
            compare(tokenizer, judge, known(text(rng, 40)))
    if sound and rng.random() < HURRIED:
        hurry(tokenizer, rng)
    return True


def plain(given: dict[str, Any]) -> bool:
    """Whether sotol promises the library's ids: see `hub/models.py` and `Tokenizer` for what differs on purpose."""
    more = given["added_tokens"][-1]
    strange = more["special"] or more["lstrip"] or more["rstrip"]
    empty = more["normalized"] and not more["content"].strip()  # the library panics if nothing is left of it
    moved = given["normalizer"] is not None and '"first"' in json.dumps(given["pre_tokenizer"])  # where a text begins
    return not strange and not empty and not moved and given["model"]["type"] != "Unigram"


def known(sample: str) -> str:
    """Without control tokens, and characters that Python's tables and the library's know differently."""
    return "".join(c for c in sample if ord(c) < 0x3000 and c not in "<>\ud800")


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_hub", case, bounds=BOUNDS))
