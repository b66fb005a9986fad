"""Quantising beside llama.cpp: the same encodings for the same weights, errors no larger, files that it runs."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint

from sotol.catalog import find_model
from sotol.formats import Checkpoint, read_gguf, write_gguf
from sotol.models import described
from sotol.quant import ENCODINGS, WEIGHTED
from sotol.tools.mixes import MIXES, facts_of, plan
from sotol.tools.quantize import quantize

pytestmark = pytest.mark.skipif(
    not os.environ.get("SOTOL_PARITY"), reason="SOTOL_PARITY names no folder: `make parity` makes and names it"
)
llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")

WIDE: dict[str, object] = {
    "embedding_length": 256, "feed_forward_length": 256, "block_count": 17, "attention.head_count": 8,
    "context_length": 64,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, object], bool]] = {
    "shared values": ("llama", {**WIDE, "attention.head_count_kv": 2}, True),
    "values of their own": ("llama", {**WIDE, "attention.head_count_kv": 8}, False),
    "rows of 96": ("llama", {**WIDE, "embedding_length": 96, "attention.head_count_kv": 4}, True),
    "eight experts": (
        "mixtral",
        {**WIDE, "block_count": 9, "expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 32},
        True,
    ),
    "four experts": (
        "olmoe",
        {**WIDE, "block_count": 9, "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32},
        True,
    ),
}
SLOW = {name for name in MIXES if name.startswith(("IQ1", "IQ2"))}  # llama.cpp takes a microsecond for each weight
NEED_IMPORTANCE = {name for name in MIXES if name.startswith(("IQ1", "IQ2", "IQ3_X")) or name == "Q2_K_S"}
WIDTH = 2048


def by_llama_cpp(source: Path, out: Path, mix: str, importance: dict[str, np.ndarray] | None) -> Checkpoint:
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.nthread, settings.ftype = 2, MIXES[mix].file_type
    entries: Any = None
    if importance is not None:
        entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
        for entry, (name, values) in zip(entries, importance.items(), strict=False):
            entry.name, entry.size = name.encode(), values.size
            entry.data = ctypes.cast(values.ctypes.data, ctypes.POINTER(ctypes.c_float))
        settings.imatrix = entries
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(settings)) == 0
    return read_gguf(out)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "with importance"])
@pytest.mark.parametrize("model", MODELS)
def test_the_same_encodings_for_the_same_weights(tmp_path: Path, model: str, weighted: bool) -> None:
    architecture, metadata, optional = MODELS[model]
    checkpoint = random_checkpoint(architecture, metadata, optional=optional)
    data = {**checkpoint.metadata, "general.architecture": "llama" if architecture == "mixtral" else architecture}
    data = {key.replace("mixtral.", "llama."): value for key, value in data.items()}
    weights = {name: w for name, w in checkpoint.weights.items() if not name.endswith(".bias")}
    source = tmp_path / "source.gguf"
    write_gguf(source, data, weights.values())
    importance = {
        name: np.ones((w.shape[0] if len(w.shape) > 2 else 1) * w.shape[-1], np.float32)
        for name, w in weights.items()
        if len(w.shape) > 1
    }
    facts = facts_of(described(data), weights, importance=weighted)
    for mix in MIXES:
        if (weighted or mix not in NEED_IMPORTANCE) and (model == "shared values" or mix not in SLOW):
            theirs = by_llama_cpp(source, tmp_path / "theirs.gguf", mix, importance if weighted else None)
            ours = plan(list(weights.values()), facts, mix=mix)
            assert {name: w.encoding.name for name, w in theirs.weights.items()} == ours, mix


def peer_encoder(name: str) -> Callable[..., np.ndarray]:
    """ggml's encoder of rows, with importance or without."""
    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    library.ggml_quantize_init(ENCODINGS[name].ggml_type)

    def encode(x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        encoding = ENCODINGS[name]
        out = np.zeros((len(x), x.shape[1] // encoding.values * encoding.size), np.uint8)
        pointers = [ctypes.c_void_p(None if a is None else a.ctypes.data) for a in (x, out, importance)]
        numbers = [ctypes.c_int64(n) for n in (0, *x.shape)]
        library.ggml_quantize_chunk(encoding.ggml_type, *pointers[:2], *numbers, pointers[2])
        return out

    return encode


@pytest.mark.parametrize("name", WEIGHTED)
def test_errors_by_importance_are_no_larger(name: str) -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((16, WIDTH)) * np.exp(rng.standard_normal((16, WIDTH)) / 2) / 20).astype(np.float32)
    importance = np.exp(rng.standard_normal(WIDTH)).astype(np.float32)
    decode = ENCODINGS[name].decode
    assert decode is not None
    errors = [
        float(np.mean(importance * (decode(stored).astype(np.float64) - x) ** 2))
        for stored in (WEIGHTED[name](x, importance), peer_encoder(name)(x, importance))
    ]
    assert errors[0] <= 1.02 * errors[1]


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q5_0", "Q4_1", "Q5_1", "TQ1_0", "TQ2_0", "Q2_0", "MXFP4"])
def test_the_same_bytes_of_numbers_on_steps(name: str) -> None:
    """As those of a quantised file: many are halves of another one's magnitude, or are just below as a quotient."""
    rng = np.random.default_rng(2)
    steps = rng.integers(-8, 9, (64, WIDTH)).astype(np.float32)
    factors = rng.standard_normal((64, WIDTH // 256)).astype(np.float16).astype(np.float32)
    x = steps * np.repeat(factors, 256, axis=1)
    encode = ENCODINGS[name].encode
    assert encode is not None
    assert np.array_equal(encode(x), peer_encoder(name)(x))


def test_llama_cpp_runs_what_sotol_quantised(tmp_path: Path) -> None:
    from bench.accuracy import TEXT, llama_cpp_logits, mean_kl, sotol_logits, text_ids

    out = tmp_path / "out.gguf"
    quantize(read_gguf(find_model("smollm2")), out, mix="Q4_K_M", allow_requantize=True)
    ids = text_ids(out, TEXT.read_text(), 256)
    assert mean_kl(llama_cpp_logits(out, ids), sotol_logits(out, ids)) < 0.01
