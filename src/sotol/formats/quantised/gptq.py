"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): whole numbers of 2 to 8 bits and zero points, transposed.

Layout: AutoGPTQ's and GPTQModel's QuantLinear. `qweight` [K bits / 32, N] has the codes of a column one after another,
the first in the lowest bits; `qzeros` [groups, N bits / 32] the same along N; `scales` [groups, N]; `g_idx` [K] the
group of each input. A number is scale * (code - zero). Version 1 of the format stores zero points less 1.

With act-order (desc_act), inputs are in groups by their importance, not by their place: a weight is put together with
the inputs of each group side by side, and activations are put into that order before the product (`Weight.order`).
"""

import numpy as np

from sotol.formats.quantised.awq import put_awq
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import (
    FACTOR_KINDS,
    Tensors,
    block_width,
    columns,
    failure,
    numbers,
    order_of,
    unpacked,
)
from sotol.quant import BlockParts, Layout, UInt8Array

__all__ = ["join_autoround", "join_gptq"]

BITS = (2, 3, 4, 5, 6, 8)
PACKED = ("I32", "U32")
# AutoRound's packing_format: how much less zero points are stored as. Another one is AWQ's.
AUTOROUND = {"auto_round:auto_gptq": 1, "auto_round:gptqmodel": 0, "auto_round": 0}
AWQ = "auto_round:auto_awq"


def join_gptq(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "gptq"."""
    settings.expect("bits", *BITS)
    settings.expect("pack_dtype", "int32")
    formats = [settings.expect(key, "gptq", "gptq_v2") for key in ("checkpoint_format", "format")]
    settings.expect("is_marlin_format", False)
    settings.expect("method", "gptq")
    settings.expect("adapter")
    settings.ignore(
        "group_size", "desc_act", "sym", "lm_head", "dynamic", "damp_percent", "damp_auto_increment", "static_groups",
        "true_sequential", "model_name_or_path", "model_file_base_name", "quantizer", "meta", "model_seqlen",
        "block_name_to_quantize", "module_name_preceding_first_block", "modules_in_block_to_quantize", "batch_size",
        "pad_token_id", "max_input_length", "cache_block_outputs", "use_exllama", "disable_exllama", "use_cuda_fp16",
        "exllama_config", "max_seq_length", "tokenizer", "dataset", "backend", "act_group_aware",
        "modules_to_not_convert", "offload_to_disk", "offload_to_disk_path", "mse", "mock_quantization", "hyb_act",
        "pack_impl", "fail_safe", "failsafe", "fallback", "hessian", "gptaq", "gptaq_alpha", "gptaq_memory_device",
        "v2", "v2_alpha", "v2_memory_device", "device", "uri", "gc_mode", "vram_strategy", "moe",
    )  # fmt: skip
    settings.finish()
    for name in tensors.ending(".qweight"):
        put_gptq(tensors, name, 0 if "gptq_v2" in formats else 1)
        bias = tensors.weights.get(f"{name}.bias")
        if bias is not None and bias.encoding.name in FACTOR_KINDS and not numbers(bias).any():
            del tensors.weights[f"{name}.bias"]  # AutoGPTQ wrote some of zeros where a model has none


def join_autoround(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "auto-round", which packs as GPTQ or as AWQ does."""
    form = settings.expect("packing_format", *AUTOROUND, AWQ) or "auto_round:auto_gptq"
    settings.expect("bits", *BITS)
    settings.expect("data_type", "int")
    for key in ("super_bits", "rotation_configs"):
        settings.expect(key)
    settings.ignore(
        "group_size", "sym", "amp", "batch_size", "enable_minmax_tuning", "enable_norm_bias_tuning",
        "enable_quanted_input", "gradient_accumulate_steps", "iters", "lr", "low_gpu_mem_usage", "minmax_lr",
        "nsamples", "quant_block_list", "regex_config", "scale_dtype", "seqlen", "supported_types", "act_bits",
        "act_data_type", "act_group_size", "act_sym", "act_dynamic", "static_attention_dtype", "static_kv_dtype",
        "static_attention_granularity", "static_kv_granularity", "super_group_size", "to_quant_block_names",
        "block_name_to_quantize", "extra_config", "autoround_version", "dataset", "backend", "enable_torch_compile",
    )  # fmt: skip
    settings.finish()
    for name in tensors.ending(".qweight"):
        if form == AWQ:
            put_awq(tensors, name)
        else:
            put_gptq(tensors, name, AUTOROUND[str(form)])


def put_gptq(tensors: Tensors, name: str, less: int) -> None:
    """One weight. less: how much less a zero point is stored as."""
    packed = tensors.take(f"{name}.qweight", *PACKED)
    scale = tensors.take(f"{name}.scales", *FACTOR_KINDS)
    zeros = tensors.take(f"{name}.qzeros", *PACKED)
    if len(packed.shape) != 2 or len(scale.shape) != 2 or packed.shape[1] != scale.shape[1]:
        raise tensors.fail(packed.name, f"has shape {list(packed.shape)}, and scales {list(scale.shape)}")
    groups, outputs = scale.shape
    bits = zeros.shape[-1] * 32 // outputs
    if bits not in BITS or zeros.shape != (groups, outputs * bits // 32):
        raise tensors.fail(zeros.name, f"has shape {list(zeros.shape)}, and scales {list(scale.shape)}")
    width = packed.shape[0] * 32 // bits
    if packed.shape[0] % bits or width % groups:
        raise tensors.fail(packed.name, f"has {packed.shape[0]} words of {bits} bits a code, in {groups} groups")
    indices, group = tensors.find(f"{name}.g_idx", *PACKED, shape=(width,)), width // groups
    size = block_width(width, group)
    if size == 0:
        raise tensors.fail(packed.name, f"has groups of {group} of {width} inputs: sotol runs multiples of 32")
    order = None if indices is None else order_of(tensors, indices, group)
    layout = Layout(bits, size, factor=FACTOR_KINDS[scale.encoding.name], zeros=True)
    which, path = np.arange(width // size) * size // group, tensors.path

    def zero_points() -> UInt8Array:
        """[groups, N]"""
        stored = unpacked(numbers(zeros), bits).astype(np.uint16) + np.uint16(less)
        if (stored > 255).any():
            raise failure(path, zeros.name, "has a zero point of 256")
        return stored.astype(np.uint8)

    def read(first: int, end: int) -> BlockParts:
        codes = unpacked(np.ascontiguousarray(columns(packed, first, end).T), bits)  # [rows, K]
        if order is not None:
            codes = np.take(codes, order, axis=1)
        blocks = codes.reshape(end - first, -1, 1, size)
        factors, points = columns(scale, first, end), zero_points()[:, first:end]
        return BlockParts(blocks, factors.T[:, which], zeros=points.T[:, which, None])

    tensors.put(f"{name}.weight", (outputs, width), layout, (packed, scale, zeros), read, order)
