"""Models of real shapes with random weights, as GGUF files: what speed takes where no real file can be had.

Matrices are in Q4_K, or in MXFP4 and Q8_0 as GPT-OSS's makers have them, or in an encoding that is asked for.

    python -m bench.synthetic qwen35 /tmp/qwen35.gguf [--encoding Q6_K]
    python -m bench.peers /tmp/qwen35.gguf --only 'prefill 512' --only 'decode 64 after 8' --only 'decode 8 sequences'

The same name gives the same file, byte by byte. Its weights are such that numbers stay finite; answers mean nothing.
"""

import argparse
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sotol.formats import write_gguf
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES
from sotol.models.binding.bind import letters_of
from sotol.models.binding.metadata import Metadata
from sotol.quant import ENCODINGS
from sotol.tokenizers.bpe import CHARACTER_OF_BYTE

__all__ = ["SHAPES", "checkpoint_of", "write_model"]

VOCABULARY = 65536
COMMON: Mapping[str, object] = {
    "context_length": 8192, "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6,
}  # fmt: skip
# By architecture: its sizes, by GGUF's keys. The tables of embeddings are smaller than those of real models.
SHAPES: Mapping[str, Mapping[str, object]] = {
    "llama": {  # as 6 of the 16 layers of Llama 3.2's 1B
        "block_count": 6, "embedding_length": 2048, "feed_forward_length": 8192, "attention.head_count": 32,
        "attention.head_count_kv": 8, "attention.key_length": 64, "attention.value_length": 64,
        "rope.dimension_count": 64,
    },
    "qwen35": {  # as 24 of the 32 layers of Qwen 3.5's 4B
        "block_count": 24, "embedding_length": 2560, "feed_forward_length": 9216, "attention.head_count": 16,
        "attention.head_count_kv": 4, "attention.key_length": 256, "attention.value_length": 256,
        "rope.dimension_count": 64, "rope.dimension_sections": [11, 11, 10, 0], "full_attention_interval": 4,
        "ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 16, "ssm.time_step_rank": 32,
        "ssm.inner_size": 4096,
    },
    "nemotron_h": {  # as a third of Nemotron-H's 8B
        "block_count": 24, "embedding_length": 2048,
        "feed_forward_length": [0 if i % 2 == 0 or i % 12 == 7 else 8192 for i in range(24)],
        "attention.head_count": 16, "attention.head_count_kv": [4 if i % 12 == 7 else 0 for i in range(24)],
        "attention.key_length": 128, "attention.value_length": 128, "attention.layer_norm_epsilon": 1e-5,
        "ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 8, "ssm.time_step_rank": 64,
        "ssm.inner_size": 4096,
    },
    "lfm2": {  # as LFM2's 1.2B
        "block_count": 16, "embedding_length": 2048, "feed_forward_length": 8192, "attention.head_count": 32,
        "attention.head_count_kv": [8 if i in (2, 5, 8, 10, 12, 14) else 0 for i in range(16)],
        "attention.key_length": 64, "attention.value_length": 64, "rope.dimension_count": 64, "shortconv.l_cache": 3,
    },
    "qwen3moe": {  # as 6 of the 48 layers of Qwen3's 30B-A3B
        "block_count": 6, "embedding_length": 2048, "feed_forward_length": 6144, "attention.head_count": 32,
        "attention.head_count_kv": 4, "attention.key_length": 128, "attention.value_length": 128,
        "expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768,
    },
    "gpt-oss": {  # as 4 of the 24 layers of GPT-OSS's 20b
        "block_count": 4, "embedding_length": 2880, "feed_forward_length": 2880, "attention.head_count": 64,
        "attention.head_count_kv": 8, "attention.key_length": 64, "attention.value_length": 64,
        "attention.layer_norm_rms_epsilon": 1e-5, "attention.sliding_window": 128, "rope.freq_base": 150000.0,
        "rope.scaling.type": "yarn", "rope.scaling.factor": 32.0, "rope.scaling.original_context_length": 4096,
        "expert_count": 32, "expert_used_count": 4, "expert_feed_forward_length": 2880,
    },
    "deepseek2": {  # as 5 of the 47 layers of GLM-4.7-Flash; the first one is dense
        "block_count": 5, "embedding_length": 2048, "feed_forward_length": 10240, "attention.head_count": 20,
        "attention.head_count_kv": 1, "attention.key_length": 576, "attention.value_length": 512,
        "attention.key_length_mla": 256, "attention.value_length_mla": 256, "attention.q_lora_rank": 768,
        "attention.kv_lora_rank": 512, "rope.dimension_count": 64, "attention.layer_norm_rms_epsilon": 1e-5,
        "leading_dense_block_count": 1, "expert_count": 64, "expert_used_count": 4, "expert_shared_count": 1,
        "expert_feed_forward_length": 1536, "expert_gating_func": 2, "expert_weights_norm": True,
        "expert_weights_scale": 1.8,
    },
}  # fmt: skip
# What files of an architecture lack of the weights that its table has. Of most: biases of projections, and a head.
LACKING: Mapping[str, str] = {
    "gpt-oss": "rope_freqs",
    "deepseek2": r"output|rope_freqs|.*(attn|ffn)_.*\.bias|.*\.(attn_q|attn_kv_b)"
    r"|blk\.0\.(ffn_.*(exps|shexp|inp)|exp_probs_b.*)|blk\.[1-9]\.ffn_(gate|up|down)",
}
MOSTLY_LACKING = r"output|rope_freqs|.*(?<!ssm_dt|conv1d)\.bias"
# Encodings of experts and of other matrices, where they are not one.
ENCODED: Mapping[str, tuple[str, str]] = {"gpt-oss": ("MXFP4", "Q8_0")}
WITHOUT_SUFFIX = ("bias", "ssm_a", "ssm_d")
TYPES = {"tokenizer.ggml.token_type": "int32[]"}  # llama.cpp reads no other
RATES = ("ssm_dt.bias", "ssm_conv1d.bias")  # biases that are positive, as other vectors
# Ends of names of matrices that files have in F32.
FLOATS = ("conv1d", ".conv", "ssm_a", "ssm_d", "ssm_norm", "ffn_gate_inp", ".bias")


