"""Which weight of a model gets which encoding, in the mixes that people know by name: Q4_K_M, IQ4_XS, …

The rules are those of llama.cpp 0.3.36's `llama_tensor_get_type_impl` and `tensor_type_fallback` (llama-quant.cpp), but
for what they say of Falcon alone. A mix is an encoding for most weights, and others for kinds of weights of which the
model's answers depend more: the output, values, what a feed-forward network adds, the first and last layers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from sotol.formats.weights import Weight
from sotol.models.binding.metadata import Metadata
from sotol.quant import ENCODINGS
from sotol.tools.mix_names import encoders, no_encoder, no_mix

__all__ = ["FILE_TYPES", "MIXES", "OTHER_FILE_TYPE", "Facts", "Mix", "facts_of", "fitting", "plan", "quantisable"]


class Facts(NamedTuple):
    """What rules ask of a model."""

    layers: int
    sharing: int  # query heads that share a head of keys and values
    experts: int
    importance: bool  # whether there is an importance matrix
    tied: bool  # whether the embedding is the output, too


class Place(NamedTuple):
    """Where a weight is among those of its kind."""

    number: int  # the layer; of values, how many come before it
    of: int

    def first(self, share: int) -> bool:
        """Whether it is in the first 1 / share of them."""
        return self.number < self.of // share

    @property
    def matters(self) -> bool:
        """Whether it is in the first or last eighth, or each third in between."""
        eighth = self.of // 8
        return self.number < eighth or self.number >= 7 * self.of // 8 or (self.number - eighth) % 3 == 2


Rule = Callable[[Facts, Place], str | None]  # an encoding, or None: the mix's own


def always(encoding: str) -> Rule:
    return lambda _facts, _place: encoding


def first(share: int, encoding: str, otherwise: str | None = None) -> Rule:
    return lambda _facts, place: encoding if place.first(share) else otherwise


def where_it_matters(encoding: str) -> Rule:
    return lambda _facts, place: encoding if place.matters else None


def where_shared(encoding: str, otherwise: str | None = None) -> Rule:
    """Where four query heads or more share values, these are few, and count more."""
    return lambda facts, _place: encoding if facts.sharing >= 4 else otherwise


def up_to(most: int, encoding: str, otherwise: str | None = None) -> Rule:
    return lambda _facts, place: encoding if place.number < most else otherwise


def without_importance(rule: Rule) -> Rule:
    return lambda facts, place: None if facts.importance else rule(facts, place)


def with_importance(rule: Rule) -> Rule:
    return lambda facts, place: rule(facts, place) if facts.importance else None


def middle_layers(encoding: str) -> Rule:
    return lambda _facts, place: encoding if place.of // 8 <= place.number < 7 * place.of // 8 else None


def few_bits(shared: str, otherwise: str) -> Rule:
    """Of values in mixes of about two bits."""
    return lambda facts, _place: shared if facts.sharing >= 4 or facts.experts >= 4 else otherwise


class Mix(NamedTuple):
    """An encoding for most weights, rules for kinds of them, and GGUF's number for all together.

    eight: of models with eight experts, which have few other weights: what they get, by kind.
    """

    file_type: int  # general.file_type, of llama.h's llama_ftype
    base: str
    rules: Mapping[str, Rule] = {}  # by kind: see `KINDS`
    output: str = "Q6_K"
    embedding: str | None = None  # of models that have an output of its own
    eight: Mapping[str, str] = {"attn_v": "Q8_0", "attn_k": "Q8_0"}
    of_experts: str | None = None  # the matrices of experts, where they are not as the others


FIVE_BIT_OUTPUT = {"attn_v": "Q8_0", "attn_k": "Q8_0", "attn_output": "Q5_K"}
TWO_BIT = {"attn_k": "Q4_K", "attn_output": "Q5_K"}


def tiny(file_type: int, base: str, embedding: str, values: str, output: str | None) -> Mix:
    """A mix of about two bits or less."""
    rules = {"attn_v": few_bits("Q4_K", values), "ffn_down": first(8, values)}
    if output is not None:
        rules["attn_output"] = always(output)
    return Mix(file_type, base, rules, "Q5_K", embedding, TWO_BIT)


def uniform(file_type: int, base: str, output: str = "Q6_K", embedding: str | None = None) -> Mix:
    return Mix(file_type, base, output=output, embedding=embedding)


MIXES: Mapping[str, Mix] = {
    "F32": uniform(0, "F32", "F32"),
    "F16": uniform(1, "F16", "F16"),
    "BF16": uniform(32, "BF16", "BF16"),
    "Q8_0": uniform(7, "Q8_0", "Q8_0"),
    "Q4_0": Mix(2, "Q4_0", {"ffn_down": with_importance(first(8, "Q4_1"))}),
    "Q4_1": uniform(3, "Q4_1"),
    "Q5_0": Mix(8, "Q5_0", {"ffn_down": with_importance(first(8, "Q5_1"))}),
    "Q5_1": uniform(9, "Q5_1"),
    "Q2_K": Mix(
        10, "Q2_K",
        {"attn_v": where_shared("Q4_K", "Q3_K"), "ffn_down": always("Q3_K"), "attn_output": always("Q3_K")},
        eight=FIVE_BIT_OUTPUT,
    ),
    "Q2_K_S": Mix(21, "Q2_K", {"attn_v": where_shared("Q4_K"), "ffn_down": first(8, "Q4_K")}),
    "Q3_K_S": Mix(11, "Q3_K", eight=FIVE_BIT_OUTPUT),
    "Q3_K_M": Mix(
        12, "Q3_K",
        {"attn_v": up_to(2, "Q5_K", "Q4_K"), "ffn_down": first(16, "Q5_K", "Q4_K"), "attn_output": always("Q4_K")},
        eight=FIVE_BIT_OUTPUT,
    ),
    "Q3_K_L": Mix(
        13, "Q3_K",
        {"attn_v": always("Q5_K"), "ffn_down": always("Q5_K"), "attn_output": always("Q5_K")},
        eight={"attn_v": "Q8_0", "attn_k": "Q8_0", "attn_output": "Q3_K"},
    ),
    "Q4_K_S": Mix(14, "Q4_K", {"attn_v": up_to(4, "Q5_K"), "ffn_down": first(8, "Q5_K")}, eight=FIVE_BIT_OUTPUT),
    "Q4_K_M": Mix(
        15, "Q4_K",
        {"attn_v": where_it_matters("Q6_K"), "ffn_down": where_it_matters("Q6_K")},
        eight=FIVE_BIT_OUTPUT,
    ),
    "Q5_K_S": uniform(16, "Q5_K"),
    "Q5_K_M": Mix(
        17, "Q5_K",
        {"attn_v": where_it_matters("Q6_K"), "ffn_down": where_it_matters("Q6_K")},
    ),
    "Q6_K": uniform(18, "Q6_K"),
    "IQ1_S": tiny(24, "IQ1_S", "Q2_K", "Q2_K", "IQ2_XXS"),
    "IQ1_M": tiny(31, "IQ1_M", "Q2_K", "Q2_K", "IQ2_XXS"),
    "IQ2_XXS": tiny(19, "IQ2_XXS", "Q2_K", "Q2_K", None),
    "IQ2_XS": tiny(20, "IQ2_XS", "Q2_K", "Q2_K", None),
    "IQ2_S": tiny(28, "IQ2_XS", "IQ3_S", "IQ3_S", "IQ3_S"),
    "IQ2_M": tiny(29, "IQ2_S", "IQ3_S", "IQ3_S", "IQ3_S"),
    "IQ3_XXS": Mix(
        23, "IQ3_XXS",
        {"attn_v": lambda facts, _: "Q4_K" if facts.sharing >= 4 else None if facts.importance else "IQ3_S",
         "attn_k": always("IQ2_S"), "attn_q": always("IQ2_S"), "attn_output": always("IQ3_S"),
         "ffn_down": without_importance(first(8, "Q4_K", "Q3_K"))},
        "Q5_K", "IQ3_S", FIVE_BIT_OUTPUT,
    ),
    "IQ3_XS": Mix(
        22, "IQ3_S",
        {"attn_v": where_shared("Q4_K"), "attn_k": always("IQ3_XXS"), "attn_q": always("IQ3_XXS"),
         "ffn_gate": middle_layers("IQ3_XXS"), "ffn_up": middle_layers("IQ3_XXS")},
        eight=FIVE_BIT_OUTPUT,
    ),
    "IQ3_S": Mix(26, "IQ3_S", {"attn_v": where_shared("Q4_K")}, eight=FIVE_BIT_OUTPUT),
    "IQ3_M": Mix(
        27, "IQ3_S",
        {"attn_v": always("Q4_K"), "attn_output": always("Q4_K"),
         "ffn_down": lambda facts, place: "Q4_K" if place.first(8) or (facts.experts == 8 and place.matters) else None},
        eight=FIVE_BIT_OUTPUT,
    ),
    "IQ4_NL": Mix(
        25, "IQ4_NL", {"attn_v": where_shared("Q5_K"), "ffn_down": without_importance(first(8, "Q5_K"))},
        eight=FIVE_BIT_OUTPUT,
    ),
    "IQ4_XS": Mix(
        30, "IQ4_XS", {"attn_v": where_shared("Q5_K"), "ffn_down": without_importance(first(8, "Q5_K"))},
        eight=FIVE_BIT_OUTPUT,
    ),
    "MXFP4_MOE": Mix(38, "Q8_0", output="Q8_0", eight={}, of_experts="MXFP4"),
    "TQ1_0": uniform(36, "TQ1_0", embedding="Q4_K"),
    "TQ2_0": uniform(37, "TQ2_0", embedding="Q4_K"),
}  # fmt: skip

# Of files whose weights were all given one encoding, that of the mix of about the same; 1024: the weights tell.
FILE_TYPES: Mapping[str, int] = {
    **{name: mix.file_type for name, mix in MIXES.items() if name == mix.base},
    "Q3_K": 12,
    "Q4_K": 15,
    "Q5_K": 17,
}
OTHER_FILE_TYPE = 1024  # LLAMA_FTYPE_GUESSED

# What an encoding becomes where rows are no whole blocks of 256.
SMALLER_BLOCKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}

# Matrices that stay as they are: small, or not multiplied by activations. Parts of names.
LEFT = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
LEFT_WHOLE = ("position_embd.weight", "token_types.weight")

# The kind of a weight, by part of its name; the first that fits.
KINDS = {
    "attn_qkv.weight": "attn_qkv", "attn_kv_b.weight": "attn_kv_b", "attn_v.weight": "attn_v",
    "attn_k.weight": "attn_k", "attn_q.weight": "attn_q", "attn_output.weight": "attn_output", "ffn_up": "ffn_up",
    "ffn_gate": "ffn_gate", "ffn_down": "ffn_down",
}  # fmt: skip
VALUES = ("attn_v", "attn_qkv", "attn_kv_b")
EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
LAYER = re.compile(r"blk\.(\d+)\.")
LARGE = 80  # layers of models of about 70 billion parameters, whose values are few


def facts_of(metadata: Metadata, weights: Mapping[str, Weight], *, importance: bool) -> Facts:
    """What rules ask, from the metadata and the names of weights."""

    def number(key: str, otherwise: int) -> int:
        value = metadata.find(key)
        value = max(value) if isinstance(value, list) and value else value
        return value if isinstance(value, int) and value > 0 else otherwise

    heads = number("attention.head_count", 1)
    return Facts(
        number("block_count", 1 + max((int(found[1]) for name in weights if (found := LAYER.match(name))), default=0)),
        heads // number("attention.head_count_kv", heads),
        number("expert_count", 0),
        importance,
        "output.weight" not in weights,
    )


def quantisable(weight: Weight) -> bool:
    """Whether a weight may get fewer bits: a matrix that activations are multiplied by, or that ids look up."""
    name = weight.name
    named = name.endswith("weight") and name not in LEFT_WHOLE and not any(part in name for part in LEFT)
    return any(n > 1 for n in weight.shape[:-1]) and named


def plan(
    weights: Sequence[Weight], facts: Facts, *, mix: str | None = None, encoding: str | None = None,
    patterns: Sequence[tuple[str, str]] = (),
) -> dict[str, str]:  # fmt: skip
    """The encoding of each weight by name: by a mix, or all the same. ValueError for a name that is none.

    patterns: encodings of weights whose names are like a pattern ("blk.*.ffn_down.*", with or without ".weight"), which
    hold before the mix; the first that fits. What may not get fewer bits stays as it is, but in F16 where it is
    quantised in a way that GGUF has not.
    """
    if (mix is None) == (encoding is None):
        raise ValueError("give a mix or an encoding, one of them")
    _check_names(weights, mix, [encoding] if encoding else [], patterns)
    values = [w.name for w in sorted(weights, key=_in_layers) if _kind(w.name) in VALUES]
    chosen = dict[str, str]()
    for weight in weights:
        by_hand = next((name for pattern, name in patterns if _alike(weight.name, pattern)), None)
        if by_hand is not None:
            chosen[weight.name] = fitting(weight, by_hand)
        elif not quantisable(weight):
            foreign = weight.encoding.integer is not None and weight.encoding.ggml_type is None
            chosen[weight.name] = "F16" if foreign else weight.encoding.name
        elif encoding is not None:
            chosen[weight.name] = fitting(weight, encoding)
        else:
            chosen[weight.name] = fitting(weight, _by_rules(MIXES[str(mix)], weight, facts, values))
    return chosen


def _check_names(
    weights: Sequence[Weight], mix: str | None, encodings: Sequence[str], patterns: Sequence[tuple[str, str]]
) -> None:
    """ValueError for a mix or an encoding that is none, and a pattern that no weight's name is like."""
    if mix is not None and mix not in MIXES:
        raise no_mix(mix, list(MIXES))
    able = encoders()
    for wanted in (*encodings, *(name for _, name in patterns)):
        if wanted not in able:
            raise no_encoder(wanted, list(MIXES))
    for pattern, _ in patterns:
        if not any(_alike(weight.name, pattern) for weight in weights):
            raise ValueError(f"no weight has a name like {pattern!r:.80}")


