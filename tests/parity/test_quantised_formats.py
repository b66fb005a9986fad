"""Quantised SafeTensors against the packages whose formats they are: what they write, read by sotol, is what they read.

Theirs round the products of factors and codes as it suits them, so the numbers may differ in their last bits.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sotol.formats.checkpoint_folder import read_folder
from sotol.formats.weights import Weight

torch = pytest.importorskip("torch", reason="torch is not installed: `make parity` installs it")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed: `make parity` does it")


def read(folder: Path, tensors: Mapping[str, Any], config: object, key: str = "quantization_config") -> Weight:
    """The weight "w.weight" of a folder with these tensors of torch."""
    (folder / "config.json").write_text(json.dumps({key: config}))
    safetensors.save_file({name: x.contiguous() for name, x in tensors.items()}, folder / "model.safetensors")
    weights = read_folder(folder).weights
    assert set(weights) == {"w.weight"}
    return weights["w.weight"]


def check(weight: Weight, theirs: Any, bits: int = 22) -> None:
    """The same numbers to so many bits."""
    want = theirs.to(torch.float32).numpy()
    np.testing.assert_allclose(weight.decode(), want, rtol=2.0**-bits, atol=np.abs(want).max() * 2.0**-bits)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("scale", ["float32", "bfloat16", "float8_e8m0fnu"])
def test_floats_of_8_bits(tmp_path: Path, kind: str, scale: str) -> None:
    """All codes. torch's numbers times torch's factors."""
    every = np.array([x for x in range(256) if x & 0x7F < 0x7C], np.uint8)
    codes = torch.from_numpy(np.random.default_rng(0).choice(every, (256, 384))).view(getattr(torch, kind))
    factors = torch.rand((2, 3), generator=torch.Generator().manual_seed(0)).to(getattr(torch, scale))
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    weight = read(tmp_path, {"w.weight": codes, "w.weight_scale_inv": factors}, config)
    each = factors.to(torch.float32).repeat_interleave(128, 0).repeat_interleave(128, 1)
    np.testing.assert_array_equal(weight.decode(), (codes.to(torch.float32) * each).numpy())


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mode", ["1", "2", "3", "4", "5", "6", "8", "mxfp4", "nvfp4", "mxfp8"])
def test_mlx(tmp_path: Path, mode: str, kind: str) -> None:
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    affine = mode.isdigit()
    form: dict[str, Any] = {"bits": int(mode), "group_size": 64} if affine else {"mode": mode}
    x = mx.array(np.random.default_rng(1).normal(size=(48, 256)).astype(np.float32)).astype(getattr(mx, kind))
    names = ("w.weight", "w.scales", "w.biases")
    parts = mx.quantize(x, **form)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(zip(names, parts, strict=False)))
    said = {"bits": 4, "group_size": 32} | (
        {} if affine else {"mxfp8": {"bits": 8}, "nvfp4": {"group_size": 16}}.get(mode, {})
    )
    (tmp_path / "config.json").write_text(json.dumps({"quantization": {**said, **form}}))
    wide = [part.astype(mx.float32) if affine and i else part for i, part in enumerate(parts)]
    theirs = mx.dequantize(*wide, **form) if affine else mx.dequantize(*parts, **form, dtype=mx.float32)
    check(read_folder(tmp_path).weights["w.weight"], torch.from_numpy(np.array(theirs)))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes_of_4_bits(tmp_path: Path, kind: str, nested: bool) -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    x = torch.randn((96, 320), generator=torch.Generator().manual_seed(1))
    packed, state = functional.quantize_4bit(x, quant_type=kind, compress_statistics=nested, blocksize=64)
    tensors = {"w.weight": packed} | {f"w.weight.{key}": part for key, part in state.as_dict(packed=True).items()}
    check(read(tmp_path, tensors, {"quant_method": "bitsandbytes"}), functional.dequantize_4bit(packed, state))


def test_bitsandbytes_of_8_bits(tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    x = torch.randn((96, 320), generator=torch.Generator().manual_seed(2)).to(torch.float16)
    codes, largest, _ = functional.int8_vectorwise_quant(x)
    weight = read(tmp_path, {"w.weight": codes, "w.SCB": largest}, {"quant_method": "bitsandbytes"})
    check(weight, functional.int8_vectorwise_dequant(codes, largest), bits=20)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "form", [{"nbits": n} for n in (1, 1.58, 2, 3, 4, 5, 6, 8)] + [{"view_as_float": True}], ids=str
)
def test_hqq(tmp_path: Path, form: dict[str, Any], kind: str) -> None:
    """Its layers' own tensors, against what they multiply with, in float64."""
    quantize = pytest.importorskip("hqq.core.quantize", reason="hqq is not installed")
    layer = torch.nn.Linear(256, 96, bias=False)
    config = quantize.BaseQuantizeConfig(**{"nbits": 4, "group_size": 64, "axis": 1} | form)
    made = quantize.HQQLinear(layer, config, compute_dtype=getattr(torch, kind), device="cpu")
    weight = read(tmp_path, {f"w.{key}": x for key, x in made.state_dict().items()}, {"quant_method": "hqq"})
    meta = {**made.meta, "compute_dtype": torch.float64}
    wide = {key: meta[key].to(torch.float64) for key in ("scale", "zero")}
    check(weight, quantize.Quantizer.dequantize(made.W_q, {**meta, **wide}))


