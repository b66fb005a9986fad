"""Folders as Hugging Face's tools write them: SafeTensors files of any header, and tiny models with a tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.checkpoints import random_checkpoint

from sotol.formats import Checkpoint
from sotol.models import ARCHITECTURES, MODEL_TYPES

__all__ = ["NAMED", "header_of", "hub_names", "raw_file", "tiny_folder", "write_tensors"]

# Architectures whose weights all have names of Hugging Face's: others have some joined there.
NAMED = [a for a in ARCHITECTURES if all(name for name, *_ in ARCHITECTURES[a].WEIGHTS.values())]

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16",
          "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL"}  # fmt: skip

EXPERTS: dict[str, object] = {"num_experts_per_tok": 2, "num_experts": 5, "moe_intermediate_size": 32}
# What config.json says of some architectures besides.
OWN: dict[str, dict[str, object]] = {
    "command-r": {"logit_scale": 0.0625},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 32},
    "gpt-oss": {**EXPERTS, "intermediate_size": 32, "sliding_window": 5},
    "mixtral": {**EXPERTS, "intermediate_size": 32},
    "olmoe": {**EXPERTS, "intermediate_size": 32},
    "qwen2moe": {**EXPERTS, "shared_expert_intermediate_size": 64},
    "qwen3moe": EXPERTS,
}


def raw_file(path: Path, header: object, data: bytes = b"", *, length: int | None = None, pad: int = 0) -> Path:
    """A file of this header (JSON of it, if it is no bytes) and these numbers. length: what it says of its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * pad
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def header_of(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The header and the numbers of a file of these arrays, one after the other."""
    header, data = dict[str, Any](), b""
    for name, array in tensors.items():
        begin, array = len(data), np.asarray(array)
        data += array.tobytes()
        dtype = DTYPES[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, len(data)]}
    return header, data


def write_tensors(path: Path, tensors: Mapping[str, Any]) -> Path:
    """A valid file of these arrays."""
    return raw_file(path, *header_of(tensors))


def hub_names(checkpoint: Checkpoint, architecture: str) -> dict[str, Any]:
    """A checkpoint's numbers under Hugging Face's names, as they are: without the changes that a conversion makes."""
    table = {}
    for key, (name, *_) in ARCHITECTURES[architecture].WEIGHTS.items():
        for layer in range(8):
            table[key.format(layer)] = name.format(layer)
    found = {}
    for full, weight in checkpoint.weights.items():
        name = table[full.removesuffix(".weight")]
        found[name if name.endswith(".bias") else f"{name}.weight"] = weight.decode()
    return found


def tiny_folder(folder: Path, architecture: str = "llama", config: Mapping[str, object] | None = None) -> Path:
    """A folder with a tiny random model, and a tokenizer of 48 words."""
    folder.mkdir(exist_ok=True)
    said = {
        "model_type": next(kind for kind, known in MODEL_TYPES.items() if known == architecture),
        "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "head_dim": 16, "eos_token_id": 2, "layer_norm_eps": 1e-6, "norm_epsilon": 1e-6, "norm_eps": 1e-6,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said | OWN.get(architecture, {}) | dict(config or {})))
    weights = hub_names(random_checkpoint(architecture, {"attention.key_length": 16}), architecture)
    write_tensors(folder / "model.safetensors", weights)
    words = ["<unk>", "<s>", "</s>", *(chr(ord("a") + i) for i in range(26)), *(str(i) for i in range(10)), " "]
    words += [f"<|{i}|>" for i in range(48 - len(words))]
    special = [{"id": i, "content": text, "special": True} for i, text in enumerate(words) if text.startswith("<")]
    model = {"type": "BPE", "vocab": {text: i for i, text in enumerate(words)}, "merges": [], "unk_token": "<unk>"}
    decoder = {"type": "Fuse"}
    tokenizer = {"added_tokens": special, "model": model, "decoder": decoder}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return folder
