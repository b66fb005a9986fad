"""What config.json says of single architectures, by the files of tiny models."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.checkpoints import random_checkpoint
from tests.tools.test_converting import gguf_model, vocabulary_of

from sotol.errors import ModelError
from sotol.formats import write_gguf
from sotol.models.deepseek2 import GLM_FLASH
from sotol.tools import hub_otherwise
from sotol.tools.converting import convert
from sotol.tools.hub_config import MODELS, hub_model
from sotol.tools.hub_otherwise import deepseek2_kind


def config_of(path: Path, folder: Path) -> dict[str, Any]:
    convert(path, folder)
    said: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return said


def test_the_table_is_of_models() -> None:
    known = {model.model_type for model in MODELS.values()} | {"deepseek_v2", "glm4_moe_lite", "granitemoeshared"}
    assert hub_otherwise.FACTS.keys() <= known


@pytest.mark.parametrize(
    ("fields", "kind", "method"),
    [
        ({"expert_gating_func": 2}, "deepseek_v3", None),
        ({"expert_gating_func": 1}, "deepseek_v2", "greedy"),
        ({"expert_gating_func": 1, "expert_group_count": 5, "expert_group_used_count": 2}, "deepseek_v2",
         "group_limited_greedy"),
    ],
)  # fmt: skip
def test_which_deepseek_it_is(fields: dict[str, object], kind: str, method: str | None, tmp_path: Path) -> None:
    said = config_of(gguf_model(tmp_path / "m.gguf", "deepseek2", fields), tmp_path / "folder")
    assert (said["model_type"], said.get("topk_method")) == (kind, method)
    assert (said["num_key_value_heads"], said["qk_nope_head_dim"], said["qk_rope_head_dim"]) == (2, 24, 8)


def test_glms_with_latent_attention_are_known_by_their_sizes() -> None:
    (layers, _), vocabulary = GLM_FLASH
    sizes = SimpleNamespace(layers=layers, vocabulary=vocabulary)
    flash = SimpleNamespace(sizes=sizes, experts=SimpleNamespace(scores="sigmoid"))
    assert deepseek2_kind(flash)[0] == "glm4_moe_lite"


def test_the_scale_of_yarn_comes_back(tmp_path: Path) -> None:
    yarn = {
        "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0, "rope.scaling.original_context_length": 16,
        "rope.scaling.yarn_log_multiplier": 0.0707,
    }  # fmt: skip
    said = config_of(gguf_model(tmp_path / "m.gguf", "deepseek2", yarn), tmp_path / "folder")["rope_parameters"]
    assert said["mscale"] == said["mscale_all_dim"] == 0.707
    assert "attention_factor" not in said


def test_gemma4_says_both_kinds_of_layers(tmp_path: Path) -> None:
    said = config_of(gguf_model(tmp_path / "m.gguf", "gemma4"), tmp_path / "folder")
    assert (said["head_dim"], said["global_head_dim"], said["enable_moe_block"]) == (16, 32, True)
    assert said["rope_parameters"]["full_attention"]["rope_type"] == "proportional"
    assert said["attention_k_eq_v"] is False


def test_keys_that_are_values(tmp_path: Path) -> None:
    model = random_checkpoint("gemma4", {"attention.sliding_window_pattern": [True, False, True, False]})
    kept = [weight for name, weight in model.weights.items() if not name.startswith("blk.1.attn_v")]
    write_gguf(tmp_path / "m.gguf", {**model.metadata, **vocabulary_of("gemma4")}, kept)
    assert config_of(tmp_path / "m.gguf", tmp_path / "folder")["attention_k_eq_v"] is True


def test_kinds_of_layers(tmp_path: Path) -> None:
    recurrent, full = "linear_attention", "full_attention"
    for architecture, key, kinds in (
        ("qwen35", "layer_types", [recurrent, full]),
        ("lfm2", "layer_types", ["conv", full]),
        ("granitehybrid", "layer_types", [recurrent, full]),
        ("nemotron_h", "layers_block_type", [recurrent, full, "mlp", recurrent]),
        ("nemotron_h_moe", "layers_block_type", [recurrent, full, "moe", recurrent]),
        ("dots1", "layer_types", [full, full]),
    ):
        place = tmp_path / architecture
        place.mkdir()
        said = config_of(gguf_model(place / "m.gguf", architecture), place / "folder")
        assert said[key] == kinds
        assert said["num_key_value_heads"] == 1


def test_granites_are_called_by_what_they_have(tmp_path: Path) -> None:
    plain = config_of(gguf_model(tmp_path / "a.gguf", "granitemoe"), tmp_path / "a")
    shared = {"expert_shared_feed_forward_length": 64}
    other = config_of(gguf_model(tmp_path / "b.gguf", "granitemoe", shared), tmp_path / "b")
    assert (plain["model_type"], other["model_type"]) == ("granitemoe", "granitemoeshared")
    assert (plain["num_local_experts"], other["shared_intermediate_size"]) == (5, 64)


def test_what_config_json_cannot_say_is_refused(tmp_path: Path) -> None:
    """Layers of Gemma 4 of one kind with different counts of key-value heads; an architecture without a form."""
    model = random_checkpoint("gemma4", {
        "block_count": 6, "attention.sliding_window_pattern": [True, True, False] * 2,
        "attention.head_count_kv": [1, 2, 1, 1, 1, 1],
    })  # fmt: skip
    write_gguf(tmp_path / "m.gguf", {**model.metadata, **vocabulary_of("gemma4")}, model.weights.values())
    with pytest.raises(ModelError, match="the other format can't say all that this file does"):
        convert(tmp_path / "m.gguf", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    with pytest.raises(ModelError, match="sotol can't write strange as a folder of Hugging Face's kind"):
        hub_model("strange", SimpleNamespace(layers=1))
