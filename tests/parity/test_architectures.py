"""Each architecture against `transformers`: tiny random models, converted to GGUF in F32, logits on each backend; and
as `save_pretrained` writes them: the same bits.

And against llama.cpp on the same files, where it is installed: so the files mean the same to both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bench.accuracy import llama_cpp_logits
from tests.support.checkpoints import fused, random_checkpoint
from tests.support.converting import as_gguf, checkpoint_of
from tests.support.programs import same_programs
from tests.support.running import RUNNERS, limits_for, run_text

from sotol.formats import read_gguf, read_model, write_gguf
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.program.program import Program

torch = pytest.importorskip("torch", reason="torch is not installed: `make parity` has it")

Array = npt.NDArray[Any]
VOCABULARY = 96
TOLERANCE = 2e-4  # of a row's largest logit
GELU = {"gemma", "gemma2", "gemma3", "starcoder2"}
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": None,
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
    text: str = ""  # of a model that sees: the class of its text model, which has no head
    in_gguf: bool = True  # whether GGUF's metadata can say all of it


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

QWEN_MOE = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48}
# Its windows are shorter than the prompt, its ramp of YaRN is not at whole pairs.
GPT_OSS = {
    "num_local_experts": 9,
    "num_experts_per_tok": 4,
    "head_dim": 32,
    "sliding_window": 16,
    "num_hidden_layers": 4,
    "rope_parameters": {**yarn(), "original_max_position_embeddings": 64, "truncate": False},
}

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
    Case("qwen3moe", "qwen3moe", "Qwen3MoeConfig", options={**QWEN_MOE, "head_dim": 32, "norm_topk_prob": True}),
    Case(
        "qwen3moe-odd-not-normalised",
        "qwen3moe",
        "Qwen3MoeConfig",
        options={
            **QWEN_MOE, **ODD, "head_dim": 18, "norm_topk_prob": False, "moe_intermediate_size": 21, "num_experts": 5,
            "num_experts_per_tok": 1, "attention_bias": True,
        },
        peer=False,
    ),
    Case(
        "qwen3moe-all-experts-tied",
        "qwen3moe",
        "Qwen3MoeConfig",
        options={
            **QWEN_MOE, "norm_topk_prob": True, "num_experts": 20, "num_experts_per_tok": 20,
            "tie_word_embeddings": True, "head_dim": 16,
        },
    ),
    Case("qwen2moe", "qwen2moe", "Qwen2MoeConfig", options={**QWEN_MOE, "shared_expert_intermediate_size": 80}),
    Case(
        "qwen2moe-odd-normalised",
        "qwen2moe",
        "Qwen2MoeConfig",
        options={**QWEN_MOE, **ODD, "shared_expert_intermediate_size": 33, "norm_topk_prob": True},
        peer=False,
    ),
    Case("mixtral", "mixtral", "MixtralConfig", options={"num_local_experts": 6, "num_experts_per_tok": 2}),
    Case(
        "mixtral-odd-tied",
        "mixtral",
        "MixtralConfig",
        options={**ODD, "num_local_experts": 3, "num_experts_per_tok": 3, "tie_word_embeddings": True},
    ),
    Case(
        "olmoe",
        "olmoe",
        "OlmoeConfig",
        options={"num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 3},
    ),
    Case(
        "olmoe-odd-normalised",
        "olmoe",
        "OlmoeConfig",
        options={**ODD, "num_key_value_heads": 1, "num_experts": 6, "num_experts_per_tok": 4, "norm_topk_prob": True},
        peer=False,
    ),
    Case("gpt-oss", "gpt-oss", "GptOssConfig", tokens=90, options=GPT_OSS, peer=False),
    Case(
        "gpt-oss-without-yarn",
        "gpt-oss",
        "GptOssConfig",
        tokens=90,
        options={**GPT_OSS, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}},
    ),
    Case(
        "gpt-oss-odd",
        "gpt-oss",
        "GptOssConfig",
        tokens=40,
        options={
            **GPT_OSS, "hidden_size": 60, "intermediate_size": 45, "num_attention_heads": 6, "num_key_value_heads": 2,
            "head_dim": 24, "num_local_experts": 7, "num_experts_per_tok": 1, "sliding_window": 3,
            "layer_types": ["full_attention", *["sliding_attention"] * 2, "full_attention"],
        },
        peer=False,
    ),
]  # fmt: skip

GEMMA2 = {**GEMMA, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0}
GRANITE = {
    "attention_multiplier": 0.21, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 2.0,
}  # fmt: skip
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": np.linspace(1, 1.3, 8).tolist(),
    "long_factor": np.linspace(1, 9, 8).tolist(),
}
# Spans of 16 positions whose queries grow alike: the texts have three of them, and a part of a fourth.
MINISTRAL = yarn(
    factor=16.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0,
    llama_4_scaling_beta=0.4,
)  # fmt: skip
# The text of models that see, which has sections of pairs for time, height and width.
SEEING = {
    "head_dim": 16, "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
}  # fmt: skip
HYBRID = {"num_hidden_layers": 4, "sliding_window": 7}

CASES += [
    Case("gemma2", "gemma2", "Gemma2Config", options={**GEMMA2, "num_hidden_layers": 4}),
    Case("gemma2-mqa-odd-biases", "gemma2", "Gemma2Config", options={
        **GEMMA2, **ODD, "num_key_value_heads": 1, "head_dim": 12, "query_pre_attn_scalar": 12, "attention_bias": True,
    }, peer=False),
    Case("gemma2-as-27b", "gemma2", "Gemma2Config", tokens=20, options={
        **GEMMA2, "num_hidden_layers": 46, "query_pre_attn_scalar": 16,
    }),
    Case("phi3", "phi3", "Phi3Config"),
    Case("phi3-window", "phi3", "Phi3Config", options={"sliding_window": 9}, peer=False),
    Case("phi3-short", "phi3", "Phi3Config", options={
        "rope_parameters": LONGROPE, "original_max_position_embeddings": 1024, "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }),
    Case("phi3-long", "phi3", "Phi3Config", options={
        "rope_parameters": LONGROPE, "original_max_position_embeddings": 32, "max_position_embeddings": 512,
    }),
    Case("phi3-part-of-a-head", "phi3", "Phi3Config", options={
        "rope_parameters": {**LONGROPE, "partial_rotary_factor": 0.75, "short_factor": [1.0] * 6,
                            "long_factor": [1.0, 1.1, 2.0, 3.0, 5.0, 8.0], "attention_factor": 1.2},
        "original_max_position_embeddings": 32, "max_position_embeddings": 512,
    }),
    Case("granite", "granite", "GraniteConfig", options=GRANITE),
    Case("granite-odd-biases", "granite", "GraniteConfig", options={
        **GRANITE, **ODD, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    }),
    Case("olmo2", "olmo2", "Olmo2Config"),
    Case("olmo2-mha-tied-odd-biases", "olmo2", "Olmo2Config", options={
        **ODD, "attention_bias": True, "tie_word_embeddings": True, "rope_parameters": yarn(),
    }, peer=False),
    Case("olmo3", "olmo2", "Olmo3Config", options={
        **HYBRID, "rope_parameters": {"full_attention": yarn(), "sliding_attention": {"rope_type": "default",
                                                                                        "rope_theta": 10000.0}},
    }),
    Case("olmo3-mixed", "olmo2", "Olmo3Config", options={"layer_types": MIXED, "sliding_window": 12}),
    Case("smollm3", "smollm3", "SmolLM3Config", options={"num_hidden_layers": 5}),
    Case("smollm3-some-biases", "smollm3", "SmolLM3Config", options={
        "no_rope_layers": [0, 1, 0], "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    }, peer=False, in_gguf=False),
    Case("ministral3", "mistral3", "Ministral3Config", tokens=60, options={
        "head_dim": 32, "rope_parameters": MINISTRAL,
    }),
    Case("ministral3-not-rounded", "mistral3", "Ministral3Config", tokens=60, options={
        "head_dim": 32, "rope_parameters": {**MINISTRAL, "mscale": 0.5, "truncate": False}, "sliding_window": 20,
    }, peer=False, in_gguf=False),
    Case("mistral", "mistral3", "MistralConfig", options={"sliding_window": 7}, peer=False),
    Case("mistral-nemo", "mistral3", "MistralConfig", options={"head_dim": 24, "sliding_window": None}),
    Case("ministral", "mistral3", "MinistralConfig", options={
        "layer_types": MIXED, "sliding_window": 7, "head_dim": 16,
    }, peer=False),
    Case("cohere2", "cohere2", "Cohere2Config", options={**HYBRID, "tie_word_embeddings": True, "logit_scale": 0.4}),
    Case("cohere2-odd-biases", "cohere2", "Cohere2Config", options={
        **ODD, "layer_types": MIXED, "sliding_window": 12, "attention_bias": True,
    }, peer=False),
    Case("command-r", "command-r", "CohereConfig", options={"tie_word_embeddings": True, "logit_scale": 0.4}),
    Case("command-r-odd-biases", "command-r", "CohereConfig", options={**ODD, "attention_bias": True}, peer=False),
    Case("glm4", "glm4", "Glm4Config", options={"head_dim": 16}),
    Case("glm4-plain-part", "glm4", "Glm4Config", options={
        "head_dim": 24, "attention_bias": False, "partial_rotary_factor": 0.25, "tie_word_embeddings": True,
    }),
    Case("exaone4", "exaone4", "Exaone4Config", options={
        "sliding_window": None, "layer_types": ["full_attention"] * 3,
    }),
    Case("gemma", "gemma", "GemmaConfig", options={"head_dim": 32, "tie_word_embeddings": True}),
    Case("gemma-mqa-odd-biases", "gemma", "GemmaConfig", options={
        **ODD, "num_key_value_heads": 1, "head_dim": 12, "attention_bias": True,
    }, peer=False),
    Case("seed_oss", "seed_oss", "SeedOssConfig", options={"head_dim": 24}),
    Case("seed_oss-biases", "seed_oss", "SeedOssConfig", options={
        "head_dim": 16, "attention_out_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    }, peer=False),
    Case("ernie4_5", "ernie4_5", "Ernie4_5Config", options={"head_dim": 24}),
    Case("ernie4_5-odd-biases", "ernie4_5", "Ernie4_5Config", options={
        **ODD, "head_dim": 12, "use_bias": True, "tie_word_embeddings": True,
    }, peer=False),
    Case("arcee", "arcee", "ArceeConfig", options={"head_dim": 24}),
    Case("arcee-odd-biases", "arcee", "ArceeConfig", options={
        **ODD, "head_dim": 12, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    }, peer=False),
    Case("nemotron", "nemotron", "NemotronConfig"),
    Case("nemotron-odd-biases", "nemotron", "NemotronConfig", options={
        **ODD, "attention_bias": True, "mlp_bias": True, "partial_rotary_factor": 1.0,
    }),
    Case("stablelm", "stablelm", "StableLmConfig"),
    Case("stablelm-biases-tied", "stablelm", "StableLmConfig", options={
        "use_qkv_bias": True, "partial_rotary_factor": 0.5, "tie_word_embeddings": True,
    }, peer=False),
    Case("starcoder2", "starcoder2", "Starcoder2Config"),
    Case("starcoder2-window-odd", "starcoder2", "Starcoder2Config", options={
        **ODD, "sliding_window": 9, "tie_word_embeddings": True,
    }, peer=False),
    Case("hunyuan", "hunyuan-dense", "HunYuanDenseV1Config", options={"head_dim": 16}),
    Case("hunyuan-alpha-odd-biases", "hunyuan-dense", "HunYuanDenseV1Config", options={
        **ODD, "head_dim": 12, "attention_bias": True, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 50.0, "factor": 1.0},
    }, peer=False),
    Case("qwen2-vl", "qwen2vl", "Qwen2VLTextConfig", text="Qwen2VLTextModel", options=SEEING, peer=False),
    Case("qwen2.5-vl", "qwen2vl", "Qwen2_5_VLTextConfig", text="Qwen2_5_VLTextModel", options=SEEING, peer=False),
    Case("qwen3-vl", "qwen3vl", "Qwen3VLTextConfig", text="Qwen3VLTextModel", options=SEEING, peer=False),
    Case("exaone4-hybrid", "exaone4", "Exaone4Config", options={
        **HYBRID, "rope_parameters": LLAMA3, "tie_word_embeddings": True,
    }, peer=False),
]  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A model as its own checkpoint, folder and as a GGUF file, the ids of a prompt, and their logits [T, V]."""

    case: Case
    checkpoint: Checkpoint
    folder: Path | None  # None: what is judged is part of what Hugging Face saves
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
    folder = tmp_path_factory.mktemp("tiny")
    path, checkpoint = folder / f"{case.name}.gguf", checkpoint_of(model)
    saved = None if isinstance(model, Headed) else folder
    if saved is not None:
        model.save_pretrained(saved, max_shard_size="40KB")
    return Judged(case, checkpoint, saved, as_gguf(checkpoint, case.architecture, path), ids.tolist(), logits)


