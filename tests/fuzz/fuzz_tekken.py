"""Fuzzes tekken.json, Mistral's file of a tokenizer.

A file gives a tokenizer whose ids are its own and decode to the text, or one SotolError that names the file.
Run `python -m tests.fuzz.fuzz_tekken --seconds 60 --seed 1`.
"""

import base64
import json
import random
from pathlib import Path
from typing import Any

from tests.fuzz.fuzz_hub import QWEN, check
from tests.support.fuzzing import Bounds, files_in, run, sentence
from tests.support.mutating import spoilt

from sotol.errors import SotolError
from sotol.tokenizers import Tokenizer

BOUNDS = Bounds(seconds=1.0, memory=256 << 20, allocated=12 << 20)
TEXTS = [*(bytes([i]) for i in range(256)), b"th", b"the", b" the", b"ab", "é".encode()]
VOCAB = [{"rank": i, "token_bytes": base64.b64encode(data).decode(), "token_str": None} for i, data in enumerate(TEXTS)]
LIST = json.dumps(VOCAB).encode()
CONFIG = {"pattern": QWEN, "default_vocab_size": 10 + len(VOCAB), "default_num_special_tokens": 10, "version": "v3"}
SPECIAL = [
    {"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(["<unk>", "<s>", "</s>", "[INST]"])
]
SAMPLES = ("the ab", "[INST] é\ud800 <s>", "", " the\n\n12345", "\x00日本")


def case(rng: random.Random, folder: Path) -> bool:
    """One file, most of which is right: what is wrong is mostly outside of its long list."""
    given: dict[str, Any] = {"config": CONFIG, "vocab": [0], "special_tokens": SPECIAL}
    if rng.random() < 0.5:
        data = spoilt(given | {"vocab": VOCAB[: rng.choice([0, 255, 256, len(VOCAB)])]}, rng)
    else:
        whole = spoilt(given, rng)
        data = whole.replace(b'"vocab": [0]', b'"vocab": ' + LIST, 1)
    work = folder / "model"
    files_in(work).put({"tekken.json": data})
    try:
        tokenizer = Tokenizer.from_folder(work)
        check(tokenizer, rng.choice(SAMPLES))
    except SotolError as error:
        return sentence(error, str(work))
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_tekken", case, bounds=BOUNDS))
