"""The weights of experts, in all forms that files have them in: the same numbers as one weight for each projection."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.checkpoints import random_checkpoint
from tests.support.programs import same_programs

from sotol.errors import ModelError
from sotol.formats import read_gguf, write_gguf
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import trace_model
from sotol.models.binding.expert_weights import whole_experts
from sotol.quant import Float32Array

EXPERTS, WIDTH, INPUTS = 3, 4, 64
LAYER = "model.layers.7.mlp.experts"


def numbers(*shape: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def weight(name: str, values: Float32Array, encoding: str = "F32") -> Weight:
    return Weight.from_values(name, values, encoding)


def whole(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    return whole_experts(Path("m.gguf"), weights)


def gathered(weights: Mapping[str, Weight]) -> dict[str, Float32Array]:
    """The numbers of the experts' weights, by name."""
    return {name: found.decode() for name, found in whole(weights).items()}


@pytest.mark.parametrize("encoding", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize(
    ("single", "name"),
    [
        (LAYER + ".{}.gate_proj", LAYER + ".gate_proj"),
        ("model.layers.7.block_sparse_moe.experts.{}.w1", LAYER + ".gate_proj"),
        ("model.layers.7.block_sparse_moe.experts.{}.w2", LAYER + ".down_proj"),
        ("model.layers.7.block_sparse_moe.experts.{}.w3", LAYER + ".up_proj"),
        ("blk.7.ffn_up.{}", "blk.7.ffn_up_exps"),
    ],
)
def test_a_weight_for_each_expert(single: str, name: str, encoding: str) -> None:
    """In any order of the names, 10 after 9."""
    values = numbers(11, WIDTH, INPUTS)
    each = {single.format(i): weight("w", values[i], encoding) for i in range(11)}
    found = whole({key: each[key] for key in sorted(each)})
    assert list(found) == [name]
    np.testing.assert_array_equal(found[name].decode(), weight("w", values, encoding).decode())
    np.testing.assert_array_equal(found[name].expert(9).decode(), weight("w", values[9], encoding).decode())


@given(st.integers(0, EXPERTS * WIDTH), st.integers(0, EXPERTS * WIDTH))
def test_any_run_of_rows_can_be_asked_for(one: int, other: int) -> None:
    values, (first, end) = numbers(EXPERTS, WIDTH, INPUTS), sorted((one, other))
    each = {f"{LAYER}.{i}.up_proj": weight("w", values[i], "Q4_0") for i in range(EXPERTS)}
    rows = whole(each)[f"{LAYER}.up_proj"].rows(first, end)
    np.testing.assert_array_equal(rows, weight("w", values, "Q4_0").rows()[first:end])


@pytest.mark.parametrize(
    ("joined", "gate", "up"),
    [
        (LAYER + ".gate_up_proj", LAYER + ".gate_proj", LAYER + ".up_proj"),
        ("blk.7.ffn_gate_up_exps", "blk.7.ffn_gate_exps", "blk.7.ffn_up_exps"),
    ],
)
@pytest.mark.parametrize("encoding", ["F32", "BF16", "Q8_0"])
def test_gate_and_up_in_one(joined: str, gate: str, up: str, encoding: str) -> None:
    values, biases = numbers(EXPERTS, 2 * WIDTH, INPUTS), numbers(EXPERTS, 2 * WIDTH, seed=1)
    found = gathered({joined: weight("w", values, encoding), joined + ".bias": weight("b", biases)})
    assert found.keys() == {gate, up, gate + ".bias", up + ".bias"}
    stored = weight("w", values, encoding).decode()
    for name, half in ((gate, slice(0, WIDTH)), (up, slice(WIDTH, 2 * WIDTH))):
        np.testing.assert_array_equal(found[name], stored[:, half])
        np.testing.assert_array_equal(found[name + ".bias"], biases[:, half])


@pytest.mark.parametrize("encoding", ["F32", "BF16"])
def test_transposed_and_in_turns(encoding: str) -> None:
    """GPT-OSS's: inputs first, gate and up by turns."""
    both, down = numbers(EXPERTS, INPUTS, 2 * WIDTH), numbers(EXPERTS, WIDTH, INPUTS, seed=1)
    biases, of_down = numbers(EXPERTS, 2 * WIDTH, seed=2), numbers(EXPERTS, INPUTS, seed=3)
    given_ = {
        f"{LAYER}.gate_up_proj": weight("w", both, encoding),
        f"{LAYER}.gate_up_proj_bias": weight("b", biases, encoding),
        f"{LAYER}.down_proj": weight("d", down, encoding),
        f"{LAYER}.down_proj_bias": weight("e", of_down, encoding),
    }
    found, stacks = gathered(given_), whole(given_)
    stored = {name: x.decode() for name, x in given_.items()}
    assert found.keys() == {f"{LAYER}.{part}_proj{b}" for part in ("gate", "up", "down") for b in ("", ".bias")}
    for first, part in enumerate(("gate", "up")):
        want = stored[f"{LAYER}.gate_up_proj"][:, :, first::2].transpose(0, 2, 1)
        np.testing.assert_array_equal(found[f"{LAYER}.{part}_proj"], want)
        np.testing.assert_array_equal(
            found[f"{LAYER}.{part}_proj.bias"], stored[f"{LAYER}.gate_up_proj_bias"][:, first::2]
        )
    np.testing.assert_array_equal(found[f"{LAYER}.down_proj"], stored[f"{LAYER}.down_proj"].transpose(0, 2, 1))
    np.testing.assert_array_equal(found[f"{LAYER}.down_proj.bias"], stored[f"{LAYER}.down_proj_bias"])
    some = stacks[f"{LAYER}.up_proj"]
    np.testing.assert_array_equal(some.rows(WIDTH - 1, WIDTH + 2), some.rows()[WIDTH - 1 : WIDTH + 2])
    assert some.rows(2, 2).shape == (0, some.row_bytes)


@pytest.mark.parametrize("encoding", ["F32", "BF16"])
def test_transposed_without_biases(encoding: str) -> None:
    """Llama 4's: inputs first, all of gate and then all of up."""
    layer = LAYER.replace("mlp", "feed_forward")
    both, down = numbers(EXPERTS, INPUTS, 2 * WIDTH), numbers(EXPERTS, WIDTH, INPUTS, seed=1)
    given_ = {
        f"{layer}.gate_up_proj": weight("w", both, encoding),
        f"{layer}.down_proj": weight("d", down, encoding),
    }
    router = layer.replace("experts", "router")
    found = gathered(given_ | {router: weight("r", numbers(EXPERTS, INPUTS))})
    del found[router]
    stored = {name: x.decode().transpose(0, 2, 1) for name, x in given_.items()}
    assert found.keys() == {f"{layer}.{part}_proj" for part in ("gate", "up", "down")}
    np.testing.assert_array_equal(found[f"{layer}.gate_proj"], stored[f"{layer}.gate_up_proj"][:, :WIDTH])
    np.testing.assert_array_equal(found[f"{layer}.up_proj"], stored[f"{layer}.gate_up_proj"][:, WIDTH:])
    np.testing.assert_array_equal(found[f"{layer}.down_proj"], stored[f"{layer}.down_proj"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({1: None}, r"the weight of expert 1 is missing of 'model\.layers\.7\.mlp\.experts\.gate_proj'$"),
        ({2: weight("w", numbers(5, INPUTS))}, r"expert 2 of '.*gate_proj' differs from expert 0 in its shape or"),
        ({2: weight("w", numbers(WIDTH, INPUTS), "F16")}, r"expert 2 of '.*gate_proj' differs from expert 0"),
    ],
)
def test_experts_that_do_not_belong_together(changes: dict[int, Weight | None], said: str) -> None:
    each = {i: weight("w", numbers(WIDTH, INPUTS)) for i in range(EXPERTS)} | changes
    named = {f"{LAYER}.{i}.gate_proj": found for i, found in each.items() if found is not None}
    with pytest.raises(ModelError, match=said):
        whole(named)


def test_experts_that_are_there_twice() -> None:
    values = numbers(1, WIDTH, INPUTS)
    with pytest.raises(ModelError, match=r"weights of experts are there twice: 'blk\.7\.ffn_up_exps'"):
        whole({"blk.7.ffn_up_exps": weight("w", values), "blk.7.ffn_up.0": weight("w", values[0])})


def test_joined_biases_that_can_not_be_cut() -> None:
    joined = {"blk.0.ffn_gate_up_exps.bias": weight("b", numbers(2, 32), "Q8_0")}
    with pytest.raises(ModelError, match=r"weight b is Q8_0: it can't be cut into its parts"):
        whole(joined)


@pytest.mark.parametrize("joined", [numbers(EXPERTS, 7, INPUTS), numbers(INPUTS)])
def test_what_can_not_be_two_halves_is_left(joined: Float32Array) -> None:
    """Whoever binds the weights names it."""
    assert whole({"blk.0.ffn_gate_up_exps": weight("w", joined)}).keys() == {"blk.0.ffn_gate_up_exps"}


@pytest.mark.parametrize("architecture", ["qwen3moe", "gpt-oss", "mixtral"])
def test_a_file_in_any_form_is_the_same_model(architecture: str, tmp_path: Path) -> None:
    plain = random_checkpoint(architecture, optional=True)
    forms: list[dict[str, Weight]] = [dict(plain.weights), dict(plain.weights)]
    for name, found in plain.weights.items():
        if "_exps" in name and "bias" not in name:
            del forms[0][name]
            for i, values in enumerate(found.decode()):
                single = name.replace("_exps", f".{i}")
                forms[0][single] = weight(single, values)
        if "ffn_gate_exps" in name:
            up, joined = name.replace("gate", "up"), name.replace("gate", "gate_up")
            values = np.concatenate([found.decode(), plain.weights[up].decode()], axis=1)
            del forms[1][name], forms[1][up]
            forms[1][joined] = weight(joined, values)
    for number, weights in enumerate(forms):
        path = tmp_path / f"{number}.gguf"
        write_gguf(path, plain.metadata, weights.values())
        same_programs(trace_model(read_gguf(path), 32), trace_model(plain, 32))


def test_a_missing_expert_is_named_with_its_file() -> None:
    plain = random_checkpoint("mixtral")
    weights = {**plain.weights, "blk.0.ffn_up.1.weight": weight("x", numbers(2, 32))}
    with pytest.raises(ModelError, match=r"^random\.gguf: the weight of expert 0 is missing of 'blk\.0\.ffn_up_exps'$"):
        trace_model(
            Checkpoint(
                plain.path, plain.metadata, {n: w for n, w in weights.items() if n != "blk.0.ffn_up_exps.weight"}
            ),
            32,
        )
