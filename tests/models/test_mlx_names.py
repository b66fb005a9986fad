"""Checkpoints that mlx-lm converted give the programs of those that they are of: changed here as its code does it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.support.folders import write_tensors
from tests.support.programs import same_programs
from tests.tools.test_converting import gguf_model

from sotol.formats import read_model
from sotol.formats.safetensors import read_safetensors
from sotol.models import trace_model
from sotol.tools.converting import convert

Tensors = dict[str, npt.NDArray[Any]]
SUMS = ("input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight", "q_norm.weight",
        "k_norm.weight")  # fmt: skip


def moved(tensors: Tensors) -> Tensors:
    """Convolutions as [C, t, 1]."""
    return {
        name: np.ascontiguousarray(np.moveaxis(x, 2, 1)) if name.endswith(("conv1d.weight", "conv.conv.weight")) else x
        for name, x in tensors.items()
    }


def stacked(tensors: Tensors, place: str, words: dict[str, str]) -> Tensors:
    """Single experts, `….experts.3.<their word>`, as one tensor by another name."""
    found: dict[str, dict[int, Any]] = {}
    kept = Tensors()
    for name, x in tensors.items():
        before, mark, after = name.partition(".experts.")
        number, _, word = after.partition(".")
        if mark and word.removesuffix(".weight") in words:
            found.setdefault(f"{before}.{place}.{words[word.removesuffix('.weight')]}.weight", {})[int(number)] = x
        else:
            kept[name] = x
    return kept | {name: np.stack([each[i] for i in range(len(each))]) for name, each in found.items()}


def of_qwen3next(tensors: Tensors) -> Tensors:
    words = {f"{part}_proj": f"{part}_proj" for part in ("gate", "up", "down")}
    summed = {name: x + np.float32(1) if name.endswith(SUMS) else x for name, x in moved(tensors).items()}
    return stacked(summed, "switch_mlp", words)


def of_nemotron(tensors: Tensors) -> Tensors:
    return stacked(moved(tensors), "switch_mlp", {"up_proj": "fc1", "down_proj": "fc2"})


def of_lfm2(tensors: Tensors) -> Tensors:
    words = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    named = Tensors()
    for name, x in moved(tensors).items():
        before, _, last = name.removesuffix(".weight").rpartition(".")
        named[f"{before}.{words[last]}.weight" if last in words else name] = x
    return stacked(named, "switch_mlp", {word: word for word in words.values()})


def of_granite(tensors: Tensors) -> Tensors:
    """Of one without experts."""
    made = Tensors()
    for name, x in moved(tensors).items():
        if name.endswith("shared_mlp.input_linear.weight"):
            for part, half in zip(("gate", "up"), np.split(x, 2), strict=True):
                made[name.replace("shared_mlp.input_linear", f"mlp.{part}_proj")] = np.ascontiguousarray(half)
        else:
            made[name.replace("shared_mlp.output_linear", "mlp.down_proj")] = x
    return made


def of_gemma4(tensors: Tensors) -> Tensors:
    made = Tensors()
    for name, x in tensors.items():
        if name.endswith(".experts.gate_up_proj"):
            for part, half in zip(("gate", "up"), np.split(x, 2, axis=-2), strict=True):
                made[name.replace(".gate_up_proj", f".switch_glu.{part}_proj.weight")] = np.ascontiguousarray(half)
        else:
            made[name.replace(".experts.down_proj", ".experts.switch_glu.down_proj.weight")] = x
    return made


def of_deepseek(tensors: Tensors) -> Tensors:
    """Each head's rows: 8 of keys, which are transposed, and those of values."""
    made = Tensors()
    for name, x in tensors.items():
        if not name.endswith(".kv_b_proj.weight"):
            made[name] = x
            continue
        heads = x.reshape(2, -1, x.shape[1])
        plain = heads.shape[1] - 16
        made[name.replace("kv_b_proj", "embed_q")] = np.ascontiguousarray(heads[:, :plain].swapaxes(1, 2))
        made[name.replace("kv_b_proj", "unembed_out")] = np.ascontiguousarray(heads[:, plain:])
    return made


CHANGES: dict[str, Callable[[Tensors], Tensors]] = {
    "qwen3next": of_qwen3next,
    "nemotron_h_moe": of_nemotron,
    "nemotron_h": of_nemotron,
    "lfm2": of_lfm2,
    "lfm2moe": of_lfm2,
    "granitehybrid": of_granite,
    "gemma4": of_gemma4,
    "deepseek2": of_deepseek,
}


@pytest.mark.parametrize("architecture", CHANGES)
def test_the_program_is_that_of_the_models_own(architecture: str, tmp_path: Path) -> None:
    fields: dict[str, object] = {"expert_count": None} if architecture == "granitehybrid" else {}
    folder = tmp_path / "folder"
    convert(gguf_model(tmp_path / "m.gguf", architecture, fields), folder, "F32")
    own = trace_model(read_model(folder), 64)
    tensors: Tensors = {}
    for name, weight in read_safetensors(folder / "model.safetensors").items():
        tensors[name] = weight.decode()
    changed = CHANGES[architecture](tensors)
    assert changed.keys() != tensors.keys() or any(changed[name].shape != tensors[name].shape for name in tensors)
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "config.json").write_bytes((folder / "config.json").read_bytes())
    write_tensors(tmp_path / "mlx" / "model.safetensors", changed)
    same_programs(own, trace_model(read_model(tmp_path / "mlx"), 64))
