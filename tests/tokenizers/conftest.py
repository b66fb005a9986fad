"""Small vocabularies, each with a reference: the same in `tokenizers`, with published pre-tokenizers."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sotol.tokenizers import Tokenizer
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Judge

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>", "<bos>", "<eos>"]
USER = ["<think>", "</think>", "  \t"]
JUDGES: dict[str, Any] = json.loads((Path(__file__).parent / "pretokenizers.json").read_text())

CORPUS = [
    "The quick brown fox doesn't jump over 12345 lazy dogs; they've SAID so, he'll see. IT'S what We'RE about!",
    "def f(x: int) -> dict[str, list]:\n\treturn {k: v for k, v in x.items() if k != 'a' and v >= 0x1F}\r\n\r\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * 3.14159e-10; }  // ???!!!...\n\n\n    if (x)\n\n",
    "Ελληνικά γράμματα, Кириллица тоже, עברית, العربية، हिन्दी में लिखा है, ภาษาไทย, tiếng Việt, Ærøskøbing, ǅ ǈ",
    "日本語のテキスト、漢字とカタカナ。中文文本\uff0c没有空格\uff01한국어 텍스트 \uff11\uff12\uff13 四五 ٣٤٥ Ⅳ ½ ²",
    "emoji: 😀😁 👩‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️‍🔥 ☃ e\u0301a\u0300 n\u0303 \u200b\u200d \ufeff \u00a0 \u2003\u3000 x",
    "  leading,   many    spaces   and\ttabs\t\t and ends   \n   \n\t\n  x \r\n \r y\x0bz\x0c\x85\u2028\u2029 end   ",
    "<div class='a'><p>&nbsp;</p></div> http://example.org/a/b?c=d#e a_b-c.d@e.f $100.00 50% #tag `code` ~/x/y.z\\n",
    "\x00\x01\x02\x7f control \ufffd and private \ue000 \U0010ffff \U0001f9ff",
]


def metadata(model: str, tokens: list[str], **fields: object) -> dict[str, object]:
    """The `tokenizer.ggml.*` fields of a vocabulary; the type of a token follows from its text."""
    kinds = dict.fromkeys(CONTROL, 3) | dict.fromkeys(USER, 4) | {f"<0x{byte:02X}>": 6 for byte in range(256)}
    values = {"model": model, "tokens": tokens, "token_type": [kinds.get(token, 1) for token in tokens], **fields}
    return {f"tokenizer.ggml.{name}": value for name, value in values.items()}


def in_order(vocabulary: dict[str, int]) -> list[str]:
    return sorted(vocabulary, key=vocabulary.__getitem__)


def merges_of(judge: Judge) -> list[str]:
    return [" ".join(pair) for pair in json.loads(judge.to_str())["model"]["merges"]]


@cache
def byte_bpe(pre: str) -> tuple[Tokenizer, Judge]:
    """A byte-level BPE trained on CORPUS with that pre-tokenizer, for sotol and for `tokenizers`."""
    bare = Judge(models.BPE(ignore_merges=pre in ("llama-bpe", "tekken")))
    judge = Judge.from_str(json.dumps(json.loads(bare.to_str()) | {"pre_tokenizer": JUDGES[pre]}))
    judge.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=560, initial_alphabet=alphabet, show_progress=False)
    judge.train_from_iterator(CORPUS * 3, trainer)
    judge.add_tokens([AddedToken(text, normalized=False) for text in USER])
    judge.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    end = judge.token_to_id("<|endoftext|>")
    tokens, merges = in_order(judge.get_vocab()), merges_of(judge)
    fields = metadata("gpt2", tokens, pre=pre, merges=merges, eos_token_id=end, add_bos_token=False)
    return Tokenizer.from_metadata(fields), judge


@cache
def gemma4() -> tuple[Tokenizer, Judge]:
    """A small Gemma 4: BPE over lines with `▁` for spaces, tokens that cross words, byte fallback."""
    spaces = normalizers.Replace(" ", "▁")
    learner = Judge(models.BPE())
    learner.normalizer = spaces
    trainer = trainers.BpeTrainer(vocab_size=700, limit_alphabet=150, max_token_length=9, show_progress=False)
    learner.train_from_iterator("\n".join(CORPUS * 3).split("\n"), trainer)
    merges = merges_of(learner)
    tokens = ["<unk>", "<bos>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256)), *in_order(learner.get_vocab())]
    ids = {text: i for i, text in enumerate(tokens)}
    pairs = [(left, right) for left, right in (pair.split(" ") for pair in merges)]
    judge = Judge(models.BPE(ids, pairs, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    judge.normalizer = spaces
    judge.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    fields = metadata("gemma4", tokens, merges=merges, unknown_token_id=0, bos_token_id=1, eos_token_id=2)
    return Tokenizer.from_metadata(fields), judge


@pytest.fixture(scope="session")
def trained() -> Callable[[str], tuple[Tokenizer, Judge]]:
    """`byte_bpe`."""
    return byte_bpe


@pytest.fixture(scope="session")
def spaced() -> tuple[Tokenizer, Judge]:
    """`gemma4`."""
    return gemma4()


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Texts in many languages and scripts, emoji, code, white space and control characters."""
    return [*CORPUS, "".join(CORPUS), "\n".join(reversed(CORPUS))]


@pytest.fixture(scope="session")
def make_metadata() -> Callable[..., dict[str, object]]:
    """`metadata`."""
    return metadata
