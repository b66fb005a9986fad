"""Which weight gets which encoding; tests/parity/test_quantize.py compares whole plans with llama.cpp's."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint

from sotol.formats.weights import Checkpoint, Weight
from sotol.models import described
from sotol.quant import ENCODINGS, Layout, plain_encoding
from sotol.tools.mixes import FILE_TYPES, MIXES, Facts, facts_of, fitting, plan, quantisable

WIDE = {"embedding_length": 256, "feed_forward_length": 512, "block_count": 16}


def matrix(name: str, shape: tuple[int, ...]) -> Weight:
    return Weight.from_values(name, np.zeros(shape, np.float32), "F32")


def planned(checkpoint: Checkpoint, mix: str, *, importance: bool = False) -> dict[str, str]:
    facts = facts_of(described(checkpoint.metadata), checkpoint.weights, importance=importance)
    return plan(list(checkpoint.weights.values()), facts, mix=mix)


@pytest.fixture(scope="module")
def llama() -> Checkpoint:
    return random_checkpoint("llama", {**WIDE, "attention.head_count": 8, "attention.head_count_kv": 2}, optional=True)


def test_facts(llama: Checkpoint) -> None:
    metadata = described(llama.metadata)
    assert facts_of(metadata, llama.weights, importance=True) == Facts(16, 4, 0, True, False)
    tied = {name: w for name, w in llama.weights.items() if name != "output.weight"}
    assert facts_of(metadata, tied, importance=False).tied


def test_every_mix_names_encodings_that_are(llama: Checkpoint) -> None:
    for mix in MIXES:
        assert all(ENCODINGS[name].encode for name in planned(llama, mix).values())
    assert len({mix.file_type for mix in MIXES.values()}) == len(MIXES)
    assert FILE_TYPES["Q8_0"] == 7
    assert FILE_TYPES["Q4_K"] == 15


def test_q4_k_m(llama: Checkpoint) -> None:
    chosen = planned(llama, "Q4_K_M")
    assert chosen["token_embd.weight"] == "Q4_K"
    assert chosen["output.weight"] == "Q6_K"
    assert chosen["output_norm.weight"] == "F32"
    assert chosen["blk.0.attn_q.weight"] == "Q4_K"
    more = [i for i in range(16) if chosen[f"blk.{i}.ffn_down.weight"] == "Q6_K"]
    assert more == [0, 1, 4, 7, 10, 13, 14, 15]
    assert more == [i for i in range(16) if chosen[f"blk.{i}.attn_v.weight"] == "Q6_K"]


def test_an_embedding_that_is_the_output(llama: Checkpoint) -> None:
    tied = {name: w for name, w in llama.weights.items() if name != "output.weight"}
    assert planned(llama._replace(weights=tied), "Q3_K_M")["token_embd.weight"] == "Q6_K"


def test_importance_changes_what_is_guarded(llama: Checkpoint) -> None:
    assert planned(llama, "Q4_0")["blk.0.ffn_down.weight"] == "Q4_0"
    assert planned(llama, "Q4_0", importance=True)["blk.0.ffn_down.weight"] == "Q4_1"
    assert planned(llama, "IQ4_XS")["blk.1.ffn_down.weight"] == "Q5_K"
    assert planned(llama, "IQ4_XS", importance=True)["blk.1.ffn_down.weight"] == "IQ4_XS"


def test_eight_experts() -> None:
    experts = {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 256}
    chosen = planned(random_checkpoint("mixtral", {**WIDE, **experts}), "Q4_K_M")
    assert chosen["blk.3.attn_v.weight"] == chosen["blk.3.attn_k.weight"] == "Q8_0"
    assert chosen["blk.3.attn_output.weight"] == "Q5_K"
    assert chosen["blk.3.ffn_gate_inp.weight"] == "F32"
    mxfp4 = planned(random_checkpoint("mixtral", {**WIDE, **experts}), "MXFP4_MOE")
    assert mxfp4["blk.3.ffn_down_exps.weight"] == "MXFP4"
    assert mxfp4["blk.3.attn_q.weight"] == "Q8_0"


@pytest.mark.parametrize(
    ("width", "wanted", "given"),
    [(512, "Q4_K", "Q4_K"), (896, "Q4_K", "Q5_0"), (896, "Q6_K", "Q8_0"), (896, "IQ2_S", "IQ4_NL"),
     (896, "Q2_K", "Q4_0"), (48, "Q4_K", "F16"), (48, "Q4_0", "F16"), (896, "Q5_K", "Q5_1")],
)  # fmt: skip
def test_rows_that_are_no_whole_blocks(width: int, wanted: str, given: str) -> None:
    assert fitting(matrix("a.weight", (4, width)), wanted) == given


@pytest.mark.parametrize(
    ("name", "shape", "able"),
    [
        ("blk.0.attn_q.weight", (4, 32), True),
        ("blk.0.attn_norm.weight", (32,), False),
        ("blk.0.attn_q.bias", (4, 32), False),
        ("blk.0.ffn_gate_inp.weight", (4, 32), False),
        ("blk.0.ffn_gate_exps.weight", (2, 4, 32), True),
        ("position_embd.weight", (4, 32), False),
        ("blk.0.shexp_gate.weight", (1, 32), False),
    ],
)
def test_what_may_get_fewer_bits(name: str, shape: tuple[int, ...], able: bool) -> None:
    assert quantisable(matrix(name, shape)) is able


def test_patterns_hold_before_the_mix_and_the_first_one_counts(llama: Checkpoint) -> None:
    weights = list(llama.weights.values())
    facts = facts_of(described(llama.metadata), llama.weights, importance=False)
    patterns = [("blk.1*.ffn_down", "Q8_0"), ("blk.*.ffn_down.weight", "Q5_K"), ("output_norm", "F16")]
    chosen = plan(weights, facts, encoding="Q4_0", patterns=patterns)
    assert (chosen["blk.1.ffn_down.weight"], chosen["blk.12.ffn_down.weight"]) == ("Q8_0", "Q8_0")
    assert chosen["blk.2.ffn_down.weight"] == "Q5_K"
    assert chosen["output_norm.weight"] == "F16"
    assert chosen["output.weight"] == "Q4_0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "give a mix or an encoding"),
        ({"mix": "Q4_K_M", "encoding": "Q4_K"}, "one of them"),
        ({"mix": "Q4_K_N"}, "no mix 'Q4_K_N': did you mean 'Q4_K_"),
        ({"encoding": "Q4_X"}, "no encoder for 'Q4_X'"),
        ({"encoding": "Q8_K"}, "no encoder for 'Q8_K'"),
        ({"mix": "Q4_K_M", "patterns": [("blk.*.fnn_down", "Q6_K")]}, "no weight has a name like 'blk.*.fnn_down'"),
        ({"mix": "Q4_K_M", "patterns": [("blk.*", "Q6")]}, "no encoder for 'Q6'"),
    ],
)
def test_names_that_are_none(llama: Checkpoint, arguments: dict[str, object], said: str) -> None:
    facts = facts_of(described(llama.metadata), llama.weights, importance=False)
    with pytest.raises(ValueError, match=said.replace("*", r"\*")):
        plan(list(llama.weights.values()), facts, **arguments)  # type: ignore[arg-type]


def test_what_stays_is_in_an_encoding_of_ggufs() -> None:
    """Also a router that a folder has in another: then it is in F16."""
    name, other = "blk.0.ffn_gate_inp.weight", plain_encoding(Layout(8, 32, factor="f32"))
    blocks = Weight.from_bytes(name, other, (4, 64), np.zeros(4 * 2 * other.size, np.uint8))
    facts = Facts(2, 1, 4, importance=False, tied=False)
    assert plan([matrix(name, (4, 64))], facts, encoding="Q4_K") == {name: "F32"}
    assert plan([blocks], facts, encoding="Q4_K") == {name: "F16"}
