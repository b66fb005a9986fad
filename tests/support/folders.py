"""Folders as Hugging Face's tools write them: SafeTensors files of any header, and tiny models with a tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tests.support.checkpoints import full_name, model_type_of, random_checkpoint
from tests.support.configs import CONFIGS

from sotol.formats import Checkpoint
from sotol.models import ARCHITECTURES

__all__ = ["DTYPES", "NAMED", "Typed", "header_of", "hub_names", "raw_file", "tiny_folder", "write_tensors"]

# Architectures whose weights all have names of Hugging Face's: others have some joined there.
NAMED = [a for a in ARCHITECTURES if all(name for name, *_ in ARCHITECTURES[a].WEIGHTS.values())]

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16",
          "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL"}  # fmt: skip


# What `tiny_folder` says of weights that its folders do not have, since they need not.
LACKING: dict[str, dict[str, object]] = {"falcon-h1": {"mamba_rms_norm": False}}


class Typed(NamedTuple):
    """Numbers of a type that NumPy lacks, as whole numbers of as many bits."""

    dtype: str  # of SafeTensors
    data: Any


def raw_file(path: Path, header: object, data: bytes = b"", *, length: int | None = None, pad: int = 0) -> Path:
    """A file of this header (JSON of it, if it is no bytes) and these numbers. length: what it says of its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * pad
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def header_of(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The header and the numbers of a file of these arrays, one after the other."""
    header, data = dict[str, Any](), b""
    for name, given in tensors.items():
        begin, array = len(data), np.asarray(given.data if isinstance(given, Typed) else given)
        data += array.tobytes()
        dtype = given.dtype if isinstance(given, Typed) else DTYPES[array.dtype.name]
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
        found[full_name(name)] = weight.decode()
    return found


def tiny_folder(folder: Path, architecture: str = "llama", config: Mapping[str, object] | None = None) -> Path:
    """A folder with a tiny random model, and a tokenizer of 48 words."""
    folder.mkdir(exist_ok=True)
    said = {
        "model_type": model_type_of(architecture),
        "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "head_dim": 16, "eos_token_id": 2, "layer_norm_eps": 1e-6, "norm_epsilon": 1e-6, "norm_eps": 1e-6,
    }  # fmt: skip
    said |= CONFIGS.get(architecture, {}) | LACKING.get(architecture, {}) | dict(config or {})
    (folder / "config.json").write_text(json.dumps(said))
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