def fitting(weight: Weight, encoding: str) -> str:
    """The encoding, or one of smaller blocks where the weight's rows are no whole blocks of it; at last F16."""
    width = weight.shape[-1]
    for name in (encoding, SMALLER_BLOCKS.get(encoding, encoding)):
        if width % ENCODINGS[name].values == 0:
            return name
    return "F16"


def _by_rules(mix: Mix, weight: Weight, facts: Facts, values: Sequence[str]) -> str:
    """What a mix has for a weight, whatever the length of its rows."""
    name = weight.name
    if name == "output.weight" or (facts.tied and name in EMBEDDINGS):
        whole = weight.shape[-1] % ENCODINGS[mix.base].values == 0
        return mix.output if whole or ENCODINGS[mix.base].integer is None else "Q8_0"
    if name in EMBEDDINGS:
        return mix.embedding or mix.base
    if mix.of_experts is not None:
        return mix.of_experts if len(weight.shape) > 2 else mix.base
    kind = _kind(name)
    if facts.experts == 8 and kind in mix.eight and ENCODINGS[mix.base].integer is not None:
        return mix.eight[kind]
    place = Place(_layer(name), facts.layers)
    if kind in VALUES:
        place = Place(values.index(name), len(values))
    rule = mix.rules.get("attn_v" if kind in VALUES else kind)
    found = (rule(facts, place) if rule is not None else None) or mix.base
    if kind in VALUES and facts.layers == LARGE and facts.sharing > 1 and found in ("Q3_K", "Q4_K"):
        return "Q5_K"
    return found


def _kind(name: str) -> str:
    return next((kind for part, kind in KINDS.items() if part in name), "")


def _layer(name: str) -> int:
    found = LAYER.match(name)
    return int(found[1]) if found else 0


def _in_layers(weight: Weight) -> tuple[int, str]:
    return _layer(weight.name), weight.name


def _alike(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.weight")
