"""Quantised SafeTensors: from the tensors that a scheme keeps a weight in to weights that are run from their own bits.

One file for each family of schemes, and a row in `SCHEMES`. A scheme reads its settings, all of them; takes the tensors
of each weight; and puts a weight in their place, of a `Layout` that has its bits, groups and factors. `tensors.py` and
`grids.py` are what they share. They are files of a format, as `safetensors.py`: `quant/` knows no names of tensors.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from sotol.errors import ModelError, plain
from sotol.formats.quantised.awq import join_awq
from sotol.formats.quantised.bitnet import join_bitnet
from sotol.formats.quantised.bitsandbytes import join_bitsandbytes
from sotol.formats.quantised.compressed import join_compressed
from sotol.formats.quantised.fp8 import join_fbgemm, join_fp8
from sotol.formats.quantised.gemma import join_gemma
from sotol.formats.quantised.gptq import join_autoround, join_gptq
from sotol.formats.quantised.hqq import join_hqq
from sotol.formats.quantised.llama4 import turn_experts
from sotol.formats.quantised.mlx import join_metal, join_mlx
from sotol.formats.quantised.modelopt import join_modelopt
from sotol.formats.quantised.mxfp4 import join_mxfp4
from sotol.formats.quantised.quark import join_quark
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import Tensors
from sotol.formats.weights import Weight

__all__ = ["KEYS", "SCHEMES", "join_quantised"]

Scheme = Callable[[Settings, Tensors], None]

# By quantization_config's quant_method.
SCHEMES: Mapping[str, Scheme] = {
    "auto-round": join_autoround,
    "awq": join_awq,
    "bitsandbytes": join_bitsandbytes,
    "bitnet": join_bitnet,
    "compressed-tensors": join_compressed,
    "fbgemm_fp8": join_fbgemm,
    "fp8": join_fp8,
    "gemma": join_gemma,
    "gptq": join_gptq,
    "hqq": join_hqq,
    "metal": join_metal,
    "modelopt": join_modelopt,
    "modelopt_fp4": join_modelopt,
    "mxfp4": join_mxfp4,
    "mxfp8": join_fp8,
    "quark": join_quark,
}
MLX = "quantization"  # the key of MLX's settings, which it writes once more as quantization_config, without a method
KEYS = ("quantization_config", MLX)  # of config.json
CODES = ("I8", "U8", "I16", "I32", "U32", "F8_E4M3", "F8_E5M2", "F8_E8M0")  # types that quantised weights have


def join_quantised(
    path: Path, config: Mapping[str, object], weights: Mapping[str, Weight], named: Callable[[str], str]
) -> dict[str, Weight]:
    """The weights of a checkpoint, those that are quantised put together; as they are where config.json says nothing.

    path: of the folder, for errors. named: the name that a weight has here, by that in the file. ModelError for a
    scheme or setting that sotol does not support, FormatError for tensors that do not suit it.
    """
    key = next((key for key in reversed(KEYS) if config.get(key) is not None), None)
    if key is None:
        return dict(weights)
    values = config[key]
    if not isinstance(values, Mapping):
        raise ModelError(f"{path}: config.json's {key} is {plain(repr(values), 60)}, not an object")
    settings, tensors = Settings(path, values, f"config.json's {key}"), Tensors(path, dict(weights))
    method = None if key == MLX else settings.get("quant_method")
    if method is None and values.keys() - {"quant_method"} and not tensors.of(*CODES):
        return tensors.weights  # settings of a training for few bits: Gemma 4's …-qat-q4_0-unquantized
    if method is None and "bits" in values and "group_size" in values:
        scheme: Scheme | None = partial(join_mlx, named=named)
    else:
        scheme = SCHEMES.get(method) if isinstance(method, str) else None
    if scheme is None:
        known = ", ".join(SCHEMES)
        raise settings.fail(
            f"its weights are quantized by {plain(repr(method), 40)}; sotol supports {known}, and MLX's: get the model"
            " in one of these forms, or in floats"
        )
    turn_experts(tensors)
    scheme(settings, tensors)
    if left := [name for name in tensors.of(*CODES) if name.endswith(".weight")]:
        raise tensors.fail(left[0], f"is {tensors.weights[left[0]].encoding.name}, and its factors are missing")
    return tensors.weights
