"""Tables of rotary position embeddings, with the scalings that stretch a model's context.

r rotated pairs of channels; pair i turns by position / base**(i / r), unless a scaling changes its frequency.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sotol import numerics
from sotol.arrays import Float64Array
from sotol.errors import ModelError
from sotol.models.binding.metadata import Keys, Metadata
from sotol.program.program import Constant

__all__ = ["ROPE_KEYS", "Rope", "read_longrope", "read_ntk", "read_rope"]

NEAR = 64  # positions whose angles are near: few enough that arrays of them stay in the cache
# transformers 5 has all in rope_parameters, transformers 4 a scaling beside the base.
ROPE_KEYS: Keys = {
    "rope.freq_base": ("rope_parameters.rope_theta", "rope_theta"),
    "rope.scaling.type": ("rope_parameters.rope_type", "rope_scaling.rope_type", "rope_scaling.type"),
    **{
        f"rope.scaling.{ours}": (f"rope_parameters.{theirs}", f"rope_scaling.{theirs}")
        for ours, theirs in {
            "factor": "factor",
            "original_context_length": "original_max_position_embeddings",
            "yarn_attn_factor": "attention_factor",
            "yarn_beta_fast": "beta_fast",
            "yarn_beta_slow": "beta_slow",
            "yarn_log_multiplier": "mscale_all_dim",
            "yarn_mscale": "mscale",  # GGUF has no such key, nor the next ones
            "truncate": "truncate",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
        }.items()
    },
}
PARTIAL = ("rope_parameters.partial_rotary_factor", "partial_rotary_factor")  # of an architecture's keys, if it is so
FASTEST = 8.0  # radians a token; no model's pairs turn faster than 1, and sines are exact to 1e7 radians


class Rope(NamedTuple):
    """How one kind of layer rotates.

    scaling: "none"; "linear" (positions / factor: arXiv 2306.15595); "yarn" (arXiv 2309.00071: fast pairs stay, slow
    ones are divided by factor, between them a ramp, and cosines and sines grow by `attention_factor`); "llama3" (short
    waves stay, long ones are divided by factor, between them a ramp: transformers' modeling_rope_utils.py); "longrope"
    (arXiv 2402.13753: each pair has a divisor of its own, one for contexts up to the original one, and one for longer
    ones; cosines and sines grow by `attention_factor`).
    """

    pairs: int
    base: float
    scaling: str = "none"
    factor: float = 1.0
    original_context: int = 0
    attention_factor: float = 1.0
    fast: float = 32.0  # turns over the original context from which a pair is fast
    slow: float = 1.0  # and up to which it is slow
    long: float = 1.0  # waves longer than the original context over this are long
    short: float = 4.0  # and shorter than the original context over this are short
    rounded: bool = True  # whether YaRN's ramp begins and ends at whole pairs
    short_factors: tuple[float, ...] = ()  # LongRoPE's divisors up to the original context
    long_factors: tuple[float, ...] = ()  # and beyond
    whole: int = 0  # pairs over which frequencies fall to 1 / base, where not all of them rotate; 0: `pairs`

    def table(self, name: str, context: int, divisors: Float64Array | None = None) -> Constant:
        """Cosines and sines, float32 [context, 2, r]. divisors: [r] of the frequencies, as Llama 3's files give.

        ModelError for scalings or divisors that make a pair spin.
        """
        exponent = np.arange(self.pairs, dtype=np.float64) / (self.whole or self.pairs)
        frequency = numerics.exp(-exponent * float(numerics.log(self.base)))
        if self.scaling == "llama3":
            divisors = self.divisors()
        elif self.scaling == "longrope":
            given = self.long_factors if context > self.original_context else self.short_factors
            divisors = np.array(given, np.float32).astype(np.float64)
        if divisors is not None:
            with np.errstate(divide="ignore"):
                frequency = frequency / divisors
        size = 1.0
        if self.scaling == "linear":
            frequency = frequency / self.factor
        elif self.scaling == "yarn":
            frequency, size = self._yarn(frequency), self.attention_factor
        elif self.scaling == "longrope":
            size = self.attention_factor
        if not (np.abs(frequency) <= FASTEST).all():
            raise ModelError(
                f"{name}: the file's scaling of RoPE turns a pair by more than {FASTEST:g} radians a token"
            )
        # Sines of sums of a far and a near angle: a table's own sines would take as long as reading its file.
        fars = -(-context // NEAR)
        near_sine, near_cosine = numerics.sincos(np.arange(float(NEAR))[:, None] * frequency)
        far_sine, far_cosine = numerics.sincos(np.arange(0.0, fars * NEAR, NEAR)[:, None] * frequency)
        table = np.empty((fars, NEAR, 2, self.pairs), np.float32)
        for part, sine, cosine in zip(table, far_sine, far_cosine, strict=True):
            part[:, 0] = (cosine * near_cosine - sine * near_sine) * size
            part[:, 1] = (sine * near_cosine + cosine * near_sine) * size
        return Constant(name, table.reshape(-1, 2, self.pairs)[:context])

    def letters(self, _layer: int | None) -> Mapping[str, int]:
        """Sizes by the letters of the tables of weights."""
        return {"r": self.pairs}

    def divisors(self) -> Float64Array:
        """Llama 3's divisors of the frequencies, [r], rounded to float32 as GGUF files have them."""
        exponent = np.arange(self.pairs, dtype=np.float64) / self.pairs
        waves = 2 * math.pi * numerics.exp(exponent * float(numerics.log(self.base)))
        kept = np.clip((self.original_context / waves - self.long) / (self.short - self.long), 0, 1)
        return (1 / ((1 - kept) / self.factor + kept)).astype(np.float32).astype(np.float64)

    def _yarn(self, frequency: Float64Array) -> Float64Array:
        def pair_of(turns: float) -> float:
            """The pair that turns so often over the original context (a real number)."""
            return self.pairs * math.log(self.original_context / (turns * 2 * math.pi)) / math.log(self.base)

        low, high = pair_of(self.fast), pair_of(self.slow)
        if self.rounded:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0.0), min(high, 2.0 * self.pairs - 1)
        ramp: Float64Array = np.clip((np.arange(self.pairs) - low) / max(high - low, 0.001), 0, 1)
        return frequency * (1 - ramp) + frequency / self.factor * ramp


