"""Each architecture against `transformers`: tiny random models, converted to GGUF in F32, logits on each backend; and
as `save_pretrained` writes them: the same bits.

And against llama.cpp on the same files, where it is installed: so the files mean the same to both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bench.accuracy import llama_cpp_logits
from tests.parity.cases import dense, mixtures, recurrent
from tests.parity.cases.case import COMMON, GEMMA, VOCABULARY, Case
from tests.parity.cases.mixtures import LLAMA4, SMALL_GEMMA4
from tests.parity.cases.recurrent import DELTA_NET
from tests.support.checkpoints import fused, random_checkpoint
from tests.support.converting import as_gguf, checkpoint_of
from tests.support.programs import same_programs
from tests.support.running import RUNNERS, limits_for, run_text

from sotol.formats import read_gguf, read_model, write_gguf
from sotol.formats.text_configs import DEFAULTS
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.program.program import Program

torch = pytest.importorskip("torch", reason="torch is not installed: `make parity` has it")

Array = npt.NDArray[Any]
TOLERANCE = 2e-4  # of a row's largest logit
SHIFTED = {"gemma", "gemma2", "gemma3", "nemotron", "qwen35", "qwen35moe", "qwen3next"}  # whose norms multiply by 1 + w
GELU = {"gemma", "gemma2", "gemma3", "gemma4", "starcoder2"}
CASES = [*dense.CASES, *mixtures.CASES, *recurrent.CASES]


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
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw(case.architecture, name, parameter)
        for name, buffer in model.named_buffers() if hasattr(model, "named_buffers") else ():
            if name.endswith("_bias"):  # of a choice
                buffer.normal_(0, 0.3)
            elif name.endswith("layer_scalar"):
                buffer.uniform_(0.5, 1.5)
    return model


def draw(architecture: str, name: str, parameter: Any) -> None:
    """Random numbers for a parameter, of the size that it needs."""
    if name.endswith(("norm.weight", "norm_f.weight")):
        shifted = architecture in SHIFTED and not name.endswith("linear_attn.norm.weight")
        parameter.uniform_(0.5, 1.5).sub_(1.0 if shifted else 0.0)
        if architecture == "gemma4" and name.endswith("q_norm.weight"):
            parameter.mul_(0.25)  # nothing scales scores: in large ones, the peer's rounding of GELU would show
    elif name.endswith(("bias", "sinks")):
        parameter.normal_(0, 0.7)
    elif name.endswith(("router.scale", "per_expert_scale")):
        parameter.uniform_(0.5, 1.5)
    else:
        parameter.normal_(0, 1.5 / parameter.shape[-1] ** 0.5)


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
    if judged.case.in_gguf and not judged.case.multiplied:
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


@pytest.mark.parametrize("name", ["Gemma4", "Llama4"])
def test_the_text_model_beside_a_tower(name: str, tmp_path: Path) -> None:
    """What `transformers` saves of a model that sees gives the logits of its text model, which is asked alone here."""
    import transformers

    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 2, "head_dim": 16, "image_size": 28, "patch_size": 14}  # fmt: skip
    if name == "Llama4":
        tower |= {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
    text = {**COMMON, **(SMALL_GEMMA4 if name == "Gemma4" else LLAMA4)}
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=tower)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    model.save_pretrained(tmp_path)
    ids = np.random.default_rng(7).integers(3, VOCABULARY, 40).tolist()
    with torch.no_grad():
        if name == "Llama4":
            expected = model.language_model(torch.tensor(ids)[None]).logits[0].numpy()
        else:
            hidden = model.model.language_model(torch.tensor(ids)[None]).last_hidden_state
            cap = text["final_logit_softcapping"]
            expected = (torch.tanh(model.lm_head(hidden) / cap) * cap)[0].numpy()
    checkpoint = read_model(tmp_path)
    assert not any("vision" in weight for weight in checkpoint.weights)
    assert worst(cpu_logits(trace_model(checkpoint, 128), ids), expected) <= TOLERANCE


@pytest.mark.parametrize("kind", DEFAULTS)
def test_what_the_config_of_a_text_model_leaves_out(kind: str) -> None:
    """The defaults of `transformers`' classes, but for widths of heads that these compute."""
    from transformers import CONFIG_MAPPING

    theirs, ours = CONFIG_MAPPING[kind]().to_dict(), dict(DEFAULTS[kind])
    rotation = theirs["rope_parameters"]
    rotation = rotation.get("full_attention", rotation)
    assert rotation["rope_type"] in ("default", "proportional")
    assert ours.pop("rope_theta") == rotation["rope_theta"]
    assert ours.pop("partial_rotary_factor", rotation.get("partial_rotary_factor", 1.0)) == rotation.get(
        "partial_rotary_factor", 1.0
    )
    lacking = {"lfm2": {"rms_norm_eps"}, "cohere2": {"rms_norm_eps"}}.get(kind, set[str]())
    assert {key for key in ours if key not in theirs} == lacking
    assert {key: theirs[key] for key in ours.keys() - lacking} == {
        key: value for key, value in ours.items() if key not in lacking
    }


