"""Fuzzes folders of SafeTensors files: an index, shards with numbers in their names, links, what is missing or twice.

A folder gives each tensor of its shards once, or one SotolError that names the folder; no file outside of it is opened.
Run `python -m tests.fuzz.fuzz_index --seconds 60 --seed 1`.
"""

import json
import random
from pathlib import Path

import numpy as np
from tests.support.folders import header_of
from tests.support.fuzzing import Bounds, Broken, Link, files_in, run, sentence
from tests.support.mutating import spoilt

from sotol.errors import SotolError
from sotol.formats.checkpoint_folder import read_folder

BOUNDS = Bounds(seconds=0.5, memory=128 << 20, allocated=3 << 20)
INDEX = "model.safetensors.index.json"
TENSORS = ("a.weight", "b.weight", "c.weight", "d.bias")
NAMES = (
    "model.safetensors", "a.safetensors", "b.safetensors", "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors", "model-00003-of-00002.safetensors", "other-00001-of-00001.safetensors",
    "model-00000-of-00000.safetensors", "model-00001-of-99999.safetensors", "a.bin", "é.safetensors",
)  # fmt: skip
AWAY = ("../a.safetensors", "/etc/hosts", "..", ".", "", "a/b.safetensors", "C:a.safetensors", "x\0.safetensors",
        "a" * 300 + ".safetensors", "~/a.safetensors")  # fmt: skip
TARGETS = ("../outside.safetensors", "/etc/hosts", "/dev/zero", ".", "..", "a.safetensors", "missing", "/proc/self/mem")


def shard(names: list[str]) -> bytes:
    """A file with these tensors."""
    header, data = header_of({name: np.ones((2, 2), np.float32) for name in names})
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


SHARDS = {(a, b): shard(list(TENSORS[a:b])) for a in range(5) for b in range(a, 5)}
OUTSIDE = shard(["outside"])


def case(rng: random.Random, folder: Path) -> bool:
    """One folder, read whole or by the name of one of its files."""
    names = rng.sample(NAMES, rng.choice([1, 1, 2, 2, 3])) if rng.random() < 0.5 else list(NAMES[3:5])
    files, table, first = dict[str, bytes | Link](), dict[str, str](), 0
    for name in names:
        end = rng.randrange(first, 5) if rng.random() < 0.9 else rng.randrange(5)
        files[name] = SHARDS[min(first, end), end]
        table |= dict.fromkeys(TENSORS[first:end], name)
        first = end
    if rng.random() < 0.6:
        if table and rng.random() < 0.3:
            table[rng.choice([*table, "new"])] = rng.choice([*AWAY, *NAMES])
        index = {"metadata": {"total_size": 64}, "weight_map": table}
        files[INDEX] = spoilt(index, rng) if rng.random() < 0.6 else json.dumps(index).encode()
    if rng.random() < 0.15:
        files[rng.choice([*names, INDEX, "config.json"])] = Link(rng.choice([*TARGETS, *NAMES]))
    if rng.random() < 0.1:
        del files[rng.choice(list(files))]
    files.setdefault("config.json", b'{"model_type": "llama"}')
    work = folder / "model"
    (folder / "outside.safetensors").exists() or (folder / "outside.safetensors").write_bytes(OUTSIDE)
    files_in(work).put(files)
    path = work if rng.random() < 0.9 else work / rng.choice(list(files))
    try:
        found = read_folder(path)
    except SotolError as error:
        return sentence(error, str(work))
    if "outside" in found.weights:
        raise Broken("a file outside of the folder is read")
    if sum(weight.nbytes for weight in found.weights.values()) > 16 * len(TENSORS):
        raise Broken("there are more tensors than in the files")
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_index", case, bounds=BOUNDS))
