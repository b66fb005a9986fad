"""What AMD's Quark writes: floats of 8 bits, and MXFP4.

Layout: Quark's export to Hugging Face's checkpoints, as vLLM reads it (quantization/quark). Of 8 bits, `weight` is E4M3
and `weight_scale` a factor for the matrix, each row or each group; of 4 bits `weight` is U8 with two codes in a byte,
the first in its low half, and `weight_scale` a power of two for 32 inputs, in bytes. Which weights have which form,
their tensors say. Factors of activations and caches are not used.
"""

from collections.abc import Iterator

from sotol.formats.quantised.fp8 import ACTIVATIONS, join_floats
from sotol.formats.quantised.grids import put_mxfp4
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import Tensors

__all__ = ["join_quark"]

DTYPES = ("fp8_e4m3", "fp4")
MERGED = ("gptq", "awq", "smooth", "smoothquant", "autosmoothquant")  # algorithms that leave nothing to do for who runs


def join_quark(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "quark"."""
    for spec in specs_of(settings):
        spec.ignore("input_tensors", "output_tensors", "bias", "target_device")
        weight = spec.inner("weight")
        spec.finish()
        if weight is None:
            continue
        if weight.expect("dtype", *DTYPES) == "fp4":
            weight.expect("scale_format", "e8m0")
            weight.expect("group_size", 32)
        weight.expect("qscheme", "per_tensor", "per_channel", "per_group")
        weight.expect("is_scale_quant", False)
        weight.ignore(
            "observer_cls", "is_dynamic", "ch_axis", "symmetric", "round_method", "scale_type", "scale_format",
            "scale_calculation_mode", "mx_element_dtype", "group_size", "qat_spec", "zero_point_type",
        )  # fmt: skip
        weight.finish()
    for algorithm in settings.each("algo_config"):
        algorithm.expect("name", *MERGED)
    if (export := settings.inner("export")) is not None:
        export.expect("weight_format", "real_quantized")
    settings.ignore(
        "exclude", "kv_cache_quant_config", "kv_cache_post_rope", "softmax_quant_spec", "quant_mode", "version",
        "pre_quant_opt_config", "log_severity_level",
    )  # fmt: skip
    settings.finish()
    tensors.drop(*ACTIVATIONS)
    for name in tensors.ending(".weight_scale"):
        codes = tensors.weights.get(f"{name}.weight")
        if codes is not None and codes.encoding.name == "U8":
            del tensors.weights[f"{name}.weight"]
            shape = (*codes.shape[:-1], codes.shape[-1] * 2)
            scale = tensors.take(f"{name}.weight_scale", "U8", "F8_E8M0", shape=(*shape[:-1], shape[-1] // 32))
            if shape[-1] % 32:
                raise tensors.fail(codes.name, f"has rows of {shape[-1]} numbers, no groups of 32")
            put_mxfp4(tensors, f"{name}.weight", shape, codes, scale)
    join_floats(tensors, None)


def specs_of(settings: Settings) -> Iterator[Settings]:
    """What is said of all layers, of layers by name, and of layers by type."""
    if (usual := settings.inner("global_quant_config")) is not None:
        yield usual
    for key in ("layer_quant_config", "layer_type_quant_config"):
        if (layers := settings.inner(key)) is not None:
            yield from (own for name in layers.keys() if (own := layers.inner(name)) is not None)  # noqa: SIM118
