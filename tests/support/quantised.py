"""Quantised SafeTensors as their published layouts say, written here bit by bit, and the numbers that they stand for.

A scheme gives the tensors of one matrix, by what follows the matrix' name, and its numbers in float32: random codes and
factors, since it is the layout that is tested. Nothing of sotol's reading is used.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.support.float_codes import FP4, NF4
from tests.support.folders import Typed, tiny_folder, write_tensors
from tests.support.quantised_floats import (
    compressed_mxfp4,
    compressed_nvfp4,
    fp8_blocks,
    fp8_powers,
    fp8_rows,
    fp8_tensor,
    mlx_mxfp4,
    mlx_mxfp8,
    mlx_nvfp4,
    modelopt_nvfp4,
    quark,
    quark_mxfp4,
)
from tests.support.quantised_parts import Array, Made, Scheme, bfloats, pack, scales

from sotol.formats.checkpoint_folder import read_folder
from sotol.formats.weights import Checkpoint

__all__ = ["FP8", "SCHEMES", "gemma", "gptq", "model", "put_together"]

# The linear maps of a llama's layer, as [outputs, inputs]: 128 channels, 4 heads of 32, 2 of keys, 256 wide.
LINEAR = {
    "self_attn.q_proj": (128, 128), "self_attn.k_proj": (64, 128), "self_attn.v_proj": (64, 128),
    "self_attn.o_proj": (128, 128), "mlp.gate_proj": (256, 128), "mlp.up_proj": (256, 128), "mlp.down_proj": (128, 256),
}  # fmt: skip


# ---- MLX


def mlx(bits: int, group: int, kind: str = "bf16") -> Scheme:
    """The affine mode."""

    def make(rng: np.random.Generator, n: int, k: int) -> Made:
        codes = rng.integers(0, 1 << bits, (n, k))
        sizes = scales(rng, n, k // group, each=max(2**bits / 3.5, 0.5), width=k)
        (tensor, scale), (second, bias) = (
            bfloats(x) if kind == "bf16" else (x.astype(kind), x.astype(kind))
            for x in (sizes, -sizes * np.float32((2**bits - 1) / 2))
        )
        numbers = codes.reshape(n, -1, group).astype(np.float32)
        values = numbers * scale.astype(np.float32)[..., None] + bias.astype(np.float32)[..., None]
        words = pack(codes, bits).view(np.uint32)
        return Made({".weight": words, ".scales": tensor, ".biases": second}, values.reshape(n, k))

    return Scheme(make, {"bits": bits, "group_size": group}, "quantization")


def metal(bits: int, group: int) -> Scheme:
    """transformers' own name for the affine mode's biases, and its settings."""
    of = mlx(bits, group)

    def make(rng: np.random.Generator, n: int, k: int) -> Made:
        made = of.make(rng, n, k)
        tensors = {name.replace(".biases", ".qbiases"): x for name, x in made.tensors.items()}
        return Made(tensors, made.values)

    said = {"quant_method": "metal", "modules_to_not_convert": None, "dequantize": False}
    return Scheme(make, {**said, "bits": bits, "group_size": group})


# ---- GPTQ, AWQ


def grouped(rng: np.random.Generator, n: int, k: int, bits: int, group: int) -> tuple[Array, Array, Array]:
    """Codes [N, K], zero points and factors (float16) [groups, N]."""
    zeros = rng.integers(1, 1 << bits, (k // group, n))
    factors = scales(rng, k // group, n, each=max(2**bits / 3.5, 0.8), width=k).astype(np.float16)
    return rng.integers(0, 1 << bits, (n, k)), zeros, factors


def ungrouped(codes: Array, zeros: Array, factors: Array, groups: Array) -> npt.NDArray[np.float32]:
    """factor * (code - zero), the group of each input given."""
    values: npt.NDArray[np.float32] = (codes - zeros.T[:, groups]).astype(np.float32) * factors.T[:, groups].astype(
        np.float32
    )
    return values


def gptq(bits: int, group: int, *, shuffled: bool = False, version: int = 1, seed: int = 0) -> Scheme:
    """AutoGPTQ's and GPTQModel's; shuffled: with act-order, which is the seed's."""

    def make(rng: np.random.Generator, n: int, k: int) -> Made:
        size = k if group < 0 else group
        codes, zeros, factors = grouped(rng, n, k, bits, size)
        groups = np.arange(k, dtype=np.int32) // size
        if shuffled:  # the same for all maps of the same inputs, as they share what decides it
            groups = np.random.default_rng(k + seed).permutation(groups)
        tensors = {
            ".qweight": np.ascontiguousarray(pack(codes, bits).view(np.int32).T),
            ".qzeros": pack(zeros - (version == 1), bits).view(np.int32),
            ".scales": factors,
            ".g_idx": groups,
        }
        return Made(tensors, ungrouped(codes, zeros, factors, groups))

    form = {"checkpoint_format": "gptq"} if version == 1 else {"checkpoint_format": "gptq_v2"}
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": shuffled, "sym": False, **form}
    return Scheme(make, config)


