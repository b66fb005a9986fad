"""Folders as publishers write them: a tiny model of an architecture by Hugging Face's names, its matrices quantised.

Each comes with the same model whose matrices are the numbers that these stand for, in F32.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tests.models.test_encodings import check, logits
from tests.support.folders import write_tensors
from tests.support.quantised_parts import Made
from tests.tools.test_converting import gguf_model

from sotol.formats import read_gguf, read_model
from sotol.formats.safetensors import read_safetensors
from sotol.models import trace_model
from sotol.quant import Float32Array
from sotol.tools.converting import convert
from sotol.tools.describing import describe
from sotol.tools.quantize import quantize
from sotol.tools.to_gguf import gguf_of

__all__ = ["Pair", "Tensors", "linear", "published", "same_everywhere"]

Tensors = dict[str, Any]
Make = Callable[[np.random.Generator, str, Float32Array], Made | None]
# Two-dimensional weights that are no linear maps, or that quantisers leave as they are.
LEFT = re.compile(
    r".*\.?(embed_tokens|embeddings|lm_head|router|gate|norm|conv1d|conv|shared_expert_gate|in_proj_[ab])"
)


class Pair(NamedTuple):
    """Two folders of one model."""

    own: Path
    plain: Path


def linear(make: Callable[[np.random.Generator, int, int], Made], left: str = "none") -> Make:
    """All linear maps by a scheme's function, but those whose names match."""

    def one(rng: np.random.Generator, name: str, values: Float32Array) -> Made | None:
        before = name.removesuffix(".weight")
        if values.ndim != 2 or before == name or LEFT.fullmatch(before) or re.fullmatch(left, before):
            return None
        return make(rng, *values.shape)

    return one


def published(
    folder: Path,
    architecture: str,
    make: Make,
    said: Mapping[str, object],
    *,
    fields: Mapping[str, object] | None = None,
    more: Callable[[Tensors], Tensors] = lambda tensors: tensors,
    config: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
    seed: int = 21,
) -> Pair:
    """Both folders. make: what a tensor becomes, None for itself. said: keys of config.json.

    fields: metadata of the model in GGUF's names. more, config: what else the publisher changes, of the quantised one's
    tensors, and of config.json.
    """
    pair = Pair(folder / "own", folder / "plain")
    convert(gguf_model(folder / "model.gguf", architecture, fields), pair.plain, "F32")
    shutil.copytree(pair.plain, pair.own)
    rng, own, plain = np.random.default_rng(seed), Tensors(), Tensors()
    for name, weight in read_safetensors(pair.plain / "model.safetensors").items():
        plain[name] = values = weight.decode().copy()  # the file is written anew
        if (made := make(rng, name, values)) is None:
            own[name] = values
        else:
            assert made.values.shape == values.shape
            plain[name] = made.values
            own |= {name.removesuffix(".weight") + suffix: x for suffix, x in made.tensors.items()}
    assert own.keys() != plain.keys() or any(own[name] is not plain[name] for name in own)
    write_tensors(pair.plain / "model.safetensors", plain)
    write_tensors(pair.own / "model.safetensors", more(own))
    found = json.loads((pair.plain / "config.json").read_text())
    (pair.own / "config.json").write_text(json.dumps(config({**found, **said})))
    return pair


def same_everywhere(pair: Pair, *, runs: bool = True) -> None:
    """Both are one model: what they compute, what is converted of them, and what is quantised.

    runs: whether to run it on the CPU, too.
    """
    own, plain = read_model(pair.own), read_model(pair.plain)
    found, want = (logits(trace_model(checkpoint, 32), "reference", [20]) for checkpoint in (own, plain))
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    if runs:
        check(own)
    assert describe(own)["problems"] == []
    for name in ("converted", "q8"):
        files = [pair.own.parent / f"{folder.name}-{name}.gguf" for folder in pair]
        for folder, file in zip(pair, files, strict=True):
            if name == "converted":
                convert(folder, file, "F32")
            else:
                quantize(gguf_of(folder)[0], file, encoding="Q8_0", allow_requantize=True)
        one, other = (read_gguf(file).weights for file in files)
        assert one.keys() == other.keys()
        for key in one:
            values: npt.NDArray[Any] = one[key].decode()
            np.testing.assert_array_equal(values, other[key].decode(), err_msg=f"{name}: {key}")
