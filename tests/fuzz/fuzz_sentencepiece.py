"""Fuzzes tokenizer.model, SentencePiece's file of a tokenizer: a protocol buffer with wrong fields, lengths and texts.

A file gives a tokenizer whose ids are its own and decode the same piece by piece, or one SotolError that names it.
Run `python -m tests.fuzz.fuzz_sentencepiece --seconds 60 --seed 1`.
"""

import random
from pathlib import Path

from tests.fuzz.fuzz_hub import check
from tests.support.fuzzing import Bounds, files_in, run, sentence
from tests.support.mutating import spoilt
from tests.support.mutating_binary import Seed, mutated_binary
from tests.support.sentencepieces import PIECES, field, model_file

from sotol.errors import SotolError
from sotol.tokenizers import Tokenizer

BOUNDS = Bounds(seconds=1.0, memory=256 << 20, allocated=12 << 20)
SAMPLES = ("the ab", "<s> é\ud800 </s>", "", "  the  12", "\x00日本 ▁▁x")
NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 35, 127, 128, 1 << 31, (1 << 63) - 1, (1 << 64) - 1)
TEXTS: tuple[bytes, ...] = (b"", b"\xff", b"a" * 300, "▁".encode(), b"<0x41>", b"<s>", b"\x08\x01", b"\0")
ADDED = {str(i): {"content": f"<{i}>", "special": i % 2 == 0} for i in (0, 1, 2, 5, 6, 7, 20, 21, 22, len(PIECES))}
CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "added_tokens_decoder": ADDED}


def message(rng: random.Random) -> bytes:
    """Fields of any number and kind."""
    values = (rng.choice(NUMBERS), rng.random(), rng.choice(TEXTS))
    return b"".join(
        field(rng.choice([1, 2, 3, 4, 24, 35, 40, 41, 42, 1 << 28]), rng.choice(values))
        for _ in range(rng.randrange(4))
    )


def model(rng: random.Random) -> bytes:
    """A file of few pieces and of messages with anything in them."""
    pieces = rng.sample(PIECES, rng.choice([0, 1, 5, 20]))
    parts = [field(1, field(1, text) + field(2, score) + field(3, kind)) for text, score, kind in pieces]
    parts += [field(1, message(rng)) for _ in range(rng.randrange(3))]
    parts.append(field(2, field(3, rng.choice([2, 2, 2, 1, 3, 9])) + message(rng)))
    parts.append(field(3, field(3, 1) + field(4, rng.choice([0, 0, 1])) + message(rng)))
    rng.shuffle(parts)
    return b"".join(parts)


def case(rng: random.Random, folder: Path) -> bool:
    """One file; as a whole one is long, most have few pieces."""
    data = WHOLE.data if rng.random() < 0.2 else model(rng)
    if rng.random() < 0.6:
        data = mutated_binary(Seed(data or b"\0"), rng)
    work = folder / "model"
    files: dict[str, bytes] = {"tokenizer.model": data}
    if rng.random() < 0.3:
        files["tokenizer_config.json"] = spoilt(CONFIG, rng)
    files_in(work).put(files)
    try:
        tokenizer = Tokenizer.from_folder(work)
        check(tokenizer, rng.choice(SAMPLES))
    except SotolError as error:
        return sentence(error, str(work))
    return True


WHOLE = Seed(model_file())

if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_sentencepiece", case, bounds=BOUNDS))