def read_rope(metadata: Metadata, width: int) -> Rope:
    """The rotation that the metadata describes, for heads of this width.

    As in llama.cpp, a factor without a type is linear. ModelError for a scaling that sotol does not have.
    """
    pairs, base = _pairs_and_base(metadata, width)
    scaling = metadata.text("rope.scaling.type", "linear")
    factor = metadata.number("rope.scaling.factor", metadata.number("rope.scale_linear", 1.0))
    if scaling in {"default", "mrope"}:  # as config.json says it; of models that see: a text's positions are all one
        return Rope(pairs, base)
    if scaling in {"none", "linear"}:
        return Rope(pairs, base, scaling, factor)
    if scaling == "llama3":
        return _read_llama3(metadata, Rope(pairs, base, scaling, factor))
    if scaling == "yarn":
        return _read_yarn(metadata, pairs, base, factor)
    raise ModelError(f"rope.scaling.type is {scaling!r:.60}: sotol has none, linear and yarn, and config.json's llama3")


def _pairs_and_base(metadata: Metadata, width: int) -> tuple[int, float]:
    """How many pairs of a head rotate, and the base of their frequencies.

    config.json gives a share of the head; architectures that do not rotate by it leave it out of their keys.
    """
    if not metadata.has("rope.partial_rotary_factor"):
        for place in PARTIAL:
            metadata.expect(place, 1)
    share = metadata.number("rope.partial_rotary_factor", 1.0)
    rotated = metadata.integer("rope.dimension_count", max(2, int(width * share)), least=2)
    if rotated % 2 or rotated > width:
        raise ModelError(f"rope.dimension_count is {rotated}: it must be even and at most the head width {width}")
    base = metadata.number("rope.freq_base", 10000.0)
    if base <= 1:
        raise ModelError(f"rope.freq_base is {base}: it must be more than 1")
    return rotated // 2, base


