"""How a model is sampled where a request says nothing: as its operator says, else as its makers do, else as sotol does.

Makers say it in generation_config.json of Hugging Face's folders, and in `general.sampling.*` of GGUF files.
"""

import logging
from collections.abc import Mapping
from typing import Any

from sotol.engine.options import Sampling
from sotol.errors import plain

__all__ = ["recommended", "sampling_of"]

log = logging.getLogger("sotol.server")
# Fields of `Sampling` -> where a GGUF file has them, and where generation_config.json does.
NAMES = {
    "temperature": ("general.sampling.temp", "temperature"),
    "top_k": ("general.sampling.top_k", "top_k"),
    "top_p": ("general.sampling.top_p", "top_p"),
    "min_p": ("general.sampling.min_p", "min_p"),
    "repeat_penalty": ("general.sampling.penalty_repeat", "repetition_penalty"),
    "repeat_last_n": ("general.sampling.penalty_last_n", ""),
}


def recommended(metadata: Mapping[str, object]) -> dict[str, Any]:
    """Fields of `Sampling` that a model's makers recommend. A value that can't be is left out, with a warning."""
    config = metadata.get("generation_config")
    generation = config if isinstance(config, Mapping) else {}
    found: dict[str, Any] = {}
    for field, (key, name) in NAMES.items():
        value = metadata.get(key, generation.get(name))
        if value is None:
            continue
        try:
            Sampling.of(None, **{field: value})
        except ValueError as error:
            log.warning("the model's own sampling is not used: %s", plain(error))
        else:
            found[field] = value
    return found


def sampling_of(metadata: Mapping[str, object], options: Mapping[str, Any] | None = None) -> Sampling:
    """What holds where a request says nothing. options: the operator's, of which None says nothing.

    ValueError for an option that is out of its range.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    return Sampling.of(None, **{**recommended(metadata), **given})