@dataclass(frozen=True)
class Headed:
    """A text model whose embedding is its head, as a model for causal language modelling."""

    body: Any

    @property
    def config(self) -> Any:
        return self.body.config

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        return ((f"model.{name}", x) for name, x in self.body.named_parameters())

    def state_dict(self) -> dict[str, Any]:
        return {f"model.{name}": x for name, x in self.body.state_dict().items()}

    def __call__(self, ids: Any) -> Any:
        return SimpleNamespace(logits=self.body(ids).last_hidden_state @ self.body.embed_tokens.weight.T)


def random_model(case: Case) -> Any:
    """A model of the case whose every parameter is drawn at random: no zero biases, no norms of one."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, case.config)(**{**COMMON, **case.options})
    if case.text:
        config._attn_implementation = "eager"
        model: Any = Headed(getattr(transformers, case.text)(config).eval())
    else:
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", experts_implementation="eager"
        ).eval()
    shifted = 1.0 if case.architecture in {"gemma", "gemma2", "gemma3", "nemotron"} else 0.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5).sub_(shifted)
            elif name.endswith(("bias", "sinks")):
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
    program = trace_model(read_gguf(judged.path) if judged.case.in_gguf else judged.checkpoint, context=128)
    with RUNNERS[backend](program, limits_for(program, 128)) as runner:
        logits = run_text(runner, judged.ids, chunks(len(judged.ids)))
    assert worst(logits, judged.logits) <= TOLERANCE


def test_the_checkpoint_itself_gives_the_logits_of_its_conversion(judged: Judged) -> None:
    """Its config.json and its weights by their own names, in memory and in a folder: the same bits."""
    checkpoints = [judged.checkpoint]
    if judged.folder is not None:
        checkpoints.append(read_model(judged.folder))
    if judged.case.in_gguf:
        checkpoints.append(read_gguf(judged.path))
    programs = [trace_model(checkpoint, 128) for checkpoint in checkpoints]
    results = [cpu_logits(program, judged.ids) for program in programs]
    assert worst(results[0], judged.logits) <= TOLERANCE
    for program, logits in zip(programs[1:], results[1:], strict=True):
        same_programs(programs[0], program)
        np.testing.assert_array_equal(results[0].view(np.int32), logits.view(np.int32))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama-gqa", "qwen2-gqa", "qwen3-gqa", "gemma3"])
def test_a_folder_of_half_precision(name: str, dtype: str, tmp_path: Path) -> None:
    """One of each architecture, in several shards: logits as of `transformers` in float32, and of F32 in GGUF."""
    import transformers

    case = next(case for case in CASES if case.name == name)
    random_model(case).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    ids = np.random.default_rng(7).integers(0, VOCABULARY, 30).tolist()
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = model(torch.tensor(ids)[None]).logits[0].numpy()
    checkpoint = read_model(tmp_path)
    assert {weight.encoding.name for weight in checkpoint.weights.values()} == {"BF16" if dtype[0] == "b" else "F16"}
    logits = cpu_logits(trace_model(checkpoint, 128), ids)
    assert worst(logits, expected) <= TOLERANCE
    path = as_gguf(checkpoint, case.architecture, tmp_path / "x.gguf")
    again = cpu_logits(trace_model(read_gguf(path), 128), ids)
    np.testing.assert_array_equal(logits.view(np.int32), again.view(np.int32))


def test_the_text_model_of_a_multimodal_one(tmp_path: Path) -> None:
    """Gemma 3 with its tower for images: what `transformers` saves gives the logits of its text model."""
    import transformers

    text = {**COMMON, **GEMMA, "num_hidden_layers": 7}
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
             "image_size": 28, "patch_size": 14}  # fmt: skip
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=text, vision_config=tower, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    ids = np.random.default_rng(7).integers(3, VOCABULARY, 30).tolist()
    with torch.no_grad():
        expected = model(torch.tensor(ids)[None]).logits[0].numpy()
    checkpoint = read_model(tmp_path)
    assert not any("vision" in name or "projector" in name for name in checkpoint.weights)
    assert worst(cpu_logits(trace_model(checkpoint, 128), ids), expected) <= TOLERANCE


def cpu_logits(program: Program, ids: list[int]) -> Array:
    """Logits [T, V] of one prompt at once."""
    with RUNNERS["cpu"](program, limits_for(program, 128)) as runner:
        return run_text(runner, ids, [len(ids)])


def test_logits_are_those_of_llama_cpp(judged: Judged, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    if not judged.case.peer:
        pytest.skip(
            "llama.cpp ignores some of it in files of this architecture: biases, YaRN's bounds, windows, whether the"
            " experts' weights are divided by their sum; and it rounds YaRN's ramp for GPT-OSS"
        )
    logits = peer_logits(read_gguf(judged.path), judged.ids, tmp_path / "peer.gguf")
    # Its GELU is a table of float16.
    assert worst(logits, judged.logits) <= (5e-3 if judged.case.architecture in GELU else TOLERANCE)


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
    if prefix == "mixtral":  # GGUF's name of it is llama
        renamed = {key.replace("mixtral.", "llama."): value for key, value in checkpoint.metadata.items()}
        types = {key.replace("mixtral.", "llama."): kind for key, kind in checkpoint.types.items()}
        checkpoint = checkpoint._replace(metadata={**renamed, "general.architecture": "llama"}, types=types)
        prefix = "llama"
    rotated = checkpoint.metadata.get(f"{prefix}.rope.dimension_count")
    needed = {
        "tokenizer.ggml.model": "none",
        f"{prefix}.vocab_size": checkpoint.weights["token_embd.weight"].shape[0],
        f"{prefix}.rope.dimension_count": rotated or checkpoint.metadata[f"{prefix}.attention.key_length"],
    }
    write_gguf(path, {**checkpoint.metadata, **needed}, checkpoint.weights.values(), types=checkpoint.types)
    return llama_cpp_logits(path, ids, codec="f32", threads=1)


def worst(logits: Array, expected: Array) -> float:
    """The largest error of any row, in units of the row's largest logit."""
    return float((np.abs(logits - expected).max(axis=1) / np.abs(expected).max(axis=1)).max())