def read_longrope(metadata: Metadata, width: int) -> Rope:
    """LongRoPE, for heads of this width, as `transformers` has it (modeling_rope_utils.py).

    GGUF files have its divisors as weights, and the attention factor as a key; config.json may leave the latter to be
    computed. ModelError names what is missing or wrong.
    """
    pairs, base = _pairs_and_base(metadata, width)
    context = metadata.integer("context_length")
    original = metadata.integer("rope.scaling.original_context_length", context, least=2)
    factor = metadata.number("rope.scaling.factor", context / original)
    attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    for key in ("rope.scaling.yarn_attn_factor", "rope.scaling.attn_factor"):
        attention = metadata.number(key, attention)
    attention = float(np.float32(attention))  # as GGUF has it
    short, long = (
        metadata.numbers(key, pairs) if metadata.has(key) else ()
        for key in ("rope.scaling.short_factor", "rope.scaling.long_factor")
    )
    return Rope(pairs, base, "longrope", factor, original, attention, short_factors=short, long_factors=long)


def read_ntk(metadata: Metadata, width: int) -> Rope:
    """A rotation whose base is stretched by a fixed alpha, to base * alpha**(r / (r - 1)): NTK-aware scaling.

    Without alpha, as `read_rope` reads it. config.json calls it "dynamic", as it does another one, which depends on the
    sequence's length; GGUF has the stretched base.
    """
    alpha = metadata.number("rope.scaling.alpha", 0.0, zero=True)
    if not alpha or metadata.text("rope.scaling.type", "dynamic") != "dynamic":
        return read_rope(metadata, width)
    pairs, base = _pairs_and_base(metadata, width)
    if pairs == 1:
        raise ModelError("rope.scaling.alpha is for heads of which more than one pair rotates")
    stretched = base * float(numerics.exp(numerics.log(alpha) * pairs / (pairs - 1)))
    return Rope(pairs, float(np.float32(stretched)))  # as GGUF has it


def _read_llama3(metadata: Metadata, rope: Rope) -> Rope:
    long, short = metadata.number("rope.scaling.low_freq_factor"), metadata.number("rope.scaling.high_freq_factor")
    if long >= short:
        raise ModelError(f"rope.scaling.low_freq_factor is {long}: it must be less than high_freq_factor, {short}")
    original = metadata.integer("rope.scaling.original_context_length")
    return rope._replace(original_context=original, long=long, short=short)


def _read_yarn(metadata: Metadata, pairs: int, base: float, factor: float) -> Rope:
    """YaRN, whose attention factor is as `transformers` has it (modeling_rope_utils.py): given, or from mscales.

    GGUF has a given one as yarn_attn_factor, the mscale of all dimensions as yarn_log_multiplier, and attn_factor to
    multiply with. llama.cpp reads only the last for these architectures; files rarely have any.
    """

    def temperature(mscale: float) -> float:
        """The paper's equation 22, which recommends an mscale of 1: the square root of 1 / t."""
        return 1.0 + 0.1 * mscale * math.log(max(factor, 1.0))

    attention, config = temperature(1.0), metadata.keys is not None
    if metadata.has("rope.scaling.yarn_attn_factor"):
        attention = metadata.number("rope.scaling.yarn_attn_factor")
    elif (all_dimensions := metadata.number("rope.scaling.yarn_log_multiplier", 0.0, zero=True)) and (
        not config or metadata.has("rope.scaling.yarn_mscale")  # one without the other has no say
    ):
        attention = temperature(metadata.number("rope.scaling.yarn_mscale", 1.0)) / temperature(all_dimensions)
    if metadata.number("rope.scaling.yarn_ext_factor", 1.0) != 1.0:
        raise ModelError("rope.scaling.yarn_ext_factor must be 1: sotol has no other mixture of YaRN's frequencies")
    original = metadata.integer(
        "rope.scaling.original_context_length",
        metadata.integer("context_length") if metadata.has("context_length") else None,
    )
    return Rope(
        pairs,
        base,
        "yarn",
        factor,
        original,
        attention * metadata.number("rope.scaling.attn_factor", 1.0),
        metadata.number("rope.scaling.yarn_beta_fast", 32.0),
        metadata.number("rope.scaling.yarn_beta_slow", 1.0),
        rounded=metadata.find("rope.scaling.truncate") is not False,
    )
