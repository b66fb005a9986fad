"""Quantised SafeTensors: each scheme's numbers, to the bit, and what is refused."""

import contextlib
import gc
import json
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.float_codes import e4m3
from tests.support.folders import DTYPES, Typed, write_tensors
from tests.support.quantised import SCHEMES, put_together
from tests.support.quantised_floats import fp8_blocks
from tests.support.quantised_parts import Scheme, bfloats

from sotol.errors import FormatError, ModelError, SotolError
from sotol.formats.checkpoint_folder import read_folder
from sotol.formats.files import files_of
from sotol.formats.quantised.hqq import SAID
from sotol.formats.weights import Weight

NAME = "model.layers.0.mlp.up_proj"


def weight_of(folder: Path, name: str, n: int, k: int) -> tuple[Weight, Any]:
    """A matrix of a scheme as it is read, and its numbers."""
    made = SCHEMES[name].make(np.random.default_rng(n + k), n, k)
    checkpoint = put_together(folder, SCHEMES[name], {NAME: made})
    assert set(checkpoint.weights) == {f"{NAME}.weight"}
    return checkpoint.weights[f"{NAME}.weight"], made.values


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("shape", [(96, 256), (160, 384)])
def test_numbers_are_those_of_the_layout(tmp_path: Path, name: str, shape: tuple[int, int]) -> None:
    weight, values = weight_of(tmp_path, name, *shape)
    assert weight.shape == shape
    assert weight.encoding.integer is not None
    np.testing.assert_array_equal(weight.decode(), values)  # +0 is -0


@pytest.mark.parametrize("name", SCHEMES)
def test_rows_are_the_same_however_they_are_asked_for(tmp_path: Path, name: str) -> None:
    weight, _ = weight_of(tmp_path, name, 96, 256)
    whole = weight.rows()
    for first, end in ((0, 1), (3, 21), (32, 64), (95, 96), (40, 40)):
        np.testing.assert_array_equal(weight.rows(first, end), whole[first:end])


@pytest.mark.parametrize("name", SCHEMES)
def test_the_bits_in_memory_are_few_more_than_in_the_file(tmp_path: Path, name: str) -> None:
    """No weight becomes floats of 16 bits: codes and factors are kept."""
    weight, _ = weight_of(tmp_path, name, 96, 256)
    layout = weight.encoding.integer
    assert layout is not None
    bits = int(name.split(" bits")[0].split()[-1]) if " bits" in name else 8 if "8" in name or "bytes" in name else 4
    assert layout.bits == (8 if "floats" in name else bits)


def test_files_are_closed_when_the_weights_are_gone(tmp_path: Path) -> None:
    """Without the garbage collector's help: no weight is part of a circle."""
    gc.collect()
    gc.disable()
    try:
        for name in SCHEMES:
            weight, _ = weight_of(tmp_path, name, 96, 256)
            (file,) = (weakref.ref(file) for file in files_of([weight]))
            assert file() is not None
            del weight
            assert file() is None, name
    finally:
        gc.enable()


# ---- experts, several models in a repository, weights of their own forms


def test_experts_of_one_weight(tmp_path: Path) -> None:
    """[E, N, K] of FP8 with blocks, and MLX's, whose name for experts is another."""
    rng = np.random.default_rng(3)
    each = [fp8_blocks(rng, 192, 256) for _ in range(3)]

    def stacked(suffix: str) -> Typed:
        return Typed(each[0].tensors[suffix].dtype, np.stack([one.tensors[suffix].data for one in each]))

    tensors = {
        "experts.gate_up_proj": stacked(".weight"),
        "experts.gate_up_proj_scale_inv": stacked(".weight_scale_inv"),
    }
    weight = _read(tmp_path, tensors, SCHEMES["fp8 of blocks"].config)["experts.gate_up_proj"]
    assert weight.shape == (3, 192, 256)
    for i, one in enumerate(each):
        np.testing.assert_array_equal(weight.expert(i).decode(), one.values)
    np.testing.assert_array_equal(weight.rows(180, 400), weight.rows()[180:400])