COMPRESSED: dict[str, dict[str, Any]] = {
    **{f"pack-quantized {bits}": {"num_bits": bits, "group_size": 64} for bits in (2, 3, 4, 8)},
    "pack-quantized 4 asymmetric": {"num_bits": 4, "group_size": 32, "symmetric": False},
    "pack-quantized 8 rows": {"num_bits": 8, "strategy": "channel"},
    "int-quantized 8": {"num_bits": 8, "strategy": "channel"},
    "float-quantized 8": {"num_bits": 8, "type": "float", "strategy": "channel"},
    "naive-quantized 8": {"num_bits": 8, "strategy": "tensor"},
    "nvfp4-pack-quantized 4": {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
    "mxfp8-quantized 8": {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32},
    "mxfp4-pack-quantized 4": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32},
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_tensors(tmp_path: Path, name: str) -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="compressed-tensors is not installed")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    form, given = name.split()[0], COMPRESSED[name]
    args = quantization.QuantizationArgs(**given)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    rng = torch.Generator().manual_seed(3)
    x = torch.randn((96, 256), generator=rng)
    strategy = given.get("strategy", "group")
    groups = {"tensor": 1, "channel": 1}.get(strategy) or 256 // given["group_size"]
    rows = 1 if strategy == "tensor" else 96
    most = {"int": 2 ** (args.num_bits - 1), "float": 6 if args.num_bits == 4 else 448}[args.type]
    scale = x.abs().reshape(rows, groups, -1).amax(-1) / most
    state = {"weight": x, "weight_scale": scale}
    if form.startswith("nvfp4"):
        whole = 448 * 6 / x.abs().max()
        state |= {"weight_scale": (scale * whole).to(torch.float8_e4m3fn).to(torch.float32)}
        state["weight_global_scale"] = whole.reshape(1)
    if form.startswith("mx"):
        state["weight_scale"] = torch.exp2(torch.ceil(torch.log2(scale)))
    if not args.symmetric:
        state["weight_zero_point"] = torch.randint(-8, 8, (96, groups), generator=rng, dtype=torch.int8)
    compressor = compressors.BaseCompressor.get_value_from_registry(form)
    stored = compressor.compress(state, scheme)
    config = {"quant_method": "compressed-tensors", "format": form,
              "config_groups": {"group_0": json.loads(scheme.model_dump_json())}}  # fmt: skip
    weight = read(tmp_path, {f"w.{key}": part for key, part in stored.items()}, config)
    theirs = compressor.decompress(stored, scheme)["weight"]
    check(weight, theirs, bits=7 if theirs.dtype == torch.bfloat16 else 20)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("version", ["qlinear_torch", "qlinear_torch_zp"])
def test_autoround_and_so_gptq(tmp_path: Path, version: str, bits: int) -> None:
    """AutoRound's linear layers pack as GPTQModel's and AutoGPTQ's do, and run on a CPU."""
    module = pytest.importorskip(f"auto_round_extension.torch.{version}", reason="auto-round is not installed")
    rng = torch.Generator().manual_seed(6)
    layer, codes = torch.nn.Linear(256, 96, bias=False), torch.randint(0, 2**bits, (96, 256), generator=rng)
    scales = (torch.rand((96, 4), generator=rng) / 16 + 0.01).to(torch.float16).to(torch.float32)
    zeros = torch.randint(1, 2**bits, (96, 4), generator=rng)
    each = (codes - zeros.repeat_interleave(64, 1)) * scales.repeat_interleave(64, 1)
    layer.weight.data = each
    quantised = module.QuantLinear(bits, 64, 256, 96, False)
    quantised.device = "cpu"
    quantised.pack(layer, scales, zeros.to(torch.float32), device="cpu")
    form = "auto_round:auto_gptq" if version.endswith("zp") else "auto_round"
    config = {"quant_method": "auto-round", "bits": bits, "packing_format": form}
    weight = read(tmp_path, {f"w.{key}": part for key, part in quantised.state_dict().items()}, config)
    check(weight, each)
    if bits < 8:  # theirs has codes of 8 bits as int8
        x = torch.eye(256)
        check(weight, quantised.to(torch.float32)(x).T, bits=20)