def checkpoint_of(architecture: str, encoding: str = "", seed: int = 0) -> Checkpoint:
    """A model of such a shape, in memory. KeyError for an architecture that has none here.

    encoding: of all matrices whose rows are whole blocks of it; if it is empty, as files of the architecture have it.
    """
    fields = {**COMMON, **SHAPES[architecture]}
    metadata = {"general.architecture": architecture, **{f"{architecture}.{key}": x for key, x in fields.items()}}
    layers, width = (int(str(fields[key])) for key in ("block_count", "embedding_length"))
    stub = Weight.from_values("token_embd", np.zeros((VOCABULARY, width), np.float32), "F32")
    known = Checkpoint(Path("synthetic.gguf"), metadata, dict.fromkeys(["token_embd", *map(str, range(layers))], stub))
    module = ARCHITECTURES[architecture]
    config = module.Config.read(Metadata(metadata, architecture), known)
    letters = letters_of(config)
    weights, rng = dict[str, Weight](), np.random.default_rng(seed)
    groups = int(str(fields["ssm.group_count"])) if "blk.{}.ssm_d" in module.WEIGHTS else 0
    lacking = re.compile(LACKING.get(architecture, MOSTLY_LACKING))
    for key, name in module.WEIGHTS.items():
        for layer in range(layers) if "{}" in key else (None,):
            sizes = letters(layer)
            if lacking.fullmatch(key.format(layer)) or not set(re.findall("[A-Za-z]", name.shape)) <= sizes.keys():
                continue
            full = key.format(layer) + ("" if key.endswith(WITHOUT_SUFFIX) else ".weight")
            shape = tuple(math.prod(sizes[letter] for letter in side.split("*")) for side in name.shape.split())
            shape = _as_stored(full, shape, groups) if groups else shape
            weights[full] = _random(full, shape, _encoding(architecture, encoding, full, shape[-1]), rng)
    return known._replace(metadata={**metadata, **_tokenizer(architecture)}, weights=weights, types=TYPES)


