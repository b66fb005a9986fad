"""Fuzzes tokenizer.json: small ones of every kind, with something wrong or odd, over random and adversarial texts; and
tokenizer.model and tekken.json now and then.

A file is refused with one SotolError of a sentence, or gives a tokenizer whose ids are its own and decode the same
piece by piece; plain text has no control tokens. Where the library `tokenizers` takes the file too and nothing is odd,
the ids are the library's. 64 kB of any repetition take no longer than any other 64 kB.
Run `python -m tests.fuzz.fuzz_hub --seconds 60 --seed 1`.
"""

import base64
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.fuzz.fuzz_tokenizer import hurry, text
from tests.support.fuzzing import Broken, run
from tests.support.mutating import mutated_bytes, spoilt
from tests.support.sentencepieces import model_file

from sotol.errors import SotolError
from sotol.tokenizers import StreamDecoder, Tokenizer
from sotol.tokenizers.bpe import CHARACTER_OF_BYTE
from sotol.tokenizers.vocabulary import BYTE_TEXTS
from tokenizers import Tokenizer as Judge

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


def tokenizer_json(rng: random.Random) -> dict[str, Any]:
    """A valid file of any kind."""
    kind = rng.choice(["BPE", "BPE", "Unigram", "WordPiece", "WordLevel"])
    tokens = ["<unk>", "<s>", "</s>", *rng.sample(LETTERS, rng.randrange(4, len(LETTERS)))]
    falls = rng.random() < 0.4
    tokens += [t for t in (*(BYTE_TEXTS if falls else ()), *CHARACTER_OF_BYTE) if t not in tokens]
    vocab: Any = {t: i for i, t in enumerate(tokens)}
    model: dict[str, Any] = {"type": kind, "vocab": vocab, "unk_token": "<unk>"}
    if kind == "BPE":
        pairs = [(a, b) for a in tokens for b in tokens if a + b in vocab]
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


def other_file(rng: random.Random, folder: Path) -> None:
    """A tokenizer.model or tekken.json with something wrong in it."""
    if rng.random() < 0.5:
        (folder / "tokenizer.model").write_bytes(mutated_bytes(model_file(), rng))
        return
    texts = [bytes([i]) for i in range(256)] + [b"th", b"the", b" the", b"ab"]
    vocab = [{"rank": i, "token_bytes": base64.b64encode(data).decode()} for i, data in enumerate(texts)]
    config = {"pattern": QWEN, "default_vocab_size": 270, "default_num_special_tokens": 10}
    given = {"config": config, "vocab": vocab, "special_tokens": [{"rank": i, "token_str": f"<{i}>"} for i in range(4)]}
    (folder / "tekken.json").write_bytes(spoilt(given, rng))


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


def write(rng: random.Random, folder: Path) -> tuple[bool, dict[str, Any] | None]:
    """The files of a case: whether all is right with them, and the tokenizer.json whose ids are the library's."""
    given, sound = tokenizer_json(rng), rng.random() < 0.3
    for name in ("tokenizer.json", "tokenizer.model", "tekken.json"):
        (folder / name).unlink(missing_ok=True)
    if not sound and rng.random() < 0.1:
        other_file(rng, folder)
    else:
        (folder / "tokenizer.json").write_bytes(json.dumps(given).encode() if sound else spoilt(given, rng))
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": rng.random() < 0.5}
    (folder / "tokenizer_config.json").write_bytes(json.dumps(config).encode() if sound else spoilt(config, rng))
    return sound, given if sound and plain(given) else None


def case(rng: random.Random, folder: Path) -> bool:
    """One file and a few texts."""
    sound, judged = write(rng, folder)
    try:
        tokenizer = Tokenizer.from_folder(folder)
    except SotolError as error:
        if "\n" in str(error) or len(str(error)) > 1200 or str(folder) not in str(error):
            raise Broken(f"not a message of one sentence that names the file: {str(error)[:300]!r}") from error
        if sound:
            raise Broken(f"a good tokenizer is refused: {error}") from error
        return False
    judge = None if judged is None else Judge.from_str(json.dumps(judged))
    for _ in range(4):
        sample = text(rng, 40)
        with suppress(SotolError):  # a pattern that takes too long
            check(tokenizer, sample)
        if judge is not None:
            compare(tokenizer, judge, known(sample))
    if sound and rng.random() < 0.1:
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
    raise SystemExit(run("tests.fuzz.fuzz_hub", case))
