"""Each architecture against `transformers`: tiny random models, converted to GGUF in F32, logits on each backend.

And against llama.cpp on the same files, where it is installed: so the files mean the same to both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bench.accuracy import llama_cpp_logits
from tests.support.checkpoints import fused, random_checkpoint
from tests.support.converting import as_gguf, checkpoint_of
from tests.support.programs import same_programs
from tests.support.running import RUNNERS, limits_for, run_text

from sotol.formats import read_gguf, write_gguf
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model

torch = pytest.importorskip("torch", reason="torch is not installed: `make parity` has it")

Array = npt.NDArray[Any]
VOCABULARY = 96
TOLERANCE = 2e-4  # of a row's largest logit
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Case:
    """A configuration: `transformers`' config class and what differs from the common one."""

    name: str
    architecture: str
    config: str
    tokens: int = 45
    options: dict[str, Any] = field(default_factory=dict)
    peer: bool = True  # whether llama.cpp reads all of the metadata and biases that `transformers`' config gives


def yarn(**more: float) -> dict[str, Any]:
    """YaRN that reaches all three kinds of pairs with the heads of these models."""
    return {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 2000, **more}


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}
ODD = {"hidden_size": 60, "intermediate_size": 172, "num_attention_heads": 5, "num_key_value_heads": 5}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "tie_word_embeddings": True, "sliding_window": 7}

CASES = [
    Case("llama-gqa", "llama", "LlamaConfig"),
    Case("llama-mha-tied", "llama", "LlamaConfig", options={"num_key_value_heads": 4, "tie_word_embeddings": True}),
    Case("llama-wide-heads", "llama", "LlamaConfig", options={"head_dim": 48}),
    Case("llama-odd-biases", "llama", "LlamaConfig", options={**ODD, "attention_bias": True, "mlp_bias": True}),
    Case("llama-heads-of-100", "llama", "LlamaConfig", options={"head_dim": 100, "intermediate_size": 77}),
    Case("llama-linear", "llama", "LlamaConfig", options={"rope_parameters": LINEAR}),
    Case(
        "llama-yarn",
        "llama",
        "LlamaConfig",
        options={"rope_parameters": yarn(beta_fast=16.0, beta_slow=2.0)},
        peer=False,
    ),
    Case("llama3", "llama", "LlamaConfig", tokens=90, options={"rope_parameters": LLAMA3, "head_dim": 32}),
    Case("qwen2-gqa", "qwen2", "Qwen2Config"),
    Case("qwen2-odd", "qwen2", "Qwen2Config", options=ODD),
    Case("qwen2-tied-yarn", "qwen2", "Qwen2Config", options={"tie_word_embeddings": True, "rope_parameters": yarn()}),
    Case("qwen3-gqa", "qwen3", "Qwen3Config", options={"head_dim": 32}),
    Case(
        "qwen3-odd-biases", "qwen3", "Qwen3Config", options={**ODD, "head_dim": 18, "attention_bias": True}, peer=False
    ),
    Case("qwen3-tied", "qwen3", "Qwen3Config", options={"head_dim": 16, "tie_word_embeddings": True}),
    Case(
        "qwen3-yarn-factor",
        "qwen3",
        "Qwen3Config",
        options={"head_dim": 48, "rope_parameters": yarn(attention_factor=1.5)},
        peer=False,
    ),
    Case(
        "qwen3-yarn-mscale",
        "qwen3",
        "Qwen3Config",
        options={"head_dim": 32, "rope_parameters": yarn(mscale=1.0, mscale_all_dim=0.5)},
        peer=False,
    ),
    Case("gemma3", "gemma3", "Gemma3TextConfig", options={**GEMMA, "num_hidden_layers": 7}),
    Case(
        "gemma3-odd-biases",
        "gemma3",
        "Gemma3TextConfig",
        options={
            **GEMMA,
            **ODD,
            "num_hidden_layers": 7,
            "head_dim": 12,
            "query_pre_attn_scalar": 12,
            "attention_bias": True,
        },
        peer=False,
    ),
    Case(
        "gemma3-period-3-linear",
        "gemma3",
        "Gemma3TextConfig",
        options={
            **GEMMA,
            "num_hidden_layers": 4,
            "sliding_window_pattern": 3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 100000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3000.0},
            },
        },
    ),
    Case(
        "gemma3-cap-mqa",
        "gemma3",
        "Gemma3TextConfig",
        options={
            **GEMMA,
            "num_hidden_layers": 6,
            "num_key_value_heads": 1,
            "sliding_window": 20,
            "final_logit_softcapping": 2.0,
        },
    ),
    Case(
        "gemma3-as-27b",
        "gemma3",
        "Gemma3TextConfig",
        tokens=20,
        options={**GEMMA, "num_hidden_layers": 62, "query_pre_attn_scalar": 16},
    ),
]


