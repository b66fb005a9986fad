"""What NVIDIA's ModelOpt writes: floats of 8 bits, and NVFP4.

Layout: ModelOpt's export to Hugging Face's checkpoints. Of NVFP4, `weight` has two codes in a byte, the first in its
low half; `weight_scale` is E4M3, one for 16 inputs; `weight_scale_2` a factor of the whole matrix, in F32. Which
weights have which form, their tensors say. Factors of activations and caches are not used.
"""

from sotol.formats.quantised.fp8 import ACTIVATIONS, join_floats
from sotol.formats.quantised.grids import put_nvfp4
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import Tensors

__all__ = ["join_modelopt"]

ALGORITHMS = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4", "W4A16_NVFP4", "MIXED_PRECISION")
BLOCK = (128, 128)  # of FP8_PB_WO


def join_modelopt(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "modelopt", or that has hf_quant_config.json."""
    settings.expect("quant_algo", *ALGORITHMS)
    settings.expect("group_size", 16, 128)
    settings.ignore(
        "kv_cache_quant_algo", "kv_cache_scheme", "exclude_modules", "ignore", "producer", "config_groups",
        "quantized_layers",
    )  # fmt: skip
    settings.expect("pre_quant_scale", False)
    settings.expect("has_zero_point", False)
    settings.finish()
    tensors.drop(*ACTIVATIONS)
    for name in tensors.ending("_scale_2"):
        codes = tensors.take(name, "U8")
        shape = (*codes.shape[:-1], codes.shape[-1] * 2)
        scale = tensors.take(f"{name}_scale", "F8_E4M3", shape=(*shape[:-1], shape[-1] // 16))
        put_nvfp4(tensors, name, shape, codes, scale, tensors.take(f"{name}_scale_2", "F32"), inverse=False)
    join_floats(tensors, BLOCK)
