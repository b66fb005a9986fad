"""Tables of rotary position embeddings, with the scalings that stretch a model's context.

r rotated pairs of channels; pair i turns by position / base**(i / r), unless a scaling changes its frequency.
"""

import math
from typing import NamedTuple

import numpy as np

from sotol import numerics
from sotol.errors import ModelError
from sotol.models.metadata import Fields
from sotol.numerics import Float64Array
from sotol.program.program import Constant

__all__ = ["Rope", "read_rope"]

NEAR = 64  # positions whose angles are near: few enough that arrays of them stay in the cache
FASTEST = 8.0  # radians a token; no model's pairs turn faster than 1, and sines are exact to 1e7 radians


class Rope(NamedTuple):
    """How one kind of layer rotates.

    scaling: "none"; "linear" (positions / factor: arXiv 2306.15595); "yarn" (arXiv 2309.00071: fast pairs stay, slow
    ones are divided by factor, between them a ramp, and cosines and sines grow by `attention_factor`).
    """

    pairs: int
    base: float
    scaling: str = "none"
    factor: float = 1.0
    original_context: int = 0
    attention_factor: float = 1.0
    fast: float = 32.0  # turns over the original context from which a pair is fast
    slow: float = 1.0  # and up to which it is slow

    def table(self, name: str, context: int, divisors: Float64Array | None = None) -> Constant:
        """Cosines and sines, float32 [context, 2, r]. divisors: [r] of the frequencies, as Llama 3's files give.

        ModelError for scalings or divisors that make a pair spin.
        """
        exponent = np.arange(self.pairs, dtype=np.float64) / self.pairs
        frequency = numerics.exp(-exponent * float(numerics.log(self.base)))
        if divisors is not None:
            with np.errstate(divide="ignore"):
                frequency = frequency / divisors
        size = 1.0
        if self.scaling == "linear":
            frequency = frequency / self.factor
        elif self.scaling == "yarn":
            frequency, size = self._yarn(frequency), self.attention_factor
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

    def _yarn(self, frequency: Float64Array) -> Float64Array:
        def pair_of(turns: float) -> float:
            """The pair that turns so often over the original context (a real number)."""
            return self.pairs * math.log(self.original_context / (turns * 2 * math.pi)) / math.log(self.base)

        low, high = max(math.floor(pair_of(self.fast)), 0), min(math.ceil(pair_of(self.slow)), 2 * self.pairs - 1)
        ramp = np.clip((np.arange(self.pairs) - low) / max(high - low, 0.001), 0, 1)
        return frequency * (1 - ramp) + frequency / self.factor * ramp


def read_rope(fields: Fields, width: int) -> Rope:
    """The rotation that the metadata describes, for heads of this width.

    As in llama.cpp, a factor without a type is linear. ModelError for a scaling that sotol does not have.
    """
    rotated = fields.integer("rope.dimension_count", width, least=2)
    if rotated % 2 or rotated > width:
        raise ModelError(f"rope.dimension_count is {rotated}: it must be even and at most the head width {width}")
    base = fields.number("rope.freq_base", 10000.0)
    if base <= 1:
        raise ModelError(f"rope.freq_base is {base}: it must be more than 1")
    scaling = fields.text("rope.scaling.type", "linear")
    factor = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0))
    if scaling in {"none", "linear"}:
        return Rope(rotated // 2, base, scaling, factor)
    if scaling == "yarn":
        return _read_yarn(fields, rotated // 2, base, factor)
    raise ModelError(f"rope.scaling.type is {scaling!r:.60}: sotol has none, linear and yarn")


def _read_yarn(fields: Fields, pairs: int, base: float, factor: float) -> Rope:
    """YaRN, whose attention factor is as `transformers` has it (modeling_rope_utils.py): given, or from mscales.

    GGUF has a given one as yarn_attn_factor, the mscale of all dimensions as yarn_log_multiplier, and attn_factor to
    multiply with. llama.cpp reads only the last for these architectures; files rarely have any.
    """

    def temperature(mscale: float) -> float:
        """The paper's equation 22, which recommends an mscale of 1: the square root of 1 / t."""
        return 1.0 + 0.1 * mscale * math.log(max(factor, 1.0))

    attention = temperature(1.0)
    if fields.has("rope.scaling.yarn_attn_factor"):
        attention = fields.number("rope.scaling.yarn_attn_factor")
    elif fields.has("rope.scaling.yarn_log_multiplier"):
        attention /= temperature(fields.number("rope.scaling.yarn_log_multiplier"))
    if fields.number("rope.scaling.yarn_ext_factor", 1.0) != 1.0:
        raise ModelError("rope.scaling.yarn_ext_factor must be 1: sotol has no other mixture of YaRN's frequencies")
    original = fields.integer(
        "rope.scaling.original_context_length",
        fields.integer("context_length") if fields.has("context_length") else None,
    )
    return Rope(
        pairs,
        base,
        "yarn",
        factor,
        original,
        attention * fields.number("rope.scaling.attn_factor", 1.0),
        fields.number("rope.scaling.yarn_beta_fast", 32.0),
        fields.number("rope.scaling.yarn_beta_slow", 1.0),
    )