@dataclass(frozen=True)
class Judged:
    """A model as its own checkpoint and as a GGUF file, the ids of a prompt, and their logits [T, V]."""

    case: Case
    checkpoint: Checkpoint
    path: Path
    ids: list[int]
    logits: Array


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The case as a file, a prompt, and `transformers`' logits for it."""
    case: Case = request.param
    torch.set_num_threads(1)
    model = random_model(case)
    ids = np.random.default_rng(7).integers(0, VOCABULARY, case.tokens)
    with torch.no_grad():
        logits = model(torch.tensor(ids)[None]).logits[0].numpy()
    path = tmp_path_factory.mktemp("tiny") / f"{case.name}.gguf"
    checkpoint = checkpoint_of(model)
    return Judged(case, checkpoint, as_gguf(checkpoint, case.architecture, path), ids.tolist(), logits)


def random_model(case: Case) -> Any:
    """A model of the case whose every parameter is drawn at random: no zero biases, no norms of one."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, case.config)(**{**COMMON, **case.options})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    shifted = 1.0 if case.architecture == "gemma3" else 0.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5).sub_(shifted)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.7)
            else:
                parameter.normal_(0, 1.5 / parameter.shape[-1] ** 0.5)
    return model


@pytest.mark.parametrize("backend", RUNNERS)
@pytest.mark.parametrize(
    "chunks",
    [lambda n: [n], lambda n: [n - 5, *[1] * 5], lambda n: [1, 7, 7, n - 15]],
    ids=["at-once", "prompt-then-decode", "chunks"],
)
def test_logits_are_those_of_transformers(judged: Judged, backend: str, chunks: Callable[[int], list[int]]) -> None:
    program = trace_model(read_gguf(judged.path), context=128)
    with RUNNERS[backend](program, limits_for(program, 128)) as runner:
        logits = run_text(runner, judged.ids, chunks(len(judged.ids)))
    assert worst(logits, judged.logits) <= TOLERANCE


def test_the_checkpoint_itself_gives_the_logits_of_its_conversion(judged: Judged) -> None:
    """Its config.json and its weights by their own names: the same bits."""
    results, programs = list[Array](), [trace_model(c, 128) for c in (judged.checkpoint, read_gguf(judged.path))]
    same_programs(*programs)
    for program in programs:
        with RUNNERS["cpu"](program, limits_for(program, 128)) as runner:
            results.append(run_text(runner, judged.ids, [len(judged.ids)]))
    assert worst(results[0], judged.logits) <= TOLERANCE
    np.testing.assert_array_equal(results[0].view(np.int32), results[1].view(np.int32))


def test_logits_are_those_of_llama_cpp(judged: Judged, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    if not judged.case.peer:
        pytest.skip("llama.cpp ignores YaRN's bounds and factor, and biases of outputs, in files of this architecture")
    logits = peer_logits(read_gguf(judged.path), judged.ids, tmp_path / "peer.gguf")
    # Its GELU is a table of float16.
    assert worst(logits, judged.logits) <= (5e-3 if judged.case.architecture == "gemma3" else TOLERANCE)


def test_joined_queries_keys_and_values_are_those_of_llama_cpp(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    checkpoint = fused(random_checkpoint("llama", {"attention.key_length": 16}))._replace(types={})
    assert "blk.0.attn_qkv.weight" in checkpoint.weights
    ids = np.random.default_rng(8).integers(0, 48, 20).tolist()
    logits = peer_logits(checkpoint, ids, tmp_path / "peer.gguf")
    program = trace_model(checkpoint, 64)
    with RUNNERS["cpu"](program, limits_for(program, 64)) as runner:
        assert worst(run_text(runner, ids, [20]), logits) <= TOLERANCE


def peer_logits(checkpoint: Checkpoint, ids: list[int], path: Path) -> Array:
    """llama.cpp's logits [T, V] of a checkpoint, which is written with what it needs besides."""
    prefix = str(checkpoint.metadata["general.architecture"])
    needed = {
        "tokenizer.ggml.model": "none",
        f"{prefix}.vocab_size": checkpoint.weights["token_embd.weight"].shape[0],
        f"{prefix}.rope.dimension_count": checkpoint.metadata[f"{prefix}.attention.key_length"],
    }
    write_gguf(path, {**checkpoint.metadata, **needed}, checkpoint.weights.values(), types=checkpoint.types)
    return llama_cpp_logits(path, ids, codec="f32", threads=1)


def worst(logits: Array, expected: Array) -> float:
    """The largest error of any row, in units of the row's largest logit."""
    return float((np.abs(logits - expected).max(axis=1) / np.abs(expected).max(axis=1)).max())
