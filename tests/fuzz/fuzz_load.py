"""Fuzzes loading: small models of every architecture, with something wrong or odd, from the file to logits.

Whatever the file says, it ends in an LLM that runs, or in one SotolError or ValueError of a sentence; no crash, no
hang, no memory beyond what such a file deserves. What runs gives the same bits in one step and in two.
Run `python -m tests.fuzz.fuzz_load --seconds 60 --seed 1`.
"""

import math
import random
import struct
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from tests.support.checkpoints import (
    DEFAULTS,
    VOCABULARY,
    full_name,
    fused,
    has_states,
    is_matrix,
    odd_states,
    optional_names,
    random_checkpoint,
    wide_sizes,
)
from tests.support.fuzzing import Bounds, Broken, run, sentence
from tests.support.running import make_step, make_table

from sotol import LLM
from sotol.errors import SotolError
from sotol.formats import Weight, write_gguf
from sotol.formats.weights import Checkpoint
from sotol.models import ARCHITECTURES
from sotol.quant import ENCODINGS, Float32Array, UInt8Array

ABLE = [name for name, encoding in ENCODINGS.items() if encoding.encode is not None]
TELLING: tuple[object, ...] = (
    0, 1, 2, 3, 5, 7, 15, 16, 17, 20, 31, 32, 33, 48, 63, 64, 100, 255, 256, 4095, 4096, 65535, 1 << 20, (1 << 31) - 1,
    1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1, -1, -2, -(1 << 31), -(1 << 63), 0.0, -0.0, 1e-45, 1e-30, 1e-6,
    0.5, 0.999, 1.0, 1.001, 2.5, 10000.0, 1e30, 3e38, -1.0, math.inf, -math.inf, math.nan, True, False, "", "none",
    "linear", "yarn", "longrope", "llama", "x" * 5000, "a\nb", [], [0], [1, 1], [1, 2], [True, False], [0.5], ["a"],
    [[1]],
)  # fmt: skip
KEYS = (
    *DEFAULTS, "attention.key_length", "attention.value_length", "attention.sliding_window",
    "attention.sliding_window_pattern", "attn_logit_softcapping", "final_logit_softcapping", "rope.dimension_count",
    "rope.freq_base_swa", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
    "rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_log_multiplier", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor", "vocab_size", "attention.layer_norm_epsilon", "attention.scale", "logit_scale",
    "attention.temperature_scale", "embedding_scale", "residual_scale", "rope.scaling.finetuned",
    "rope.dimension_sections", "expert_count", "expert_used_count", "expert_feed_forward_length",
    "expert_shared_feed_forward_length", "expert_weights_norm", "expert_weights_scale", "expert_gating_func",
    "expert_group_count", "expert_group_used_count",
)  # fmt: skip
TOKENIZER_KEYS = (
    "model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id", "eot_token_id",
    "unknown_token_id", "add_bos_token", "add_eos_token", "add_space_prefix",
)  # fmt: skip

Fields = dict[str, object]
Weights = dict[str, Weight]


def vocabulary(rng: random.Random) -> Fields:
    """A small vocabulary of each kind, as long as random checkpoints have logits."""
    kind = rng.choice(["gpt2", "llama", "gemma4"])
    space = "Ġ" if kind == "gpt2" else "▁"
    pairs = ["t h", "th e", f"{space} a", f"{space} the"]
    tokens = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", space, *(pair.replace(" ", "") for pair in pairs)]
    tokens += [f"<0x{byte:02X}>" for byte in range(VOCABULARY - len(tokens))]
    types = [2, 3, 3] + [6 if kind != "gpt2" and text.startswith("<0x") else 1 for text in tokens[3:]]
    fields: Fields = {"model": kind, "tokens": tokens, "token_type": types, "bos_token_id": 1, "eos_token_id": 2}
    if kind == "llama":
        fields |= {"scores": [-float(i) for i in range(len(tokens))], "unknown_token_id": 0}
    else:
        fields |= {"merges": pairs, "pre": rng.choice(["gpt-2", "llama-bpe", "smollm", "qwen2"])}
    return {f"tokenizer.ggml.{key}": value for key, value in fields.items()}


