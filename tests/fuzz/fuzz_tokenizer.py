"""Fuzzes tokenizers: random vocabularies, whole or slightly broken, over random and adversarial texts.

A vocabulary is refused with one SotolError or gives ids; ids are its own, decode to the text again where it covers all
bytes, and decode the same piece by piece. Plain text never has a token that ends a generation, unless the metadata
names a word. 128 kB of any repetition take no longer than any other 128 kB.
Run `python -m tests.fuzz.fuzz_tokenizer --seconds 60 --seed 1`.
"""

import random
import re
import time
from pathlib import Path

from tests.support.fuzzing import Broken, run, sentence

from sotol.errors import SotolError
from sotol.tokenizers import StreamDecoder, Tokenizer
from sotol.tokenizers.bpe import CHARACTER_OF_BYTE
from sotol.tokenizers.pretokenize import PRETOKENIZERS
from sotol.tokenizers.vocabulary import BYTE_TEXTS

PIECES = (
    "a", "ab", "the ", " ", "  ", "\n", "\r\n", "\t", "1", "12345", "'s", "'S", "!", "?!", "\u00e9", "e\u0301",
    "\u00df", "\u65e5\u672c", "\U0001f600", "\U0001f469\u200d\U0001f467", "\u05e9", "\u0645", "\u200b", "\ufeff",
    "\x00", "\x7f", "\ufffd", "\u2581", "\u0120", "<0x41>", "<s>", "</s>", "<unk>", "<|im_end|>", "<|im",
    "\ud800", "\udfff", "\u3000", "\x85", "\u2028", "_", "/", "\\",
)  # fmt: skip
JUNK: tuple[object, ...] = (
    None,
    0,
    -1,
    1 << 40,
    0.5,
    float("nan"),
    True,
    "",
    "x",
    [],
    [1],
    ["a"],
    [["a"]],
    ["a b"],
    [" "],
    [""],
)
LONG = 1 << 17  # characters
SLOWEST = 3.0  # seconds for as many, where 0.1 are usual

Fields = dict[str, object]


def text(rng: random.Random, pieces: int) -> str:
    """Pieces that matter to tokenizers, and any characters."""
    return "".join(
        rng.choice(PIECES) if rng.random() < 0.8 else chr(rng.randrange(0x110000)) for _ in range(rng.randrange(pieces))
    )


def grow(rng: random.Random, alphabet: list[str], count: int) -> list[tuple[str, str]]:
    """Merges that can happen: each joins two symbols that exist; the results are new symbols, each made once."""
    symbols, made = list(alphabet), set(alphabet)
    merges = []
    common = alphabet if len(alphabet) < 20 else rng.sample(alphabet, 12)
    for _ in range(count):
        recent = symbols[-8:] if rng.random() < 0.5 else common
        left, right = rng.choice(recent), rng.choice(common)
        if len(left + right) <= 40 and left + right not in made:
            merges.append((left, right))
            symbols.append(left + right)
            made.add(left + right)
    return merges


def vocabulary(rng: random.Random) -> tuple[Fields, bool]:
    """The fields of a vocabulary, and whether all text comes back from it."""
    kind = rng.choice(["gpt2", "llama", "gemma4"])
    special = ["<unk>", "<s>", "</s>", "<|im_end|>"]
    if kind == "gpt2":
        alphabet, covering = list(CHARACTER_OF_BYTE), []
    else:
        alphabet, covering = sorted({c for piece in PIECES for c in piece if c >= " "} - {" "}), list(BYTE_TEXTS)
        alphabet = [c for c in alphabet if not "\ud800" <= c <= "\udfff"]
    merges = grow(rng, alphabet, rng.choice([1, 5, 60, 300]))
    user = rng.sample(["<think>", "    ", "\n\n"], rng.randrange(3))
    tokens = [*special, *covering, *user, *alphabet, *(left + right for left, right in merges)]
    tokens = list(dict.fromkeys(tokens))
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3, "<|im_end|>": 3} | dict.fromkeys(covering, 6) | dict.fromkeys(user, 4)
    complete = rng.random() < 0.8
    if not complete:
        tokens = [t for t in tokens if t in special or rng.random() < 0.7]
    fields: Fields = {
        "model": kind, "tokens": tokens, "token_type": [kinds.get(t, 1) for t in tokens],
        "merges": [f"{left} {right}" for left, right in merges], "unknown_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "add_bos_token": rng.random() < 0.5, "add_eos_token": rng.random() < 0.5,
        "scores": [-float(rng.randrange(50)) for _ in tokens],
        "pre": rng.choice(sorted(PRETOKENIZERS)), "add_space_prefix": rng.random() < 0.5,
    }  # fmt: skip
    # As in llama.cpp, a prefixed space comes again behind each user-defined token: such texts do not come back.
    prefixed = kind == "llama" and bool(user) and bool(fields["add_space_prefix"])
    return fields, complete and not prefixed


