"""Fuzzes what `sotol quantize` is told of encodings: mixes and encodings by name, and patterns of weights' names.

Any texts give each weight an encoding whose blocks fit its rows, or one ValueError of a sentence. A pattern is matched
in bounded time. Run `python -m tests.fuzz.fuzz_mixes --seconds 60 --seed 1`.
"""

import random
from pathlib import Path

import numpy as np
from tests.support.fuzzing import Bounds, Broken, run, sentence

from sotol.cli.quantize import _parse
from sotol.formats import Weight
from sotol.models.binding.metadata import Metadata
from sotol.quant import ENCODINGS
from sotol.tools.mix_names import encoding_name, name_of_mix
from sotol.tools.mixes import MIXES, facts_of, plan

BOUNDS = Bounds(seconds=0.5, allocated=3 << 20)  # fnmatch keeps the last 32,768 patterns
KINDS = ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm",
         "ffn_gate_inp", "ssm_conv1d")  # fmt: skip
OUTER = ("token_embd.weight", "output.weight", "output_norm.weight", "a\nb", "")
WIDTHS = (32, 64, 100, 256, 1, 288)
PIECES = ("*", "*", "?", "[", "]", "!", "[!a]", "[a-", "blk", ".", "0", "1", "ffn_down", "weight", "=", "Q4_K", "\\",
          "(", "é", "\x00", "\n", " ", "a" * 300, "*" * 60)  # fmt: skip
NUMBERS: tuple[object, ...] = (0, 1, 2, 4, 8, 80, -1, 1 << 63, True, 0.5, "x", [], [4, 2], [0], ["a"], None)
KEYS = ("block_count", "attention.head_count", "attention.head_count_kv", "expert_count")


def name(rng: random.Random, known: list[str]) -> str:
    """A name that is known, in any case, or changed."""
    text = rng.choice(known)
    text = rng.choice([text, text.upper(), text.lower()])
    if rng.random() < 0.3:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(PIECES) + text[at + rng.randrange(3) :]
    return text


def weights(rng: random.Random) -> list[Weight]:
    """Some weights of all kinds and widths; names may come twice, as in no file."""
    names = [f"blk.{rng.choice([0, 1, 7, 10**12])}.{rng.choice(KINDS)}.weight" for _ in range(rng.randrange(8))]
    made = []
    for each in (*names, rng.choice(OUTER)):
        shape = (*rng.choice([(), (2,), (2, 2), (1,)]), rng.choice(WIDTHS))
        encoding = ENCODINGS[rng.choice(["F32", "F16", "BF16"])]
        size = int(np.prod(shape)) * encoding.size
        made.append(Weight.from_bytes(each, encoding, shape, np.zeros(size, np.uint8)))
    return made


def case(rng: random.Random, folder: Path) -> bool:
    """One model's weights, and what somebody wants them to be."""
    del folder
    given = weights(rng)
    data = {f"llama.{key}": rng.choice(NUMBERS) for key in KEYS if rng.random() < 0.7}
    facts = facts_of(Metadata(data, "llama"), {weight.name: weight for weight in given}, importance=rng.random() < 0.5)
    pattern = "".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 12)))
    if given and rng.random() < 0.5:
        pattern = rng.choice(given).name.replace("0", "*").removesuffix(rng.choice(["", ".weight"]))
    mixed = rng.random() < 0.6
    try:
        patterns = [
            (names, encoding_name(wanted, list(MIXES)))
            for names, wanted in [_parse(f"{pattern}={name(rng, list(ENCODINGS))}")]
            if rng.random() < 0.6
        ]
        chosen = plan(
            given, facts, mix=name_of_mix(name(rng, list(MIXES)), list(MIXES)) if mixed else None,
            encoding=None if mixed else encoding_name(name(rng, list(ENCODINGS)), list(MIXES)), patterns=patterns,
        )  # fmt: skip
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        return sentence(error)
    for weight in given:
        if weight.shape[-1] % ENCODINGS[chosen[weight.name]].values and len({w.name for w in given}) == len(given):
            raise Broken(f"{weight.name} of {weight.shape} is to be {chosen[weight.name]}")
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_mixes", case, bounds=BOUNDS))
