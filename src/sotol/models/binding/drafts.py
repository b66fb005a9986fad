"""Layers that draft tokens ahead of the model's own: they are left out, since without them a model says the same.

Multi-token prediction (arXiv 2412.19437, section 2.2). Such layers have names of their own, or come right after the
model's layers, as many as the metadata says; GGUF counts them among the layers, config.json does not.
"""

import re
from collections.abc import Mapping

from sotol.formats.weights import Checkpoint, Weight

__all__ = ["GGUF_DRAFTS", "draft_names", "without_drafts"]

NAMED = re.compile(r"(model\.)?mtp\..*")
BLOCK = re.compile(r"(?:blk|(?:model|backbone)\.layers)\.(\d{1,9})\.")
GGUF_DRAFTS = "nextn_predict_layers"  # how many


def draft_names(checkpoint: Checkpoint) -> list[str]:
    """The names of weights that are left out, without ".weight"."""
    plain = {name.removesuffix(".weight"): weight for name, weight in checkpoint.weights.items()}
    kept = without_drafts(checkpoint, plain)
    return [name for name in plain if name not in kept]


def without_drafts(checkpoint: Checkpoint, weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """These weights of the checkpoint without those of layers that draft."""
    drafts = _draft_layers(checkpoint.metadata)
    return {
        name: weight
        for name, weight in weights.items()
        if not NAMED.fullmatch(name) and not ((found := BLOCK.match(name)) and int(found[1]) in drafts)
    }


def _draft_layers(data: Mapping[str, object]) -> range:
    """The numbers of layers that draft, right behind the model's own."""
    name = data.get("general.architecture")
    if name is not None:
        layers, more = data.get(f"{name}.block_count"), data.get(f"{name}.{GGUF_DRAFTS}")
    else:
        layers, more = data.get("num_hidden_layers"), data.get("num_nextn_predict_layers", data.get("num_mtp_layers"))
    if not isinstance(layers, int) or not isinstance(more, int) or more < 1:
        return range(0)
    own = layers - more if name is not None else layers
    return range(own, own + more)
