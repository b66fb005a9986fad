"""Fuzzes folders of Hugging Face's kind: headers of SafeTensors files, an index, config.json, and what lies beside.

A folder gives a Checkpoint, or one SotolError of a sentence that names one of its files. What is accepted, the format's
own library accepts too, with the same numbers; tensors cover a file's numbers once. A config gives a program or one
error. Run `python -m tests.fuzz.fuzz_folder --seconds 60 --seed 1`.
"""

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from tests.support.checkpoints import random_checkpoint
from tests.support.folders import NAMED, header_of, hub_names, tiny_folder
from tests.support.fuzzing import Broken, run
from tests.support.mutating import mutated_bytes, spoilt

from sotol.errors import SotolError
from sotol.formats import Checkpoint, Weight, read_model
from sotol.formats.safetensors import DTYPES, read_safetensors
from sotol.models import trace_model

COMPARED = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL")
BESIDE = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.json")


def refused(error: SotolError, folder: Path) -> bool:
    """False, for `case`; Broken if the error is no sentence about the folder."""
    if "\n" in str(error) or len(str(error)) > 1200:
        raise Broken(f"not a message of one sentence: {str(error)[:300]!r}") from error
    if str(folder) not in str(error) and "config.json" not in str(error) and "rope" not in str(error):
        raise Broken(f"names no file: {error}") from error
    return False


def header_case(rng: random.Random, folder: Path) -> bool:
    """One file with a header of which something is wrong."""
    tensors = {}
    for name in rng.sample(["a", "b", "layer.0.w", "é", "__x__"], rng.randrange(5)):
        shape = [rng.randrange(5) for _ in range(rng.randrange(4))]
        tensors[name] = np.ones(shape, rng.choice(["f4", "f2", "f8", "i1", "i8", "u2", "?"]))
    header, data = header_of(tensors)
    if rng.random() < 0.3:
        header["__metadata__"] = {"format": "pt"}
    for said in header.values():
        if "dtype" in said and rng.random() < 0.1:
            said["dtype"] = rng.choice(sorted(DTYPES))
    text = spoilt(header, rng) + b" " * rng.choice([0, 0, 3])
    length = (
        len(text) if rng.random() < 0.9 else rng.choice([0, 2, len(text) // 2, len(text) + 1, 1 << 40, (1 << 64) - 1])
    )
    whole = length.to_bytes(8, "little") + text + data
    path = folder / "x.safetensors"
    path.write_bytes(whole if rng.random() < 0.9 else mutated_bytes(whole, rng))
    try:
        weights = read_safetensors(path)
    except SotolError as error:
        return refused(error, folder)
    size = path.stat().st_size
    if sum(weight.nbytes for weight in weights.values()) > size:
        raise Broken("tensors are larger than their file")
    compare(path, weights)
    return True


def compare(path: Path, weights: Mapping[str, Weight]) -> None:
    """Broken unless the format's own library finds the same tensors."""
    with safetensors.safe_open(path, "numpy") as judge:
        for name in judge.keys():  # noqa: SIM118  (it is no mapping)
            given, weight = judge.get_slice(name), weights.get(name)
            shape = given.get_shape()
            if (0 in shape) != (weight is None) or (weight is not None and list(weight.shape) != (shape or [1])):
                raise Broken(f"{name!r} has the shape {shape}, says the library")
            if weight is not None and given.get_dtype() in COMPARED:
                with np.errstate(all="ignore"):
                    expected = judge.get_tensor(name).astype(np.float32).reshape(-1)
                    found = weight.decode().reshape(-1)
                if not np.array_equal(found, expected, equal_nan=True):
                    raise Broken(f"{name!r} has other numbers")


def folder_case(rng: random.Random, folder: Path) -> bool:
    """A small model of any architecture with something wrong in its files."""
    work = folder / "model"
    shutil.rmtree(work, ignore_errors=True)
    architecture = rng.choice(NAMED)
    tiny_folder(work, architecture)
    config = json.loads((work / "config.json").read_text())
    if rng.random() < 0.3:
        config = {"model_type": "many", "text_config": config, "eos_token_id": 2}
    kind = rng.choice(["config", "config", "index", "beside", "none"])
    (work / "config.json").write_bytes(spoilt(config, rng) if kind == "config" else json.dumps(config).encode())
    if kind == "index":
        split(work, architecture, rng)
    if kind == "beside":
        many = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
        given = {"eos_token_id": [1, 2], "bos_token": {"content": "<s>"}, "chat_template": many}
        (work / rng.choice(BESIDE)).write_bytes(spoilt(given, rng))
        (work / "chat_template.jinja").write_bytes(mutated_bytes("{{ é }}".encode(), rng))
    try:
        checkpoint = read_model(work)
        use(checkpoint)
    except SotolError as error:
        return refused(error, work)
    return True


def split(work: Path, architecture: str, rng: random.Random) -> None:
    """The model in two shards with an index of which something may be wrong; files may be links."""
    tensors = hub_names(random_checkpoint(architecture, {"attention.key_length": 16}), architecture)
    names, table = sorted(tensors), dict[str, str]()
    (work / "model.safetensors").unlink()
    for i, shard in enumerate(("a.safetensors", "b.safetensors")):
        header, data = header_of({name: tensors[name] for name in names[i::2]})
        text = json.dumps(header).encode()
        (work / shard).write_bytes(len(text).to_bytes(8, "little") + text + data)
        table |= dict.fromkeys(names[i::2], shard)
    (work / "model.safetensors.index.json").write_bytes(spoilt({"metadata": {}, "weight_map": table}, rng))
    if rng.random() < 0.2:
        (work / "b.safetensors").unlink()
        (work / "b.safetensors").symlink_to(
            rng.choice(["b.safetensors", "../x.safetensors", "/etc/hosts", "a.safetensors"])
        )


def use(checkpoint: Checkpoint) -> None:
    """A program of it, whose weights can be read."""
    for weight in trace_model(checkpoint, context=16).weights():
        if not np.prod(weight.shape) == weight.decode().size:
            raise Broken(f"{weight.name} has other numbers than its shape says")


def case(rng: random.Random, folder: Path) -> bool:
    """One file's header, or, as it takes a hundred times as long, now and then a whole folder."""
    return header_case(rng, folder) if rng.random() < 0.98 else folder_case(rng, folder)


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_folder", case))