def test_autoround_and_so_awq(tmp_path: Path) -> None:
    module = pytest.importorskip("auto_round.export.export_to_awq.utils", reason="auto-round is not installed")
    rng = torch.Generator().manual_seed(7)
    layer, codes = torch.nn.Linear(256, 96, bias=False), torch.randint(0, 16, (96, 256), generator=rng)
    scales = (torch.rand((4, 96), generator=rng) / 16 + 0.01).to(torch.float16).to(torch.float32)
    zeros = torch.randint(0, 16, (4, 96), generator=rng)
    each = (codes - zeros.T.repeat_interleave(64, 1)) * scales.T.repeat_interleave(64, 1)
    layer.weight.data = each
    quantised = module.WQLinear_GEMM.from_linear(layer, 4, 64, scales=scales, zeros=zeros, device="cpu")
    tensors = {f"w.{key}": part for key, part in quantised.state_dict().items()}
    weight = read(tmp_path, tensors, {"quant_method": "awq", "bits": 4, "version": "gemm"})
    check(weight, each)
    check(weight, module.dequantize_gemm(quantised.qweight, quantised.qzeros, scales, 4, 64).T)


def test_gpt_oss(tmp_path: Path) -> None:
    """transformers has the weights of GPT-OSS's experts turned."""
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4", reason="transformers is not installed")
    rng = np.random.default_rng(5)
    blocks = torch.from_numpy(rng.integers(0, 256, (3, 64, 4, 16), np.uint8))
    scales = torch.from_numpy(rng.integers(120, 134, (3, 64, 4), np.uint8))
    tensors = {f"experts.{part}_{kind}": x for part in ("gate_up_proj", "down_proj")
               for kind, x in (("blocks", blocks.clone()), ("scales", scales.clone()))}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "mxfp4"}}))
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    weights = read_folder(tmp_path).weights
    theirs = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2).numpy()
    for part, rows in (("gate", slice(0, None, 2)), ("up", slice(1, None, 2)), ("down", slice(None))):
        np.testing.assert_array_equal(weights[f"experts.{part}_proj"].decode(), theirs[:, rows])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gemmas_own(tmp_path: Path, bits: int) -> None:
    """transformers' QuantizedLinear, and its numbers."""
    gemma = pytest.importorskip("transformers.integrations.gemma_quant", reason="transformers is too old")
    layer, generator = gemma.QuantizedLinear(128, 64, num_bits=bits), torch.Generator().manual_seed(4)
    low, high = (-128, 128) if bits == 8 else (0, 256)
    layer.weight.data = torch.randint(low, high, layer.weight.shape, generator=generator).to(layer.weight.dtype)
    layer.weight_scale.data = torch.rand((64, 1), generator=generator)
    tensors = {f"w.{name}": x for name, x in layer.state_dict().items()}
    check(read(tmp_path, tensors, {"quant_method": "gemma", "num_bits": bits}), layer._dequantize_weights().detach())


@pytest.mark.parametrize("kind", ["bitlinear", "autobitlinear"])
def test_bitnet(tmp_path: Path, kind: str) -> None:
    """What transformers packs, of both linear classes."""
    bitnet = pytest.importorskip("transformers.integrations.bitnet", reason="transformers is too old")
    codes = torch.randint(-1, 2, (64, 128), generator=torch.Generator().manual_seed(5))
    scale = torch.tensor([1.75], dtype=torch.bfloat16)
    want = codes * scale.float() if kind == "autobitlinear" else codes / scale.float()
    tensors = {"w.weight": bitnet.pack_weights(codes.clone()), "w.weight_scale": scale}
    check(read(tmp_path, tensors, {"quant_method": "bitnet", "linear_class": kind}), want)