SEEING = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
QWEN_SEEING = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 64,
               "embed_dim": 32, "patch_size": 4}  # fmt: skip
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}}
CLIP, SIGLIP = ({**SEEING, "model_type": f"{kind}_vision_model"} for kind in ("clip", "siglip"))
# The class of a repository's model -> what its text model has, what sees, and what the config has besides.
REPOSITORIES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "Mistral3": ({"model_type": "mistral"}, {**SEEING, "model_type": "pixtral", "head_dim": 16}, {}),
    "Llava": ({"model_type": "llama"}, {**CLIP, "projection_dim": 32}, {}),
    "LlavaNext": ({"model_type": "mistral", "sliding_window": None}, {**CLIP, "projection_dim": 32}, {}),
    "LlavaOnevision": ({"model_type": "qwen2"}, SIGLIP, {}),
    "Idefics3": ({"model_type": "llama"}, SEEING, {"scale_factor": 2}),
    "InternVL": ({"model_type": "qwen3"}, {**SEEING, "image_size": [28, 28], "patch_size": [14, 14]}, {}),
    "Qwen2VL": (MROPE, QWEN_SEEING, {}),
    "Qwen2_5_VL": (MROPE, QWEN_SEEING, {}),
    "Gemma3": (
        {"tie_word_embeddings": True, "num_hidden_layers": 7, "num_attention_heads": 8, "num_key_value_heads": 4},
        SEEING, {"mm_tokens_per_image": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPOSITORIES)
def test_the_text_model_of_a_repository(name: str, tmp_path: Path) -> None:
    """As `transformers` saves it: a text_config of what is not a default, names as of its version 5."""
    import transformers

    text, tower, more = REPOSITORIES[name]
    torch.manual_seed(0)
    common = {key: value for key, value in COMMON.items() if key != "pad_token_id"}
    config = getattr(transformers, f"{name}Config")(text_config={**common, **text}, vision_config=tower, **more)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    model.save_pretrained(tmp_path)
    ids = np.random.default_rng(7).integers(3, 80, 30).tolist()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids)[None]).logits[0].numpy()
    assert worst(cpu_logits(trace_model(read_model(tmp_path), 128), ids), expected) <= TOLERANCE


def test_the_text_model_of_qwen35_with_its_tower_and_drafts(tmp_path: Path) -> None:
    """As `transformers` saves it, with a draft's weight as released files have some: the logits of its text model."""
    import transformers
    from safetensors.torch import load_file, save_file

    tower = {"hidden_size": 32, "intermediate_size": 48, "depth": 2, "num_heads": 2, "patch_size": 4,
             "out_hidden_size": 64, "num_position_embeddings": 16}  # fmt: skip
    torch.manual_seed(0)
    config = transformers.Qwen3_5Config(text_config={**COMMON, **DELTA_NET}, vision_config=tower)
    model = transformers.Qwen3_5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "mtp.fc.weight": torch.ones(64, 128)}, tmp_path / "model.safetensors")
    ids = np.random.default_rng(7).integers(3, VOCABULARY, 30).tolist()
    with torch.no_grad():
        expected = model(torch.tensor(ids)[None]).logits[0].numpy()
    checkpoint = read_model(tmp_path)
    assert not any("visual" in name for name in checkpoint.weights)
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
            " experts' weights are divided by their sum, chunks; it rounds YaRN's ramp for GPT-OSS, judges groups of"
            " experts of DeepSeek-V2 by two, needs a latent of queries unless layers are 26 or 27; and Gemma 4's donors"
        )
    logits = peer_logits(read_gguf(judged.path), judged.ids, tmp_path / "peer.gguf")
    # Its GELU is a table of float16.
    assert worst(logits, judged.logits) <= (5e-3 if judged.case.architecture in GELU else TOLERANCE)


def test_the_first_deepseek_is_llama_cpps(tmp_path: Path) -> None:
    """`transformers` does not have it."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    sizes = {"attention.key_length": 16, "expert_weights_scale": 1.5, "rope.dimension_count": 16}
    checkpoint = random_checkpoint("deepseek", sizes)._replace(types={})
    ids = np.random.default_rng(8).integers(0, 48, 20).tolist()
    logits = peer_logits(checkpoint, ids, tmp_path / "peer.gguf")
    assert worst(cpu_logits(trace_model(checkpoint, 128), ids), logits) <= TOLERANCE


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