def _as_stored(name: str, shape: tuple[int, ...], groups: int) -> tuple[int, ...]:
    """The shape in files, where the table has a vector: Mamba-2's rates and norms."""
    if name.endswith(("ssm_a", "ssm_d")):
        return (*shape, 1)
    return (groups, shape[0] // groups) if name.endswith("ssm_norm.weight") else shape


def _encoding(architecture: str, asked: str, name: str, width: int) -> str:
    """A matrix's. Rows that are no whole blocks are in what llama.cpp takes for Q4_K then."""
    if not asked and architecture in ENCODED:
        return ENCODED[architecture]["exps" not in name]
    wanted = asked or "Q4_K"
    return "Q5_0" if width % ENCODINGS[wanted].values else wanted


def _random(name: str, shape: tuple[int, ...], encoding: str, rng: np.random.Generator) -> Weight:
    """A weight whose products keep the size of their inputs, nearly. encoding: of a matrix."""
    short = name.removesuffix(".weight")
    if len(shape) > 1 and not short.endswith(FLOATS):
        return _random_q4_k(name, shape, rng) if encoding == "Q4_K" else _random_blocks(name, shape, encoding, rng)
    if short.endswith(("conv1d", ".conv", "ffn_gate_inp")):
        values = rng.normal(size=shape) / shape[-1] ** 0.5
    elif name.endswith(".bias") and not name.endswith(RATES):
        values = rng.normal(size=shape) / 10
    else:
        values = rng.uniform(0.5, 1.5, shape)
    if name.endswith("ssm_a"):
        values *= -1
    return Weight.from_values(name, values.astype(np.float32), "F32")


def _random_blocks(name: str, shape: tuple[int, ...], encoding: str, rng: np.random.Generator) -> Weight:
    """Blocks that are each one of a thousand, which the encoding makes of normal numbers."""
    known = ENCODINGS[encoding]
    assert known.encode is not None
    some = known.encode((rng.normal(size=(1024, known.values)) / shape[-1] ** 0.5).astype(np.float32))
    chosen = rng.integers(0, len(some), math.prod(shape) // known.values, np.uint16)
    return Weight.from_bytes(name, known, shape, some[chosen].reshape(-1))


def _random_q4_k(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weight:
    """Random blocks of Q4_K: f16 factors of scales and of minimums, 12 bytes of both, 128 bytes of codes.

    A number is d * scale * code - dmin * minimum, with scales and minimums of 0 to 63 and codes of 0 to 15. With dmin =
    7.5 d their mean is 0, and their size some 200 d.
    """
    encoding, factor = ENCODINGS["Q4_K"], 1 / (200 * shape[-1] ** 0.5)
    blocks = np.frombuffer(rng.bytes(math.prod(shape) // encoding.values * encoding.size), np.uint8)
    blocks = blocks.reshape(-1, encoding.size).copy()
    blocks[:, :4] = np.array([factor, 7.5 * factor], np.float16).view(np.uint8)
    return Weight.from_bytes(name, encoding, shape, blocks.reshape(-1))


def _tokenizer(architecture: str) -> Mapping[str, object]:
    """A vocabulary that encodes bytes, and says nothing else."""
    tokens = [*CHARACTER_OF_BYTE, "ab", *(f"<{i}>" for i in range(VOCABULARY - 257))]
    return {
        f"{architecture}.vocab_size": VOCABULARY, "general.name": f"synthetic {architecture}",
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (VOCABULARY - 1) + [3], "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": VOCABULARY - 1,
    }  # fmt: skip


def write_model(path: Path, architecture: str, encoding: str = "") -> None:
    """`checkpoint_of` as a file."""
    checkpoint = checkpoint_of(architecture, encoding)
    write_gguf(path, checkpoint.metadata, checkpoint.weights.values(), types=checkpoint.types)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("architecture", choices=SHAPES)
    parser.add_argument("file", type=Path)
    parser.add_argument("--encoding", choices=[name for name, known in ENCODINGS.items() if known.encode], default="")
    asked = parser.parse_args()
    write_model(asked.file, asked.architecture, asked.encoding)
    sys.stdout.write(f"{asked.file}: {asked.file.stat().st_size >> 20} MB\n")


if __name__ == "__main__":
    main()
