"""Seconds that sotol and the `tokenizers` package take to turn 1 MB of mixed text into ids, on one thread, in turn.

    python -m bench.tokenizing MODEL ROUNDS

It prints a line of JSON: the seconds of each, and whether the ids were the same. The text is English, Python and other
scripts; it comes with Python itself, or is drawn, so it is the same on every machine that has the same Python.
"""

import argparse
import gzip
import inspect
import json
import os
import sys
import typing
from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path
from pydoc_data.topics import topics
from time import perf_counter
from typing import Any

from sotol.formats import read_gguf
from sotol.tokenizers import Tokenizer
from tokenizers import AddedToken, models, normalizers
from tokenizers import Tokenizer as Judge

__all__ = ["judge_for", "measure", "mixed_text"]

SIZE = 1_000_000  # bytes
MODULES = (argparse, inspect, typing, gzip)
# First letter and number of letters of alphabets: Greek, Cyrillic, Hebrew, Arabic, Hindi, Thai, Hiragana, Han, Hangul,
# emoji. Words of them are drawn.
SCRIPTS = (
    (0x3B1, 25), (0x430, 32), (0x5D0, 27), (0x628, 35), (0x915, 37), (0xE01, 46), (0x3042, 80), (0x4E00, 3000),
    (0xAC00, 5000), (0x1F600, 70),
)  # fmt: skip
USER_DEFINED = 4  # a token type of GGUF: found in a text before anything else
PRETOKENIZERS = Path(__file__).parents[1] / "tests" / "tokenizers" / "pretokenizers.json"


def mixed_text(size: int = SIZE) -> str:
    """Paragraphs in turn: English, Python source, words of other alphabets, some often. size: bytes of UTF-8."""
    sources = [
        cycle("".join(topics[name] for name in sorted(topics)).split("\n\n")),
        cycle("\n".join(inspect.getsource(module) for module in MODULES).split("\n\n")),
        _drawn(),
    ]
    pieces, length = list[bytes](), 0
    for source in cycle(sources):
        piece = (next(source) + "\n\n").encode()
        pieces.append(piece)
        length += len(piece)
        if length >= size:
            return b"".join(pieces)[:size].decode(errors="ignore")
    raise AssertionError


def _drawn() -> Iterator[str]:
    """Lines of words from each alphabet's 2000, by a linear congruential generator."""
    state = 1

    def draw(below: int) -> int:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % below

    lexicons = [
        ["".join(chr(first + draw(count)) for _ in range(1 + draw(8))) for _ in range(2000)] for first, count in SCRIPTS
    ]
    for words in cycle(lexicons):
        yield " ".join(words[draw(1 + draw(len(words)))] for _ in range(40)) + f" {draw(100_000)}."


def judge_for(metadata: Mapping[str, Any]) -> Judge:
    """A `tokenizers` object with the vocabulary of a GGUF file. ValueError for kinds that models here don't have."""
    kind, tokens = metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.tokens"]
    ids = {text: i for i, text in enumerate(tokens)}
    if kind == "gpt2":
        merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
        bare = json.loads(Judge(models.BPE(ids, merges)).to_str())
        known = json.loads(PRETOKENIZERS.read_text())
        judge = Judge.from_str(json.dumps(bare | {"pre_tokenizer": known[metadata["tokenizer.ggml.pre"]]}))
    elif kind == "llama":
        judge = Judge(models.BPE(ids, _merges(ids, metadata), byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        judge.normalizer = normalizers.Replace(" ", "▁")
    else:
        raise ValueError(f"no `tokenizers` object for a vocabulary of kind {kind!r:.50}")
    typed = zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
    judge.add_tokens([AddedToken(text, normalized=False) for text, number in typed if number == USER_DEFINED])
    return judge


def _merges(ids: Mapping[str, int], metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """SentencePiece's scores as merges in order: it joins the pair whose whole has the highest score."""
    scores = metadata["tokenizer.ggml.scores"]
    found = [
        (-float(scores[i]), i, text[:at], text[at:])
        for text, i in ids.items()
        for at in range(1, len(text))
        if text[:at] in ids and text[at:] in ids
    ]
    return [(left, right) for *_, left, right in sorted(found)]


def measure(model: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each round, and whether both had the same ids. Both remember words, so each round has new ones."""
    metadata = read_gguf(model).metadata
    text, kept = mixed_text(), judge_for(metadata).to_str()
    times, same = {"sotol": list[float](), "tokenizers": list[float]()}, True
    for _ in range(rounds):
        ours, judge = Tokenizer.from_metadata(metadata, str(model)), Judge.from_str(kept)
        begin = perf_counter()
        a = ours.encode(text, add_special=False)
        middle = perf_counter()
        b = judge.encode(text, add_special_tokens=False)
        times["tokenizers"].append(perf_counter() - middle)
        times["sotol"].append(middle - begin)
        same = same and list(a) == b.ids
    return {"times": times, "same": same}


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