def test_experts_of_a_gpt_oss(tmp_path: Path) -> None:
    """Gate and up are rows in turns, and so are their biases."""
    rng = np.random.default_rng(4)
    codes, powers = rng.integers(0, 16, (3, 64, 96)), rng.integers(120, 130, (3, 64, 3), np.uint8)
    halves = codes.reshape(3, 64, 3, 16, 2).astype(np.uint8)
    bias, values = bfloats(rng.normal(size=(3, 64)))
    tensors = {
        "mlp.experts.gate_up_proj_blocks": halves[..., 0] | halves[..., 1] << np.uint8(4),
        "mlp.experts.gate_up_proj_scales": powers,
        "mlp.experts.gate_up_proj_bias": bias,
    }
    found = _read(tmp_path, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    table = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    numbers = np.concatenate([table, -table])[codes] * np.repeat(np.exp2(powers.astype(np.float32) - 127), 32, axis=2)
    for part, begin in (("gate", 0), ("up", 1)):
        weight = found[f"mlp.experts.{part}_proj"]
        np.testing.assert_array_equal(weight.decode(), numbers[:, begin::2])
        np.testing.assert_array_equal(weight.rows(20, 70), weight.rows()[20:70])
        np.testing.assert_array_equal(found[f"mlp.experts.{part}_proj.bias"].decode(), values[:, begin::2])
    assert len(found) == 4


def test_mlx_says_the_form_of_single_weights(tmp_path: Path) -> None:
    """By name, also where the text model is one of several, whose names have another beginning."""
    rng = np.random.default_rng(5)
    usual, own = SCHEMES["mlx 4 bits of 64"].make(rng, 32, 128), SCHEMES["mlx 8 bits of 32"].make(rng, 32, 128)
    tensors = {f"language_model.model.usual{suffix}": x for suffix, x in usual.tensors.items()}
    tensors |= {f"language_model.model.own{suffix}": x for suffix, x in own.tensors.items()}
    settings = {"bits": 4, "group_size": 64, "language_model.model.own": {"bits": 8, "group_size": 32}}
    (tmp_path / "config.json").write_text(
        json.dumps({"text_config": {"model_type": "llama"}, "quantization": settings, "quantization_config": settings})
    )
    write_tensors(tmp_path / "model.safetensors", tensors)
    checkpoint = read_folder(tmp_path)
    np.testing.assert_array_equal(checkpoint.weights["model.usual.weight"].decode(), usual.values)
    np.testing.assert_array_equal(checkpoint.weights["model.own.weight"].decode(), own.values)
    assert not {"quantization", "quantization_config"} & checkpoint.metadata.keys()


def test_modelopt_says_it_in_a_file_of_its_own(tmp_path: Path) -> None:
    made = SCHEMES["modelopt nvfp4"].make(np.random.default_rng(6), 32, 64)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    said = {"quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"producer": {"name": "modelopt"}, **said}))
    write_tensors(tmp_path / "model.safetensors", {NAME + suffix: x for suffix, x in made.tensors.items()})
    np.testing.assert_array_equal(read_folder(tmp_path).weights[f"{NAME}.weight"].decode(), made.values)


def test_powers_of_two_as_factors_of_blocks(tmp_path: Path) -> None:
    """DeepSeek-V3.1's: E8M0, the least of which is 2^-127."""
    rng = np.random.default_rng(7)
    codes, powers = rng.integers(0x30, 0x40, (128, 256), np.uint8), np.array([[0, 130]], np.uint8)
    tensors = {"w.weight": Typed("F8_E4M3", codes), "w.weight_scale_inv": Typed("F8_E8M0", powers)}
    config = {**SCHEMES["fp8 of blocks"].config, "scale_fmt": "ue8m0"}
    factors = np.repeat(np.array([[2.0**-127, 8.0]]), 128, axis=1)
    want = (e4m3(codes) * factors).astype(np.float32)
    np.testing.assert_array_equal(_read(tmp_path, tensors, config)["w.weight"].decode(), want)


# ---- what is refused


@pytest.mark.parametrize(
    ("suffix", "tensor", "message"),
    [
        (".axis", np.int32(0), "its groups lie along outputs; sotol runs those along inputs"),
        (".quant_zero", np.uint8(1), "factors are quantised themselves"),
        (".nbits", np.int32(5), "has 5 bits, packing '4bit_u8' and groups of 64, for a weight of 96 x 256"),
        (".group_size", np.int32(96), "and groups of 96, for a weight of 96 x 256"),
        (".group_size", np.int32(128), "has 12288 bytes, and should have 96 rows of 128 words|shape"),
        (".shape", np.array([95, 256]), "has 12288 bytes, and should have 190 rows of 64 words"),
        (".packing", np.frombuffer(b"4bit_i4", np.uint8), "packing '4bit_i4'"),
        (".nbits", np.int32(3), "has a code of more than 3 bits"),
        (".nbits", np.float32(np.nan), "has 1 numbers, not a finite one"),
        (".axis", np.array([1, 1], np.int32), "has 2 numbers, not a finite one"),
    ],
)
def test_an_hqq_weight_that_is_none(tmp_path: Path, suffix: str, tensor: object, message: str) -> None:
    scheme = SCHEMES["hqq 4 bits of 64"]
    made = scheme.make(np.random.default_rng(12), 96, 256)
    tensors = {"w" + name: x for name, x in {**made.tensors, suffix: tensor}.items()}
    with pytest.raises(FormatError, match=message):
        _read(tmp_path, tensors, scheme.config)["w.weight"].decode()


def test_three_numbers_of_hqq_have_two_bits(tmp_path: Path) -> None:
    scheme = SCHEMES["hqq 2 bits of 64"]
    made = scheme.make(np.random.default_rng(13), 96, 256)
    tensors = {"w" + name: x for name, x in {**made.tensors, ".nbits": np.float32(1.58)}.items()}
    np.testing.assert_array_equal(_read(tmp_path, tensors, scheme.config)["w.weight"].decode(), made.values)


def _read(
    folder: Path, tensors: Mapping[str, Any], config: object, key: str = "quantization_config"
) -> Mapping[str, Weight]:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", key: config}))
    write_tensors(folder / "model.safetensors", tensors)
    return read_folder(folder).weights


@pytest.mark.parametrize("name", SCHEMES)
def test_a_tensor_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    """No weight is read without its factors, nor without anything else that it can't do without."""
    scheme = SCHEMES[name]
    made = scheme.make(np.random.default_rng(8), 96, 256)
    optional = (
        ".g_idx",
        ".weight_g_idx",
        ".input_scale",
        ".input_global_scale",
        ".input_activation_scale",
        ".weight_format",
        ".weight_zero_point",
        *(f".{key}" for key in (*SAID, "quant_scale", "quant_zero")),
    )
    # By these a weight is recognised. Without one, there are only tensors that no architecture has a place for.
    marks = (".weight", ".scales", ".qweight", ".SCB", ".weight_packed", ".weight_scale_2", ".W_q")
    for lacking in made.tensors.keys() - set(optional):
        tensors = {"w" + suffix: x for suffix, x in made.tensors.items() if suffix != lacking}
        if lacking in marks or "quant_state" in lacking:
            left = dict[str, Weight]()
            with contextlib.suppress(FormatError):
                left = dict(_read(tmp_path, tensors, scheme.config, scheme.key))
            assert "w.weight" not in left or left["w.weight"].shape != (96, 256)
            continue
        with pytest.raises(FormatError, match=r"'w\."):
            _read(tmp_path, tensors, scheme.config, scheme.key)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_factor_that_is_one_too_many_is_named(tmp_path: Path, name: str) -> None:
    scheme = SCHEMES[name]
    made = scheme.make(np.random.default_rng(9), 96, 256)
    factors = next(
        suffix
        for suffix in (".weight.absmax", ".SCB", ".scales", ".weight_scale_inv", ".weight_scale", ".scale")
        if suffix in made.tensors
    )
    tensor = made.tensors[factors]
    data = tensor.data if isinstance(tensor, Typed) else tensor
    more = np.concatenate([np.atleast_1d(data), np.atleast_1d(data)[:1]])
    tensors = {"w" + suffix: x for suffix, x in made.tensors.items()}
    tensors["w" + factors] = Typed(tensor.dtype, more) if isinstance(tensor, Typed) else more
    with pytest.raises(FormatError, match="tensor 'w"):
        _read(tmp_path, tensors, scheme.config, scheme.key)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_setting_that_sotol_does_not_know_is_named(tmp_path: Path, name: str) -> None:
    scheme = SCHEMES[name]
    made = scheme.make(np.random.default_rng(10), 96, 256)
    tensors = {"w" + suffix: x for suffix, x in made.tensors.items()}
    with pytest.raises(
        ModelError, match=r"does not know what 'rotation' \(of 1 such keys\) means|rotation is 'hadamard'"
    ):
        _read(tmp_path, tensors, {**scheme.config, "rotation": "hadamard"}, scheme.key)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("awq", {"version": "gemv"}, "version is 'gemv'; sotol supports 'gemm'"),
        ("awq", {"bits": 3}, "bits is 3; sotol supports 4"),
        ("gptq 4 bits", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'; sotol supports 'gptq'"),
        ("gptq 4 bits", {"bits": 7}, "bits is 7; sotol supports 2, 3, 4, 5, 6, 8"),
        ("auto-round", {"packing_format": "auto_round:fp8_static"}, "packing_format is 'auto_round:fp8_static'"),
        ("fp8 of blocks", {"weight_block_size": [128]}, "not the rows and columns of a block"),
        ("fp8 of blocks", {"fmt": "e3m4"}, "fmt is 'e3m4'"),
        ("mlx 4 bits of 64", {"bits": 7}, "bits is 7 and group_size 64; sotol supports bits of 1, 2, 3, 4"),
        ("mlx 4 bits of 64", {"mode": "nf4"}, "mode is 'nf4'"),
        ("mlx mxfp4", {"group_size": 64}, "mxfp4 has 4 bits and groups of 32, not 4 and 64"),
        ("modelopt nvfp4", {"quant_algo": "W4A8_AWQ"}, "quant_algo is 'W4A8_AWQ'"),
        ("gemma 4 bits", {"num_bits": 3, "module_quant_configs": {}}, "w has 3 bits, and is packed"),
        ("gemma 4 bits", {"module_quant_configs": {"(a+)+$": {"num_bits": 2}}}, r"pattern '\(a\+\)\+\$': sotol reads"),
        ("gemma 4 bits", {"module_quant_configs": {"[b-a]": {"num_bits": 2}}}, "sotol reads simpler ones"),
        ("gemma 4 bits", {"module_quant_configs": {r"\d+\d+x": {"num_bits": 2}}}, "sotol reads simpler ones"),
        ("gemma 4 bits", {"module_quant_configs": {"a" * 201: {"num_bits": 2}}}, "sotol reads simpler ones"),
        ("gemma 4 bits", {"module_quant_configs": {str(i): {} for i in range(101)}}, "has 101 patterns"),
        ("gemma 4 bits", {"module_quant_configs": {"w": {"group": 2}}}, "does not know what 'group'"),
        ("gemma 4 bits", {"module_quant_configs": {"w": 4}}, "module_quant_configs.w is 4, not an object|w is 4, not"),
        ("bitnet 2 bits", {"quantization_mode": "online"}, "quantization_mode is 'online'; sotol supports 'offline'"),
        ("quark fp8", {"algo_config": [{"name": "quarot"}]}, "name is 'quarot'; sotol supports 'gptq', 'awq'"),
        ("quark fp8", {"algo_config": ["quarot"]}, "not a list of objects"),
        (
            "quark fp8",
            {"global_quant_config": {"weight": {"dtype": "int4"}}},
            "dtype is 'int4'; sotol supports 'fp8_e4m3'",
        ),
        ("quark mxfp4", {"export": {"weight_format": "fake_quantized"}}, "weight_format is 'fake_quantized'"),
        ("bitnet 2 bits", {"use_rms_norm": True}, "use_rms_norm is True"),
        ("compressed 4 bits", {"format": "marlin-24"}, "format is 'marlin-24'"),
        ("compressed 4 bits", {"transform_config": {"R1": {}}}, "neither sparse nor transformed"),
        (
            "awq",
            {"quant_method": "aqlm"},
            "its weights are quantized by 'aqlm'; sotol supports auto-round, awq, bitsandbytes",
        ),
        ("awq", {"quant_method": ["awq"]}, "its weights are quantized by"),
    ],
)
def test_a_setting_that_sotol_does_not_support_is_named(
    tmp_path: Path, name: str, changes: Mapping[str, object], message: str
) -> None:
    scheme: Scheme = SCHEMES[name]
    made = scheme.make(np.random.default_rng(11), 96, 256)
    tensors = {"w" + suffix: x for suffix, x in made.tensors.items()}
    with pytest.raises(ModelError, match=message):
        _read(tmp_path, tensors, {**scheme.config, **changes}, scheme.key)


@pytest.mark.parametrize("config", [[], "gptq", 4, {}, {"quant_method": None}])
def test_settings_that_are_no_settings(tmp_path: Path, config: object) -> None:
    with pytest.raises(ModelError, match="quantization_config"):
        _read(tmp_path, {"w": np.ones(2, np.float32)}, config)


RESHAPED: dict[str, Callable[[Any], Any]] = {
    "flat": lambda x: x.reshape(-1),
    "turned": lambda x: np.ascontiguousarray(x.T),
    "one of many": lambda x: x[None],
    "a column": lambda x: x.reshape(-1, 1),
    "half": lambda x: x[: max(1, len(x) // 2)] if x.ndim else x,
    "twice": lambda x: np.concatenate([np.atleast_1d(x)] * 2),
    "one": lambda x: x.reshape(-1)[:1],
    "zeros": np.zeros_like,
    "ones": lambda x: np.full_like(x, -1 if x.dtype.kind == "i" else 255 if x.dtype.kind == "u" else np.nan),
}
KINDS = {1: ("I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "BOOL"), 2: ("F16", "BF16", "I16"), 4: ("F32", "I32", "U32")}


@pytest.mark.parametrize("name", SCHEMES)
def test_whatever_a_tensor_is_there_is_one_clear_error(tmp_path: Path, name: str) -> None:
    """Or a weight whose rows can be read: of other shapes and types than the layout's, and other numbers."""
    scheme, refused = SCHEMES[name], 0
    made = scheme.make(np.random.default_rng(13), 64, 128)
    for suffix, tensor in made.tensors.items():
        data = np.asarray(tensor.data if isinstance(tensor, Typed) else tensor)
        own = tensor.dtype if isinstance(tensor, Typed) else DTYPES[data.dtype.name]
        changed = [Typed(own, change(np.atleast_1d(data))) for change in RESHAPED.values()]
        changed += [Typed(kind, data) for kind in KINDS.get(data.dtype.itemsize, ())]
        for other in changed:
            tensors = {"w" + key: x for key, x in made.tensors.items()} | {"w" + suffix: other}
            try:
                for weight in _read(tmp_path, tensors, scheme.config, scheme.key).values():
                    weight.rows()
            except SotolError:
                refused += 1
    assert refused > 5


def test_numbers_that_no_factor_may_be(tmp_path: Path) -> None:
    """What a file can't be refused for before its numbers are read is an error when they are."""
    for name, suffix, value, message in (
        ("modelopt nvfp4", ".weight_scale", 0x81, "negative or not a number"),
        ("fp8 of blocks", ".weight", 0xFF, "a number that is not finite"),
        ("fp8 of rows", ".weight", 0x7C, "a number that is not finite"),
        ("mlx mxfp8", ".weight", 0x7F, "a number that is not finite"),
        ("mlx mxfp4", ".scales", 255, "not a number"),
        ("mlx mxfp8", ".scales", 255, "not a number"),
        ("gptq 8 bits", ".qzeros", 255, "a zero point of 256"),
        ("bitnet 2 bits", ".weight", 12, "has a code of 3"),
    ):
        scheme = SCHEMES[name]
        made = scheme.make(np.random.default_rng(12), 96, 256)
        tensor = made.tensors[suffix]
        data = np.full_like(tensor.data if isinstance(tensor, Typed) else tensor, 0).view(np.uint8) + np.uint8(value)
        data = data.view(tensor.data.dtype if isinstance(tensor, Typed) else tensor.dtype)
        tensors = {"w" + key: x for key, x in made.tensors.items()}
        tensors["w" + suffix] = Typed(tensor.dtype, data) if isinstance(tensor, Typed) else data
        weight = _read(tmp_path, tensors, scheme.config, scheme.key)["w.weight"]
        with pytest.raises(FormatError, match=message):
            weight.decode()
