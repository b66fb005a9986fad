"""Floats of 8 bits: DeepSeek's and Qwen's blocks, and factors of a tensor or of each row.

Settings: transformers' FineGrainedFP8Config and FbgemmFp8Config, vLLM's Fp8Config. `weight` is E4M3 or E5M2, and
`weight_scale_inv` or `weight_scale` what it is multiplied by, in spite of the first one's name (DeepSeek-V3's README,
"Dequantization"). Factors of activations are not used: activations stay floats of 32 bits.
"""

from sotol.formats.quantised.grids import FLOATS, POWERS, put_floats
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import FACTOR_KINDS, Tensors

__all__ = ["ACTIVATIONS", "join_fbgemm", "join_floats", "join_fp8"]

# Names of factors for activations and cached keys and values.
ACTIVATIONS = (
    ".input_scale", ".activation_scale", ".output_scale", ".kv_scale", ".k_scale", ".v_scale", ".q_scale",
    ".prob_scale", ".input_scale_ub",
)  # fmt: skip


def join_fp8(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "fp8", or "mxfp8": blocks of a row's 32 numbers."""
    settings.expect("fmt", "e4m3", "e5m2")
    settings.expect("activation_scheme", "dynamic", "static")
    settings.expect("dequantize", False)
    settings.expect("expert_dtype", "fp8")
    settings.expect("scale_fmt", "float", "ue8m0")
    settings.expect("is_checkpoint_fp8_serialized", True)
    block = settings.sides("weight_block_size")
    settings.ignore("modules_to_not_convert", "modules_to_convert", "ignored_layers", "kv_cache_scheme")
    settings.finish()
    join_floats(tensors, block)


def join_fbgemm(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "fbgemm_fp8": a factor for each row."""
    settings.ignore("activation_scale_ub", "modules_to_not_convert")
    settings.finish()
    join_floats(tensors, None)


def join_floats(tensors: Tensors, block: tuple[int, int] | None) -> None:
    """All weights of 8-bit floats. block: the rows and inputs that share a factor, where both are limited."""
    tensors.drop(*ACTIVATIONS)
    kinds = (*FACTOR_KINDS, *POWERS)
    scales = ("_scale_inv", "_scale")
    for name in tensors.of(*FLOATS):
        codes = tensors.take(name, *FLOATS)
        if name.endswith("_scale"):  # of NVFP4: whoever runs that has taken those that belong to a weight
            raise tensors.fail(codes.name, "has factors of a weight that is not there, or lacks its other factors")
        scale = next((found for suffix in scales if (found := tensors.find(name + suffix, *kinds)) is not None), None)
        if scale is None:
            raise tensors.fail(name, f"is {codes.encoding.name}, but no {name}_scale_inv or {name}_scale is there")
        put_floats(tensors, name, codes, scale, block)