def odd_sizes(rng: random.Random) -> Fields:
    """Sizes that belong together, though no real model has them."""
    heads = rng.choice([1, 1, 2, 3, 4, 6, 8])
    head_width = rng.choice(
        [w for w in (2, 4, 6, 8, 16, 16, 32, 36, 48, 64, 80, 128, 256, 512, 1024) if w * heads <= 1024]
    )
    width = rng.choice([w for w in (heads * head_width, heads * rng.choice([2, 16, 17, 32]), 256) if w <= 512])
    fields: Fields = {
        "block_count": rng.choice([1, 1, 2, 7]),
        "context_length": rng.choice([1, 2, 5, 6, 7, 15, 17, 64, 1000, 5000]),
        "embedding_length": width,
        "feed_forward_length": rng.choice([1, 15, 16, 32, 64, 96, 256, 512]),
        "attention.head_count": heads,
        "attention.head_count_kv": rng.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        "attention.key_length": head_width,
        "attention.sliding_window": rng.choice([0, 1, 2, 3, 16, 1 << 30, (1 << 31) - 1]),
        "final_logit_softcapping": rng.choice([0.0, 1e-30, 30.0]),
        "attn_logit_softcapping": rng.choice([0.0, 1e-30, 50.0, 3e38]),
    }
    if rng.random() < 0.5 and head_width > 2:
        fields["rope.dimension_count"] = 2 * rng.randrange(1, head_width // 2)
    return fields


@cache
def bank(name: str) -> UInt8Array:
    """Some blocks of small numbers in an encoding: [N, bytes of a block]."""
    numbers = np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32) * np.float32(1 / 16)
    return Weight.from_values("bank", numbers, name).rows().reshape(-1, ENCODINGS[name].size)