def damage(fields: Fields, rng: random.Random) -> None:
    """One field is something else, or one item of it; or what files often have: lists that are short, wrong types."""
    key = rng.choice(sorted(fields))
    value = fields[key]
    if not isinstance(value, list) or not value or rng.random() < 0.2:
        fields[key] = rng.choice(JUNK)
    elif rng.random() < 0.5:
        value[rng.randrange(len(value))] = rng.choice(JUNK)
    elif key == "token_type":
        fields[key] = [rng.choice((kind, rng.randrange(8))) for kind in value]
    elif key == "tokens":
        value[rng.randrange(len(value))] = rng.choice(value)
    else:
        del value[rng.randrange(len(value)) :]


def check(tokenizer: Tokenizer, sample: str, *, covers: bool, special: bool) -> None:
    """One text there and back, in one piece and token by token."""
    ids = tokenizer.encode(sample, special=special, add_special=False)
    if any(not 0 <= i < len(tokenizer) for i in ids):
        raise Broken(f"ids outside the vocabulary for {sample!r:.200}")
    ends = tokenizer.end_of_generation.intersection(ids)
    if not special and any(tokenizer.token_text(i).startswith("<") for i in ends):
        raise Broken(f"{sample!r:.200} spells an end of a generation: {ends}")
    if covers and not special:
        got, want = tokenizer.decode(ids), re.sub("[\ud800-\udfff]", "\ufffd", sample)
        if tokenizer.id_of(BYTE_TEXTS[0]) is not None:  # SentencePiece's kinds write a space as this, and can't tell
            got, want = got.replace("\u2581", " "), want.replace("\u2581", " ")
        if got != want:
            raise Broken(f"{sample!r:.300} comes back as {got!r:.300}")
    for shown in (False, True):
        decoder = StreamDecoder(tokenizer, special=shown)
        pieces = "".join([decoder.push(i) for i in ids]) + decoder.finish()
        if pieces != tokenizer.decode(ids, special=shown):
            raise Broken(f"decoding {ids[:50]} piece by piece differs")


def hurry(tokenizer: Tokenizer, rng: random.Random) -> None:
    """A long text of repetitions takes no longer than such a text may."""
    unit = text(rng, 6) or "a"
    sample = (unit * (LONG // len(unit) + 1))[:LONG]
    started = time.process_time()
    tokenizer.encode(sample, special=rng.random() < 0.5)
    if (taken := time.process_time() - started) > SLOWEST:
        raise Broken(f"{LONG} characters of {unit!r} take {taken:.1f} s")


def case(rng: random.Random, folder: Path) -> bool:
    """One vocabulary and a few texts."""
    del folder
    fields, complete = vocabulary(rng)
    broken = rng.random() < 0.4
    if broken:
        damage(fields, rng)
    try:
        tokenizer = Tokenizer.from_metadata({f"tokenizer.ggml.{k}": v for k, v in fields.items()}, "fuzzed")
    except SotolError as error:
        if not broken:
            raise Broken(f"a good vocabulary is refused: {error}") from error
        return sentence(error)
    for _ in range(2):
        check(tokenizer, text(rng, 60), covers=complete and not broken, special=rng.random() < 0.3)
    ids = [rng.randrange(len(tokenizer)) for _ in range(40)]
    decoder = StreamDecoder(tokenizer)
    if "".join(map(decoder.push, ids)) + decoder.finish() != tokenizer.decode(ids):
        raise Broken(f"decoding {ids} piece by piece differs")
    if rng.random() < 0.01:
        hurry(tokenizer, rng)
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_tokenizer", case))