def awq(rng: np.random.Generator, n: int, k: int) -> Made:
    codes, zeros, factors = grouped(rng, n, k, 4, 64)

    def words(numbers: Array) -> npt.NDArray[np.int32]:
        """[rows, N] -> [rows, N / 8]: nibble i of a word has the output order[i] of eight."""
        eight = numbers.reshape(len(numbers), -1, 8).astype(np.uint32)
        packed = np.zeros(eight.shape[:2], np.uint32)
        for i, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
            packed |= eight[..., output] << np.uint32(4 * i)
        return packed.view(np.int32)

    tensors = {".qweight": words(codes.T), ".qzeros": words(zeros), ".scales": factors}
    return Made(tensors, ungrouped(codes, zeros, factors, np.arange(k) // 64))


# ---- compressed-tensors


def compressed(bits: int, group: int, *, zeros: bool = False, packed: bool = True, shuffled: bool = False) -> Scheme:
    """Whole numbers around zero, or with zero points; in words or bytes. group: 0 for a factor for each row.

    shuffled: with act-order.
    """

    def make(rng: np.random.Generator, n: int, k: int) -> Made:
        size, half = group or k, 1 << (bits - 1)
        codes = rng.integers(-half, half, (n, k))
        points = rng.integers(-half, half, (n, k // size)) if zeros else np.zeros((n, k // size), np.int64)
        tensor, factors = bfloats(scales(rng, n, k // size, each=2**bits / 3.5, width=k))
        groups = np.arange(k, dtype=np.int32) // size
        tensors: dict[str, Any] = {".weight_scale": tensor}
        if shuffled:
            groups = tensors[".weight_g_idx"] = np.random.default_rng(k).permutation(groups)
        if packed:
            tensors |= {".weight_packed": pack(codes + half, bits).view(np.int32), ".weight_shape": np.array([n, k])}
            if zeros:
                along = pack((points + half).T, bits).view(np.int32)  # along N
                tensors[".weight_zero_point"] = np.ascontiguousarray(along.T)
        else:
            tensors[".weight"] = codes.astype(np.int8)
            if zeros:
                tensors[".weight_zero_point"] = points.astype(np.int8)
        return Made(tensors, (codes - points[:, groups]).astype(np.float32) * factors[:, groups])

    form = "pack-quantized" if packed else "int-quantized"
    return Scheme(make, _compressed_config(form, bits, "int"))


def _compressed_config(form: str, bits: int, kind: str, **more: object) -> dict[str, object]:
    weights = {"num_bits": bits, "type": kind, "strategy": "group", "symmetric": True, "dynamic": False, **more}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups, "ignore": ["lm_head"],
            "quantization_status": "compressed"}  # fmt: skip


# ---- bitsandbytes


def four_bits(kind: str, *, nested: bool, block: int = 64) -> Scheme:
    """NF4 or FP4."""

    def make(rng: np.random.Generator, n: int, k: int) -> Made:
        codes, table = rng.integers(0, 16, (n, k)), {"nf4": NF4, "fp4": FP4}[kind]
        count = n * k // block
        absmax: Array = np.abs(scales(rng, count, each=0.5, width=k))
        said: dict[str, object] = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": [n, k]}
        tensors: dict[str, Any] = {".weight.absmax": absmax}
        if nested:
            numbers, own = np.linspace(-1, 1, 256, dtype=np.float32), rng.integers(0, 256, count, np.uint8)
            factors = np.full(-(-count // 256), 0.02, np.float32)
            absmax = numbers[own] * np.repeat(factors, 256)[:count] + np.float32(0.125)
            tensors = {".weight.absmax": own, ".weight.nested_absmax": factors, ".weight.nested_quant_map": numbers}
            said |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.125}
        flat = codes.reshape(-1).astype(np.uint8)
        blob = np.frombuffer(json.dumps(said).encode(), np.uint8)
        tensors |= {
            ".weight": (flat[0::2] << np.uint8(4) | flat[1::2])[:, None],
            ".weight.quant_map": table,
            f".weight.quant_state.bitsandbytes__{kind}": blob,
        }
        return Made(tensors, table[codes] * absmax[np.arange(n * k).reshape(n, k) // block])

    return Scheme(make, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind})


def eight_bits(rng: np.random.Generator, n: int, k: int) -> Made:
    """LLM.int8()."""
    codes, largest = rng.integers(-127, 128, (n, k), np.int8), np.abs(scales(rng, n, each=0.5, width=k))
    values = codes.astype(np.float32) * (largest / np.float32(127)).astype(np.float32)[:, None]
    return Made({".weight": codes, ".SCB": largest, ".weight_format": np.uint8(0)}, values)


# ---- HQQ


def hqq(bits: int, group: int, *, kind: str = "bf16", words: int = 0, floats: bool = False) -> Scheme:
    """hqq's HQQLinear, axis 1. words: the bits of a code in words, if they are more; floats: words seen as floats."""
    stored = words or bits

    def make(rng: np.random.Generator, n: int, k: int) -> Made:
        codes, count = rng.integers(0, 1 << bits, (n * k // group, group)), n * k // group
        sizes = scales(rng, count, 1, each=max(2**bits / 3.5, 0.5), width=k)
        points = rng.uniform(0, (1 << bits) - 1, (count, 1)).astype(np.float32)
        (tensor, scale), (second, zero) = (
            bfloats(x) if kind == "bf16" else (x.astype(kind), x.astype(kind)) for x in (sizes, points)
        )
        each = 32 // stored if stored == 3 else 8 // stored
        rows = -(-count // each)
        padded = np.zeros((rows * each, group), np.int64)
        padded[:count] = codes
        packed = np.zeros((rows, group), np.int64)
        for i in range(each):  # the first rows in the highest bits
            packed |= padded[i * rows : (i + 1) * rows] << (stored * (each - 1 - i))
        whole: Any = packed.astype(np.int32 if stored == 3 else np.uint8)
        text = {8: "8bit_u8", 4: "4bit_u8", 3: "3bit_32", 2: "2bit_u8", 1: "1bit_u8"}[stored]
        tensors = {
            ".W_q": Typed("BF16", whole.view(np.uint16)) if floats else whole,
            ".scale": tensor, ".zero": second, ".shape": np.array([n, k]),
            ".packing": np.frombuffer(text.encode(), "u1"),
            **{f".{key}": np.int32(x) for key, x in (("nbits", bits), ("group_size", group), ("axis", 1))},
            **{f".{key}": np.uint8(0) for key in ("quant_scale", "quant_zero", "offload_meta", "round_zero")},
            **{f".{key}": np.uint8(1) for key in ("encoded_state_dict", "stores_quant_config", "optimize")},
            ".compute_dtype": np.frombuffer(b"torch.bfloat16", np.uint8), ".view_as_float": np.uint8(floats),
        }  # fmt: skip
        values = (codes - zero.astype(np.float64)) * scale.astype(np.float64)
        return Made(tensors, values.reshape(n, k).astype(np.float32))

    weights = {"nbits": bits, "group_size": group, "axis": 1, "channel_wise": True}
    said = {"weight_quant_params": weights, "scale_quant_params": None, "zero_quant_params": None}
    return Scheme(make, {"quant_method": "hqq", "quant_config": said, "skip_modules": ["lm_head"]})


# ---- Gemma's, BitNet's


def gemma(bits: int) -> Scheme:
    """A factor for each row; factors of activations are not used."""

    def make(rng: np.random.Generator, n: int, k: int) -> Made:
        codes, half = rng.integers(0, 1 << bits, (n, k)), 1 << (bits - 1)
        factors = scales(rng, n, 1, each=max(2**bits / 3.5, 1), width=k)
        weight = (codes - half).astype(np.int8) if bits == 8 else pack(codes, bits)
        tensors = {".weight": weight, ".weight_scale": factors, ".input_activation_scale": np.float32(0.5)}
        return Made(tensors, (codes - half).astype(np.float32) * factors)

    said = {"num_bits": 4, "module_quant_configs": {r"layers\.\d+\.": {"num_bits": bits}, "^w$": {"num_bits": bits}}}
    return Scheme(make, {"quant_method": "gemma", "quantize_embeddings": True, **said})


def bitnet(kind: str) -> Scheme:
    """Four quarters of the outputs in a byte; the factor divides, or multiplies (kind "autobitlinear")."""

    def make(rng: np.random.Generator, n: int, k: int) -> Made:
        codes, times = rng.integers(0, 3, (n, k), np.uint8), kind == "autobitlinear"
        factor = np.float32(2.0 ** np.round(np.log2(np.sqrt(k)))) ** (-1 if times else 1)
        quarters = codes.reshape(4, n // 4, k) << (2 * np.arange(4, dtype=np.uint8))[:, None, None]
        tensor, (value,) = bfloats(np.array([factor]))
        numbers = codes.astype(np.float32) - 1
        values = numbers * value if times else numbers / value
        return Made({".weight": np.bitwise_or.reduce(quarters), ".weight_scale": tensor}, values)

    return Scheme(make, {"quant_method": "bitnet", "linear_class": kind, "quantization_mode": "offline"})


AUTOROUND: dict[str, object] = {"quant_method": "auto-round", "bits": 4, "group_size": 64, "sym": False, "iters": 200}
FP8: dict[str, object] = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
NVFP4_FORM = "nvfp4-pack-quantized"
SCHEMES: dict[str, Scheme] = {
    "fp8 of blocks": Scheme(fp8_blocks, {**FP8, "weight_block_size": [128, 128]}),
    "fp8 of a tensor": Scheme(fp8_tensor, {**FP8, "activation_scheme": "static"}),
    "fp8 of rows": Scheme(fp8_rows, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
    **{f"mlx {bits} bits of {group}": mlx(bits, group) for bits in (1, 2, 3, 4, 5, 6, 8) for group in (32, 64, 128)},
    "mlx 4 bits in float16": mlx(4, 64, "float16"),
    "mlx 4 bits in float32": mlx(4, 64, "float32"),
    "mlx mxfp4": Scheme(mlx_mxfp4, {"mode": "mxfp4", "bits": 4, "group_size": 32}, "quantization"),
    "mlx nvfp4": Scheme(mlx_nvfp4, {"mode": "nvfp4", "bits": 4, "group_size": 16}, "quantization"),
    "mlx mxfp8": Scheme(mlx_mxfp8, {"mode": "mxfp8", "bits": 8, "group_size": 32}, "quantization"),
    "metal 4 bits of 64": metal(4, 64),
    "mxfp8 in bytes": Scheme(
        fp8_powers, {**FP8, "quant_method": "mxfp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"}
    ),
    "compressed mxfp8": Scheme(fp8_powers, _compressed_config("mxfp8-quantized", 8, "float", group_size=32)),
    "modelopt nvfp4": Scheme(modelopt_nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}),
    "modelopt fp8": Scheme(fp8_tensor, {"quant_method": "modelopt", "quant_algo": "FP8"}),
    **{f"gptq {bits} bits": gptq(bits, 64) for bits in (2, 3, 4, 5, 6, 8)},
    "gptq 4 bits of rows": gptq(4, -1),
    "gptq version 2": gptq(4, 64, version=2),
    "gptq with act-order": gptq(4, 32, shuffled=True),
    "auto-round": Scheme(gptq(4, 64).make, {**AUTOROUND, "packing_format": "auto_round:auto_gptq"}),
    "auto-round, whole zero points": Scheme(gptq(4, 64, version=2).make, {**AUTOROUND, "packing_format": "auto_round"}),
    "auto-round as awq": Scheme(awq, {**AUTOROUND, "packing_format": "auto_round:auto_awq"}),
    "awq": Scheme(awq, {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}),
    **{f"compressed {bits} bits": compressed(bits, 32) for bits in (2, 3, 4, 5, 6, 8)},
    "compressed 4 bits with zero points": compressed(4, 64, zeros=True),
    "compressed 3 bits with zero points": compressed(3, 64, zeros=True),
    "compressed 4 bits with act-order": compressed(4, 32, zeros=True, shuffled=True),
    "compressed 8 bits of rows": compressed(8, 0),
    "compressed bytes of rows": compressed(8, 0, packed=False),
    "compressed bytes with zero points": compressed(8, 64, packed=False, zeros=True),
    "compressed floats": Scheme(fp8_rows, _compressed_config("float-quantized", 8, "float")),
    "compressed nvfp4": Scheme(compressed_nvfp4, _compressed_config(NVFP4_FORM, 4, "float", group_size=16)),
    "quark fp8": Scheme(fp8_tensor, quark("fp8_e4m3", qscheme="per_tensor")),
    "quark mxfp4": Scheme(quark_mxfp4, quark("fp4", qscheme="per_group", group_size=32, scale_format="e8m0")),
    "compressed mxfp4": Scheme(compressed_mxfp4, _compressed_config("mxfp4-pack-quantized", 4, "float")),
    "nf4": four_bits("nf4", nested=False),
    "nf4 with nested factors": four_bits("nf4", nested=True),
    "fp4": four_bits("fp4", nested=False, block=128),
    "nf4 in blocks of two rows": four_bits("nf4", nested=False, block=256),
    **{f"hqq {bits} bits of 64": hqq(bits, 64) for bits in (1, 2, 3, 4, 8)},
    **{f"hqq {bits} bits of 32 in bytes": hqq(bits, 32, kind="float16", words=8) for bits in (5, 6)},
    "hqq 4 bits of 64 seen as bf16": hqq(4, 64, floats=True),
    **{f"gemma {bits} bits": gemma(bits) for bits in (2, 4, 8)},
    "bitnet 2 bits": bitnet("bitlinear"),
    "bitnet 2 bits of factors that multiply": bitnet("autobitlinear"),
    "bitsandbytes int8": Scheme(eight_bits, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
}


def put_together(folder: Path, scheme: Scheme, made: Mapping[str, Made]) -> Checkpoint:
    """The checkpoint of a folder with these matrices, whose config.json says the scheme and nothing else."""
    tensors = {name + suffix: tensor for name, one in made.items() for suffix, tensor in one.tensors.items()}
    (folder / "config.json").write_text(json.dumps({scheme.key: scheme.config}))
    write_tensors(folder / "model.safetensors", tensors)
    return read_folder(folder)


def model(folder: Path, scheme: Scheme, *, embedding: bool = False) -> tuple[Checkpoint, Checkpoint]:
    """A tiny llama whose linear maps are of a scheme, and the same with the numbers that these stand for, in F32.

    embedding: whether the embedding, which is the head, too, is of the scheme.
    """
    rng, sizes = np.random.default_rng(4), {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    said = sizes | {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    plain: dict[str, Any] = {"model.norm.weight": rng.uniform(0.5, 1.5, 128).astype(np.float32)}
    made = dict[str, Made]()
    for layer in range(2):
        for name, (n, k) in LINEAR.items():
            made[f"model.layers.{layer}.{name}"] = scheme.make(rng, n, k)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            plain[f"model.layers.{layer}.{norm}.weight"] = rng.uniform(0.5, 1.5, 128).astype(np.float32)
    if embedding:
        made["model.embed_tokens"] = scheme.make(rng, 48, 128)
    else:
        plain["model.embed_tokens.weight"] = rng.normal(size=(48, 128)).astype(np.float32)
    as_it_is = {name + suffix: tensor for name, one in made.items() for suffix, tensor in one.tensors.items()}
    decoded = {f"{name}.weight": one.values for name, one in made.items()}
    found = []
    for part, tensors, config in (("own", as_it_is, {**said, scheme.key: scheme.config}), ("plain", decoded, said)):
        tiny_folder(folder / part, "llama", config)
        write_tensors(folder / part / "model.safetensors", {**plain, **tensors})
        found.append(read_folder(folder / part))
    return found[0], found[1]
