"""The normalizer "Precompiled", judged by the library.

`charsmap.txt` is the table that sentencepiece makes of seven rules: A to a, CD to xy, a ligature to two letters, e and
its accent to one character, a number in a circle to a digit, a smiley to two marks, a space without width to nothing,
and aa to b.
"""

import base64
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.errors import FormatError
from sotol.tokenizers.hub.normalizers import read_normalizer
from sotol.tokenizers.hub.parts import Part
from tokenizers import Tokenizer as Judge
from tokenizers import models

TABLE = (Path(__file__).parent / "charsmap.txt").read_text().strip()
PIECES = [
    "A",
    "C",
    "D",
    "CD",
    "ﬁ",
    "e",
    "e\u0301",
    "①",
    "😀",
    "\u200b",
    "a",
    "aa",
    "x\u0301",
    "\r\n",
    "👩\u200d👩",
    "é",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8", max_codepoint=0x2FFF)).map("".join)


def normalizer(table: str) -> dict[str, str]:
    return {"type": "Precompiled", "precompiled_charsmap": table}


@given(TEXTS)
def test_texts(text: str) -> None:
    ours = read_normalizer(Part(normalizer(TABLE), "x", "part"))
    judge = Judge.from_str(json.dumps(json.loads(Judge(models.BPE()).to_str()) | {"normalizer": normalizer(TABLE)}))
    assert ours is not None
    assert ours(text) == judge.normalizer.normalize_str(text)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("?", "is not base64"),
        ("", "has no trie of the size that it says"),
        (base64.b64encode(bytes(8)).decode(), "has no trie of the size that it says"),
        (base64.b64encode(b"\xff\xff\xff\xffabcdefgh").decode(), "has no trie of the size that it says"),
    ],
)
def test_what_is_no_table(table: str, message: str) -> None:
    with pytest.raises(FormatError, match=rf"x: part\.precompiled_charsmap {message}"):
        read_normalizer(Part(normalizer(table), "x", "part"))


@given(st.randoms(use_true_random=False), TEXTS)
def test_a_damaged_table_gives_some_text(rng: random.Random, text: str) -> None:
    data = bytearray(base64.b64decode(TABLE))
    for _ in range(20):
        data[rng.randrange(4, len(data))] = rng.randrange(256)
    ours = read_normalizer(Part(normalizer(base64.b64encode(data).decode()), "x", "part"))
    assert ours is not None
    assert len(ours(text)) <= 1024 * len(text)
