"""Schemes of quantised SafeTensors whose codes are floats, of 8 bits and of 4, written bit by bit."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from tests.support.float_codes import E2M1, e4m3, e5m2
from tests.support.folders import Typed
from tests.support.quantised_parts import Array, Made, bfloats, pack, scales, spread

__all__ = [
    "compressed_mxfp4", "compressed_nvfp4", "float_codes", "fp8_blocks", "fp8_powers", "fp8_rows", "fp8_tensor",
    "mlx_mxfp4", "mlx_mxfp8", "mlx_nvfp4", "modelopt_nvfp4", "quark", "quark_mxfp4",
]  # fmt: skip

# ---- floats of 8 bits


def float_codes(rng: np.random.Generator, n: int, k: int) -> npt.NDArray[np.uint8]:
    """All codes of E4M3 that are not NaN, most of them of numbers around 1."""
    usual = rng.integers(0x28, 0x40, (n, k)) | rng.integers(0, 2, (n, k)) << 7
    every = rng.choice([x for x in range(0x60) if x & 0x7F != 0x7F], (n, k)) | rng.integers(0, 2, (n, k)) << 7
    return np.where(rng.random((n, k)) < 0.1, every, usual).astype(np.uint8)


def fp8_blocks(rng: np.random.Generator, n: int, k: int) -> Made:
    """DeepSeek's and Qwen's: 128 x 128 share a factor."""
    codes = float_codes(rng, n, k)
    tensor, factors = bfloats(scales(rng, -(-n // 128), -(-k // 128), each=1.5, width=k))
    values = e4m3(codes) * spread(factors, 128, 128, (n, k))
    return Made({".weight": Typed("F8_E4M3", codes), ".weight_scale_inv": tensor}, values)


def fp8_tensor(rng: np.random.Generator, n: int, k: int) -> Made:
    """One factor, and one for activations, which is not used."""
    codes, factor = float_codes(rng, n, k), scales(rng, 1, each=1.5, width=k)
    tensors = {".weight": Typed("F8_E4M3", codes), ".weight_scale": factor[0], ".input_scale": np.float32(0.25)}
    return Made(tensors, e4m3(codes) * factor)


def fp8_rows(rng: np.random.Generator, n: int, k: int) -> Made:
    """E5M2 with a factor for each row."""
    codes = rng.integers(0x34, 0x44, (n, k), np.uint8) | rng.integers(0, 2, (n, k), np.uint8) << np.uint8(7)
    factors = scales(rng, n, 1, each=1.5, width=k)
    return Made({".weight": Typed("F8_E5M2", codes), ".weight_scale": factors}, e5m2(codes) * factors)


# ---- floats with powers of two, or of 4 bits


def powers(rng: np.random.Generator, n: int, count: int, each: float, width: int) -> npt.NDArray[np.uint8]:
    """E8M0."""
    usual = int(np.round(np.log2(1.5 / (each * np.sqrt(width)))))
    return rng.integers(127 + usual - 1, 127 + usual + 2, (n, count), np.uint8)


def times_powers(numbers: Array, exponents: Array, group: int) -> npt.NDArray[np.float32]:
    n, k = numbers.shape
    factors = np.exp2(exponents.astype(np.float64) - 127)[..., None]
    values: npt.NDArray[np.float32] = (numbers.reshape(n, -1, group) * factors).reshape(n, k).astype(np.float32)
    return values


def mlx_mxfp4(rng: np.random.Generator, n: int, k: int) -> Made:
    codes, exponents = rng.integers(0, 16, (n, k)), powers(rng, n, k // 32, 3, k)
    values = times_powers(E2M1[codes], exponents, 32)
    return Made({".weight": pack(codes, 4).view(np.uint32), ".scales": exponents}, values)


def mlx_mxfp8(rng: np.random.Generator, n: int, k: int) -> Made:
    codes, exponents = float_codes(rng, n, k), powers(rng, n, k // 32, 1.5, k)
    values = times_powers(e4m3(codes), exponents, 32)
    return Made({".weight": codes.view(np.uint32), ".scales": exponents}, values)


def small_floats(rng: np.random.Generator, n: int, k: int) -> tuple[Array, Array, npt.NDArray[np.float32]]:
    """Codes of E2M1, their E4M3, and the products."""
    codes, factors = rng.integers(0, 16, (n, k)), rng.integers(0x10, 0x30, (n, k // 16), np.uint8)
    values = E2M1[codes].reshape(n, -1, 16) * e4m3(factors)[..., None]
    return codes, factors, values.reshape(n, k)


def mlx_nvfp4(rng: np.random.Generator, n: int, k: int) -> Made:
    codes, factors, values = small_floats(rng, n, k)
    return Made({".weight": pack(codes, 4).view(np.uint32), ".scales": factors}, values)


def fp8_powers(rng: np.random.Generator, n: int, k: int) -> Made:
    """MXFP8: 32 E4M3 share a power of two, in bytes."""
    made = mlx_mxfp8(rng, n, k)
    codes = made.tensors[".weight"].view(np.uint8)
    return Made({".weight": Typed("F8_E4M3", codes), ".weight_scale": made.tensors[".scales"]}, made.values)


# ---- NVFP4, MXFP4


def modelopt_nvfp4(rng: np.random.Generator, n: int, k: int) -> Made:
    codes, factors, _ = small_floats(rng, n, k)
    whole = np.float32(0.7 / np.sqrt(k))
    tensors = {".weight": pack(codes, 4), ".weight_scale": Typed("F8_E4M3", factors), ".weight_scale_2": whole}
    each = (e4m3(factors) * whole)[..., None] * E2M1[codes].reshape(n, -1, 16)
    return Made({**tensors, ".input_scale": np.float32(0.1)}, each.reshape(n, k))


def compressed_nvfp4(rng: np.random.Generator, n: int, k: int) -> Made:
    codes, factors, _ = small_floats(rng, n, k)
    whole = np.array([np.sqrt(k) / 0.7], np.float32)
    each = (e4m3(factors) * (np.float32(1) / whole))[..., None] * E2M1[codes].reshape(n, -1, 16)
    tensors = {
        ".weight_packed": pack(codes, 4),
        ".weight_scale": Typed("F8_E4M3", factors),
        ".weight_global_scale": whole,
        ".input_global_scale": whole,
    }
    return Made(tensors, each.reshape(n, k))


def compressed_mxfp4(rng: np.random.Generator, n: int, k: int) -> Made:
    made = mlx_mxfp4(rng, n, k)
    tensors = {".weight_packed": made.tensors[".weight"].view(np.uint8), ".weight_scale": made.tensors[".scales"]}
    return Made(tensors, made.values)


def quark_mxfp4(rng: np.random.Generator, n: int, k: int) -> Made:
    made = mlx_mxfp4(rng, n, k)
    tensors = {".weight": made.tensors[".weight"].view(np.uint8), ".weight_scale": made.tensors[".scales"]}
    return Made(tensors, made.values)


def quark(dtype: str, **more: object) -> Mapping[str, object]:
    """AMD's settings."""
    weight = {"dtype": dtype, "is_dynamic": False, "observer_cls": "PerTensorMinMaxObserver", **more}
    whole = {"weight": weight, "input_tensors": {"dtype": dtype}, "output_tensors": None, "bias": None}
    layers = {"layer_quant_config": {"*.mlp.*": whole}, "layer_type_quant_config": {}, "exclude": ["lm_head"]}
    export = {"weight_format": "real_quantized", "pack_method": "reorder", "kv_cache_group": []}
    return {"quant_method": "quark", "global_quant_config": whole, **layers, "export": export, "version": "0.9",
            "algo_config": [{"name": "autosmoothquant"}], "quant_mode": "eager_mode"}  # fmt: skip
