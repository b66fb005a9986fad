"""Fuzzes what lies beside a folder's weights: config.json, generation_config.json, templates, tokenizer_config.json.

A folder gives a Checkpoint, and that a program whose weights can be read, or one SotolError that names the folder.
Run `python -m tests.fuzz.fuzz_folder --seconds 60 --seed 1`.
"""

import json
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.folders import NAMED, tiny_folder
from tests.support.fuzzing import Bounds, Broken, Link, files_in, run, sentence
from tests.support.mutating import mutated_bytes, spoilt

from sotol.errors import SotolError
from sotol.formats import Checkpoint, read_model
from sotol.models import trace_model

BOUNDS = Bounds(memory=256 << 20, allocated=24 << 20)
JINJA, OLD_TEMPLATE = "chat_template.jinja", "chat_template.json"
MANY = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
BESIDE: dict[str, dict[str, Any]] = {
    "generation_config.json": {"eos_token_id": [1, 2], "temperature": 0.6, "top_k": 20, "do_sample": True},
    "tokenizer_config.json": {
        "bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": MANY, "added_tokens_decoder": {},
    },
    "special_tokens_map.json": {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"},
    OLD_TEMPLATE: {"chat_template": "{{ messages }}"},
    "quantize_config.json": {"bits": 4, "group_size": 128},
    "hf_quant_config.json": {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}},
}  # fmt: skip


@cache
def whole(folder: Path, architecture: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a small model, and its config.json."""
    work = tiny_folder(folder / "seed", architecture)
    files = {path.name: path.read_bytes() for path in work.iterdir()}
    shutil.rmtree(work)
    return files, json.loads(files["config.json"])


def case(rng: random.Random, folder: Path) -> bool:
    """A small model of any architecture with something wrong in its files."""
    there, config = whole(folder, rng.choice(NAMED))
    files: dict[str, bytes | Link] = {**there}
    if rng.random() < 0.3:
        config = {"model_type": "many", "text_config": config, "eos_token_id": 2}
    wrong = rng.random() < 0.7
    files["config.json"] = spoilt(config, rng) if wrong else json.dumps(config).encode()
    if not wrong or rng.random() < 0.1:
        name = rng.choice([*BESIDE, JINJA])
        files[name] = mutated_bytes("{{ é }}".encode(), rng) if name == JINJA else spoilt(BESIDE[name], rng)
    work = folder / "model"
    files_in(work).put(files)
    try:
        use(read_model(work), rng)
    except SotolError as error:
        return sentence(error, str(work))
    return True


def use(checkpoint: Checkpoint, rng: random.Random) -> None:
    """A program of it, a weight of which can be read."""
    weights = list(trace_model(checkpoint, context=16).weights())
    weight = rng.choice(weights)
    if not np.prod(weight.shape) == weight.decode().size:
        raise Broken(f"{weight.name} has other numbers than its shape says")


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_folder", case, bounds=BOUNDS))
