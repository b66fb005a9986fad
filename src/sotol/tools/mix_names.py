"""Names of mixes and encodings as people write them: in any case, and for errors as other programs call them."""

import re
from collections.abc import Sequence

from sotol.errors import meant
from sotol.quant import ENCODINGS

__all__ = ["encoders", "encoding_name", "name_of_mix", "no_encoder", "no_mix"]

SHORT_NAMES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}  # of mixes, as llama.cpp's tool has them

# What PyTorch, Ollama, LM Studio, mlx-lm and bitsandbytes call what is near: names without punctuation, the first that
# there is being meant.
ELSEWHERE = {
    **dict.fromkeys(("FP32", "FLOAT32", "FLOAT"), ("F32",)),
    **dict.fromkeys(("FP16", "FLOAT16", "HALF"), ("F16",)),
    "BFLOAT16": ("BF16",),
    **dict.fromkeys(("INT8", "8BIT", "Q8", "W8A16", "Q8KXL"), ("Q80",)),
    **dict.fromkeys(("6BIT", "Q6", "Q6KL", "Q6KXL"), ("Q6K",)),
    **dict.fromkeys(("5BIT", "Q5", "Q5KL", "Q5KXL"), ("Q5KM", "Q5K")),
    **dict.fromkeys(("INT4", "4BIT", "Q4", "Q4KL", "Q4KXL", "W4A16"), ("Q4KM", "Q4K")),
    **dict.fromkeys(("3BIT", "Q3", "Q3KXL"), ("Q3KM", "Q3K")),
    **dict.fromkeys(("2BIT", "Q2", "Q2KL", "Q2KXL"), ("Q2K",)),
}  # fmt: skip


def name_of_mix(text: str, mixes: Sequence[str]) -> str:
    """The name of a mix that somebody wrote, in any case; ValueError for what is none."""
    name = text.upper()
    name = SHORT_NAMES.get(name, name)
    if name not in mixes:
        raise no_mix(text, mixes)
    return name


def encoding_name(text: str, mixes: Sequence[str]) -> str:
    """The same of an encoding that weights can be given."""
    if text.upper() not in encoders():
        raise no_encoder(text, mixes)
    return text.upper()


def encoders() -> list[str]:
    """The encodings that weights can be given."""
    return [name for name, known in ENCODINGS.items() if known.encode is not None]


def no_mix(text: str, mixes: Sequence[str]) -> ValueError:
    """The error about a name that is no mix."""
    name = text.upper()
    hint = f"it is an encoding: --encoding {name}" if name in encoders() else _meant(text, mixes)
    return ValueError(f"there is no mix {text!r:.40}: {hint}")


def no_encoder(text: str, mixes: Sequence[str]) -> ValueError:
    """The error about a name that is no encoding, or one that no weight can be given."""
    name = text.upper()
    hint = f"it is a mix: --mix {name}" if name in mixes else _meant(text, encoders())
    return ValueError(f"there is no encoder for {text!r:.40}: {hint}")


def _meant(text: str, known: Sequence[str]) -> str:
    """What was meant, by the letters and digits alone; else what is spelled alike, or all that there are."""
    bare = re.sub("[^A-Z0-9]", "", text.upper()).removeprefix("UD")  # Unsloth's names begin with UD-
    names = {name.replace("_", ""): name for name in known}
    near = next((names[other] for other in (bare, *ELSEWHERE.get(bare, ())) if other in names), None)
    return meant(text.upper(), known) if near is None else f"did you mean {near!r}?"
