"""Fuzzes quantised SafeTensors: what config.json, or a file beside it, says of a scheme, and tensors of weights.

Whatever is wrong, a folder gives a Checkpoint, or one SotolError of a sentence that names a file or a weight. What is
accepted has rows of as many bytes as it says, the same however they are asked for, and a number for each of its shape.
Run `python -m tests.fuzz.fuzz_quantised --seconds 60 --seed 1`.
"""

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.folders import DTYPES, Typed, header_of
from tests.support.fuzzing import Bounds, Broken, files_in, run, sentence
from tests.support.mutating import mutated, spoilt
from tests.support.quantised import SCHEMES
from tests.support.quantised_parts import Made

from sotol.errors import SotolError
from sotol.formats.checkpoint_folder import read_folder
from sotol.formats.weights import Weight

BOUNDS = Bounds(memory=256 << 20, allocated=24 << 20)
# Where the settings of a method may be instead of in config.json, and in what there.
ELSEWHERE = {
    "modelopt": ("hf_quant_config.json", "quantization"), "gptq": ("quantize_config.json", None),
    "awq": ("quant_config.json", None),
}  # fmt: skip
NAMES = ("model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj")
SHAPES = ((32, 64), (64, 128), (32, 256), (96, 256))
TYPES = (*DTYPES.values(), "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0")
Tensors = dict[str, Any]


@cache
def made(scheme: str, shape: tuple[int, int]) -> Made | None:
    """One matrix of a scheme; None where the scheme has none of this shape."""
    try:
        return SCHEMES[scheme].make(np.random.default_rng(7), *shape)
    except ValueError:  # NumPy can't cut its rows so
        return None


def array_of(tensor: Any) -> np.ndarray[Any, Any]:
    return np.asarray(tensor.data if isinstance(tensor, Typed) else tensor)


def again(tensor: Any, array: np.ndarray[Any, Any]) -> Any:
    """Other numbers of the same type."""
    return Typed(tensor.dtype, array) if isinstance(tensor, Typed) else array


def drop(tensors: Tensors, name: str, rng: random.Random) -> None:
    """A tensor less, or under another name."""
    tensor = tensors.pop(name)
    if rng.random() < 0.5:
        tensors[rng.choice([name + "2", name.rpartition(".")[0], name.replace("0", "1"), rng.choice(NAMES)])] = tensor


def retype(tensors: Tensors, name: str, rng: random.Random) -> None:
    """The same bytes as numbers of another type of as many bits, or of any, which are then others."""
    array = array_of(tensors[name])
    tensors[name] = rng.choice([Typed(rng.choice(TYPES), array), array.astype(rng.choice(["f4", "f2", "i4", "u1"]))])


def reshape(tensors: Tensors, name: str, rng: random.Random) -> None:
    """Of another shape: cut, doubled, flat, turned, empty, with one more dimension."""
    array = array_of(tensors[name])
    ways: list[Callable[[], np.ndarray[Any, Any]]] = [
        lambda: array[:-1], lambda: array[..., :-1], lambda: np.concatenate([array, array]), lambda: array.reshape(-1),
        lambda: array.T, lambda: array[:0], lambda: array[None], lambda: array[..., None],
    ]  # fmt: skip
    if array.ndim:
        tensors[name] = again(tensors[name], np.ascontiguousarray(rng.choice(ways)()))


def spoil(tensors: Tensors, name: str, rng: random.Random) -> None:
    """Random bytes, ones or zeros: order, factors and codes of any kind."""
    array = array_of(tensors[name])
    size = array.nbytes
    data = rng.choice([rng.randbytes(size), b"\xff" * size, bytes(size), b"\x7c" * size])
    tensors[name] = again(tensors[name], np.frombuffer(data, array.dtype).reshape(array.shape))


def change_number(tensors: Tensors, name: str, rng: random.Random) -> None:
    """One number is another."""
    array = array_of(tensors[name]).copy()
    if array.size:
        flat = array.reshape(-1).view(np.uint8)
        flat[rng.randrange(len(flat))] = rng.randrange(256)
        tensors[name] = again(tensors[name], array)


def swap(tensors: Tensors, name: str, rng: random.Random) -> None:
    """Two tensors have each other's names."""
    other = rng.choice(sorted(tensors))
    tensors[name], tensors[other] = tensors[other], tensors[name]


MUTATIONS = (drop, retype, reshape, spoil, change_number, swap)


def check(weight: Weight, rng: random.Random) -> None:
    """Broken unless the weight has what its shape says, and rows that do not depend on who asks."""
    whole = weight.rows()
    if whole.size != weight.nbytes:
        raise Broken(f"{weight.name} has {whole.size} bytes, and says {weight.nbytes}")
    rows = weight.row_count
    first = rng.randrange(rows + 1)
    end = rng.randint(first, rows)
    if not np.array_equal(weight.rows(first, end).reshape(-1), whole.reshape(rows, -1)[first:end].reshape(-1)):
        raise Broken(f"{weight.name} has other rows from {first} to {end}")
    if weight.encoding.decode is not None and weight.decode().shape != weight.shape:
        raise Broken(f"{weight.name} has another shape than it says")
    if weight.order is not None and sorted(weight.order.tolist()) != list(range(weight.shape[-1])):
        raise Broken(f"{weight.name} has inputs in an order that is none")


def case(rng: random.Random, folder: Path) -> bool:
    """A matrix or two of a scheme, or of two, with up to three things that are wrong."""
    name = rng.choice(sorted(SCHEMES))
    scheme, tensors = SCHEMES[name], Tensors()
    for place in NAMES[: rng.choice([1, 1, 2])]:
        one = made(name if rng.random() < 0.95 else rng.choice(sorted(SCHEMES)), rng.choice(SHAPES))
        tensors |= {} if one is None else {place + suffix: tensor for suffix, tensor in one.tensors.items()}
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        if tensors:
            rng.choice(MUTATIONS)(tensors, rng.choice(sorted(tensors)), rng)
    settings: Any = scheme.config if rng.random() < 0.5 else mutated(scheme.config, rng, rng.choice([1, 1, 2, 3]))
    config, files = {scheme.key: settings}, dict[str, bytes]()
    method = scheme.config.get("quant_method")
    if method in ELSEWHERE and rng.random() < 0.3:
        other, key = ELSEWHERE[str(method)]
        files[other] = spoilt({key: settings, "producer": {}} if key else settings, rng)
        config = {}
    files["config.json"] = spoilt(config, rng) if rng.random() < 0.05 else json.dumps(config).encode()
    header, data = header_of(tensors)
    text = json.dumps(header).encode()
    files["model.safetensors"] = len(text).to_bytes(8, "little") + text + data
    work = folder / "model"
    files_in(work).put(files)
    try:
        checkpoint = read_folder(work)
        for weight in checkpoint.weights.values():
            check(weight, rng)
    except SotolError as error:
        return sentence(error, str(work), "config.json", *tensors)
    return True


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_quantised", case, bounds=BOUNDS))