def encode(weight: Weight, name: str) -> Weight:
    """A weight of this shape in another encoding, where its rows are long enough for it; the numbers are others."""
    encoding = ENCODINGS[name]
    if weight.shape[-1] % encoding.values:
        return weight
    blocks = bank(name)
    picks = np.random.default_rng(len(weight.name)).integers(0, len(blocks), math.prod(weight.shape) // encoding.values)
    return Weight.from_bytes(weight.name, encoding, weight.shape, blocks[picks].reshape(-1))


def reencode_all(weights: Weights, rng: random.Random) -> None:
    """All matrices, each in a random encoding or all in one."""
    one = rng.choice(ABLE)
    mixed = rng.random() < 0.5
    for name, weight in weights.items():
        if is_matrix(weight):
            weights[name] = encode(weight, rng.choice(ABLE) if mixed else one)


def change_field(fields: Fields, weights: Weights, rng: random.Random) -> None:
    """A telling value for a field of the model."""
    del weights
    fields[f"{fields['general.architecture']}.{rng.choice(KEYS)}"] = rng.choice(TELLING)


def change_vocabulary(fields: Fields, weights: Weights, rng: random.Random) -> None:
    """A telling value for a field of the tokenizer, or for an item of one."""
    del weights
    key = f"tokenizer.ggml.{rng.choice(TOKENIZER_KEYS)}"
    value = fields.get(key)
    if isinstance(value, list) and value and rng.random() < 0.7:
        value = list(value)
        i = rng.randrange(len(value))
        match rng.randrange(3):
            case 0:
                value[i] = rng.choice([v for v in TELLING if type(v) is type(value[i])])
            case 1:
                value[i] = value[rng.randrange(len(value))]
            case _:
                del value[i]
        fields[key] = value
    else:
        fields[key] = rng.choice(TELLING)


def drop_field(fields: Fields, weights: Weights, rng: random.Random) -> None:
    """A field less."""
    del weights, fields[rng.choice(sorted(fields))]


def change_architecture(fields: Fields, weights: Weights, rng: random.Random) -> None:
    """Another architecture's name over the same fields."""
    del weights
    old, new = str(fields["general.architecture"]), rng.choice([*ARCHITECTURES, "gpt-x", ""])
    for key in [key for key in fields if key.startswith(old + ".")]:
        fields[new + key.removeprefix(old)] = fields.pop(key)
    fields["general.architecture"] = new


def reshape(fields: Fields, weights: Weights, rng: random.Random) -> None:
    """A weight of another shape."""
    del fields
    name = rng.choice(sorted(weights))
    if weights[name].encoding.decode is None:
        return  # another mutation made it so
    values = weights[name].decode()
    rows = values.reshape(-1, values.shape[-1])
    shapes = (values.T, rows[:1], rows[: len(rows) - 1], np.concatenate([rows, rows]), values.reshape(-1), rows[None],
              values.reshape(-1, 1), values.reshape(1, -1), np.ones((1,), np.float32), values[..., :16])  # fmt: skip
    values = rng.choice(shapes)
    if values.size:
        weights[name] = encode(Weight.from_values(name, np.ascontiguousarray(values), "F32"), rng.choice(ABLE))


def change_encoding(fields: Fields, weights: Weights, rng: random.Random) -> None:
    """A weight's bytes are another encoding's: any that GGML has."""
    del fields
    name, encoding = rng.choice(sorted(weights)), rng.choice(list(ENCODINGS.values()))
    shape = weights[name].shape
    if shape[-1] % encoding.values == 0:
        size = math.prod(shape) // encoding.values * encoding.size
        weights[name] = Weight.from_bytes(name, encoding, shape, np.frombuffer(rng.randbytes(size), np.uint8))


def change_bytes(fields: Fields, weights: Weights, rng: random.Random) -> None:
    """A weight's bytes are random, or all ones: scales that are huge, infinite or not numbers."""
    del fields
    name = rng.choice(sorted(weights))
    weight = weights[name]
    size = weight.nbytes
    data = rng.choice([rng.randbytes(size), b"\xff" * size, b"\x7c\x7c" * size])
    weights[name] = Weight.from_bytes(name, weight.encoding, weight.shape, np.frombuffer(data, np.uint8)[:size])


def change_number(fields: Fields, weights: Weights, rng: random.Random) -> None:
    """One number of a weight, as bytes."""
    del fields
    name = rng.choice(sorted(weights))
    weight = weights[name]
    data = weight.rows().reshape(-1).copy()
    new = struct.pack("<f", rng.choice([math.inf, math.nan, 0.0, -1.0, 3e38, 1e-45]))
    at = rng.randrange(0, len(data) // 2 * 2, 2) if len(data) > 1 else 0
    new = new[: len(data) - at]
    data[at : at + len(new)] = np.frombuffer(new, np.uint8)
    weights[name] = Weight.from_bytes(name, weight.encoding, weight.shape, data)


def rename(fields: Fields, weights: Weights, rng: random.Random) -> None:
    """A weight is missing, or has another's name, or one that nobody knows."""
    del fields
    weight = weights.pop(rng.choice(sorted(weights)))
    for name in rng.choice([[], ["blk.9.attn_q.weight"], [weight.name.replace("0", "1")], [weight.name + ".weight"],
                            ["output.weight"], [weight.name.replace(".weight", ".bias")], ["rope_freqs.weight"],
                            ["a\nb"], ["x" * 5000]]):  # fmt: skip
        weights[name] = replace(weight, name=name)


MUTATIONS = (
    change_field, change_field, change_field, change_vocabulary, change_vocabulary, drop_field, change_architecture,
    reshape, change_encoding, change_bytes, change_number, rename,
)  # fmt: skip


def mutant(rng: random.Random) -> Checkpoint:
    """A model with up to three mutations."""
    architecture = rng.choice(list(ARCHITECTURES))
    sizes: Fields = {} if rng.random() < 0.3 else odd_sizes(rng)
    if rng.random() < 0.3:
        sizes |= {"embedding_length": 256, "feed_forward_length": 256}
    if architecture == "deepseek2":  # whose heads have widths of their own
        sizes.pop("rope.dimension_count", None)
    if has_states(architecture):
        sizes |= odd_states(rng, architecture)
    checkpoint = random_checkpoint(architecture, sizes, optional=rng.random() < 0.5, seed=rng.randrange(99))
    if rng.random() < 0.2:
        checkpoint = fused(checkpoint)
    fields, weights = {**checkpoint.metadata, **vocabulary(rng)}, dict(checkpoint.weights)
    if rng.random() < 0.5:
        for name in optional_names(architecture):
            for layer in range(int(str(sizes.get("block_count", 2)))):
                weights.pop(full_name(name.format(layer)), None)
    reencode_all(weights, rng)
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        if "general.architecture" in fields and weights:
            rng.choice(MUTATIONS)(fields, weights, rng)
    return Checkpoint(checkpoint.path, fields, weights)


def use(llm: LLM, rng: random.Random) -> None:
    """A step of 5 tokens, a decode step, the same in one step, and a request to the engine."""
    text = llm.tokenize("the a b\n\u20ac") + [rng.randrange(llm._loaded.vocabulary) for _ in range(6)]
    ids = text[: min(6, llm.context)]
    runner = llm._loaded.runner

    def logits(part: list[int], begin: int, block: int) -> Float32Array:
        """In this block of each group, or in the only one."""
        tables = tuple(make_table([[min(block, blocks - 1)]]) for blocks in runner.limits.blocks)
        step = make_step([part], [begin], [[0]], range(len(part)))._replace(tables=tables)
        return runner.run(step)["logits"].copy()

    whole = logits(ids, 0, 1)
    parts = [logits(ids[:-1], 0, 0)] if len(ids) > 1 else []
    parts.append(logits(ids[-1:], len(ids) - 1, 0))
    if np.isfinite(whole).all() and not np.array_equal(whole, np.concatenate(parts)):
        raise Broken("the same tokens in one step and in two give other logits")
    llm.detokenize(ids, special=True)
    if len(ids) > 2:
        llm.generate(ids[:-2], max_tokens=2, temperature=rng.choice([0, 1.0]), seed=1, ignore_eos=True)


def load(path: Path, rng: random.Random) -> bool:
    """Whether the file is a model that runs; Broken for an error that is not one sentence."""
    try:
        with closing(LLM(path, threads=rng.choice([1, 2]), precision=rng.choice(["int8", "f32"]))) as llm:
            use(llm, rng)
    except (SotolError, ValueError) as error:
        if type(error) is not ValueError and not isinstance(error, SotolError):
            raise
        return sentence(error, limit=800)
    return True


def case(rng: random.Random, folder: Path) -> bool:
    """One file."""
    checkpoint = mutant(rng)
    path = folder / "case.gguf"
    try:
        write_gguf(path, checkpoint.metadata, checkpoint.weights.values())
    except ValueError:
        return False  # GGUF can't say it
    return load(path, rng)


def warm_up(folder: Path) -> None:
    """Unharmed models in every encoding, which must run: afterwards the kernels are compiled."""
    for architecture in ARCHITECTURES:
        for name in ABLE:
            rng = random.Random(architecture + name)
            sizes: Fields = {"embedding_length": 256, "feed_forward_length": 256, "attention.key_length": 64}
            sizes |= rng.choice([{}, {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}])
            sizes |= rng.choice([{}, {"attention.key_length": 16}])
            checkpoint = random_checkpoint(architecture, sizes | wide_sizes(architecture))
            weights = [encode(w, name) if is_matrix(w) else w for w in checkpoint.weights.values()]
            write_gguf(folder / "case.gguf", {**checkpoint.metadata, **vocabulary(rng)}, weights)
            if not load(folder / "case.gguf", rng):
                raise Broken(f"{architecture} in {name} does not run")


if __name__ == "__main__":
    raise SystemExit(run("tests.fuzz.fuzz_load", case, warm_up, Bounds(alone=False)))
