"""Tables of rotary position embeddings, with the scalings that stretch a model's context.

r rotated pairs of channels; pair i turns by position / base**(i / r), unless a scaling changes its frequency.
"""

import math
from dataclasses import dataclass

import numpy as np

from sotol import numerics
from sotol.errors import ModelError
from sotol.models.metadata import Fields
from sotol.numerics import Float64Array
from sotol.program.trace import Constant

__all__ = ["Rope", "read_rope"]


@dataclass(frozen=True, slots=True)
class Rope:
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
        """Cosines and sines, float32 [context, 2, r]. divisors: [r] of the frequencies, as Llama 3's files give."""
        exponent = np.arange(self.pairs, dtype=np.float64) / self.pairs
        frequency = numerics.exp(-exponent * float(numerics.log(self.base)))
        if divisors is not None:
            frequency = frequency / divisors
        size = 1.0
        if self.scaling == "linear":
            frequency = frequency / self.factor
        elif self.scaling == "yarn":
            frequency, size = self._yarn(frequency), self.attention_factor
        angle = np.arange(context, dtype=np.float64)[:, None] * frequency
        sine, cosine = numerics.sincos(angle)
        return Constant(name, np.stack([cosine * size, sine * size], axis=1).astype(np.float32))

    def _yarn(self, frequency: Float64Array) -> Float64Array:
        def pair_of(turns: float) -> float:
            """The pair that turns so often over the original context (a real number)."""
            return self.pairs * math.log(self.original_context / (turns * 2 * math.pi)) / math.log(self.base)

        low, high = max(math.floor(pair_of(self.fast)), 0), min(math.ceil(pair_of(self.slow)), 2 * self.pairs - 1)
        ramp = np.clip((np.arange(self.pairs) - low) / max(high - low, 0.001), 0, 1)
        return frequency * (1 - ramp) + frequency / self.factor * ramp


def read_rope(fields: Fields, width: int) -> Rope:
    """The rotation that the metadata describes, for heads of this width.

    ModelError for a scaling that sotol does not have.
    """
    rotated = fields.integer("rope.dimension_count", width, least=2)
    if rotated % 2 or rotated > width:
        raise ModelError(f"rope.dimension_count is {rotated}: it must be even and at most the head width {width}")
    scaling = fields.text("rope.scaling.type", "none")
    factor = fields.number("rope.scaling.factor", 1.0)
    rope = Rope(rotated // 2, fields.number("rope.freq_base", 10000.0), scaling, factor)
    if scaling in {"none", "linear"}:
        return rope
    if scaling == "yarn":
        original = fields.integer("rope.scaling.original_context_length")
        # YaRN's recommended temperature, in both cosine and sine (its equation 15), unless the file gives another.
        attention = fields.number("rope.scaling.attn_factor", 1.0) * (0.1 * math.log(factor) + 1.0)
        fast = fields.number("rope.scaling.yarn_beta_fast", 32.0)
        slow = fields.number("rope.scaling.yarn_beta_slow", 1.0)
        return Rope(rope.pairs, rope.base, scaling, factor, original, attention, fast, slow)
    raise ModelError(f"rope.scaling.type is {scaling!r}: sotol has none, linear and yarn")
