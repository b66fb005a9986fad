"""Which encoding each weight of a new file gets."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from sotol.errors import ModelError
from sotol.formats.weights import Weight
from sotol.models.binding.changes import in_model_order
from sotol.quant import ENCODINGS, Encoding

__all__ = ["FLOAT_TYPES", "TARGETS", "Planned", "default_encoding", "planned", "stays_f32"]

FLOAT_TYPES = ("F32", "F16", "BF16")
TARGETS = (*FLOAT_TYPES, "Q8_0")  # that a conversion may be asked for: others are `sotol quantize`'s
# Besides vectors and norms, what llama.cpp's converter leaves in F32 whatever it is asked for: routers, and the
# convolutions of recurrent layers.
ALWAYS_F32 = (
    "_norm.weight", ".ffn_gate_inp.weight", ".ffn_gate_inp_shexp.weight", ".ssm_conv1d.weight",
    ".shortconv.conv.weight",
)  # fmt: skip
FALLBACK = "F16"  # for rows that are not whole blocks, as llama.cpp's converter has it


class Planned(NamedTuple):
    """A weight, and the encoding that it gets."""

    weight: Weight
    encoding: Encoding

    @property
    def size(self) -> int:
        """Bytes in the new encoding."""
        return math.prod(self.weight.shape) // self.encoding.values * self.encoding.size


def default_encoding(weights: Iterable[Weight]) -> str:
    """The float type of most numbers, by the weights' bytes; F16 where most are in no float type."""
    sizes = Counter[str]()
    for weight in weights:
        if len(weight.shape) > 1:
            sizes[weight.encoding.name] += weight.nbytes
    name = sizes.most_common(1)[0][0] if sizes else "F32"
    return name if name in FLOAT_TYPES else "F16"


def stays_f32(name: str, weight: Weight) -> bool:
    """Whether a weight of this name, of GGUF's, is in F32 whatever the others are in: a vector, or of `ALWAYS_F32`."""
    return len(weight.shape) < 2 or not name.endswith(".weight") or name.endswith(ALWAYS_F32)


def planned(name: str, weight: Weight, target: str, *, keep: bool = False) -> Planned:
    """The encoding for a weight of this name, of GGUF's, in a file of this target.

    keep: integer encodings that GGUF has stay as they are, but where inputs have an order of their own, which files in
    neither format can say: then numbers are put into the model's. ModelError for a weight that can't be decoded.
    """
    weight = in_model_order(weight)
    if keep and weight.encoding.integer is not None and weight.encoding.ggml_type is not None:
        return Planned(weight, weight.encoding)
    if weight.encoding.decode is None:
        raise ModelError(f"weight {name} is {weight.encoding.name}, which sotol can't decode")
    if stays_f32(name, weight):
        return Planned(weight, ENCODINGS["F32"])
    encoding = ENCODINGS[target]
    return Planned(weight, ENCODINGS[FALLBACK] if weight.shape[-1] % encoding.values else encoding)
