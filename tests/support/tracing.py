"""Programs of random checkpoints of an architecture, and what can be read off them."""

from typing import Any

import numpy as np
from tests.support.checkpoints import random_checkpoint
from tests.support.running import limits_for, run_text

from sotol.backends.reference import ReferenceRunner
from sotol.models import trace_model
from sotol.program.memory import Paged
from sotol.program.program import Constant, Program
from sotol.quant import Float32Array

__all__ = ["CONTEXT", "IDS", "attributes", "logits_of", "program_of", "tables_by_layer", "windows_of"]

CONTEXT = 32
IDS = np.random.default_rng(8).integers(0, 48, 30).tolist()


def program_of(architecture: str, **keys: object) -> Program:
    """Of `random_checkpoint`; __ in a key is its dot."""
    fields = {key.replace("__", "."): value for key, value in keys.items()}
    return trace_model(random_checkpoint(architecture, fields), CONTEXT)


def attributes(program: Program, op: str, name: str) -> list[Any]:
    """An attribute of all uses of an op, in order."""
    return [node.attributes[name] for node in program.nodes if node.op.name == op]


def windows_of(program: Program) -> list[int]:
    """Of each layer's cache."""
    return [cache.layout.window for cache in program.caches() if isinstance(cache.layout, Paged)]


def tables_by_layer(program: Program) -> dict[int, Constant]:
    """Layers that rotate queries, and the table by which they do."""
    found = {}
    for node in program.nodes:
        if node.op.name == "rope" and node.layer is not None:
            (found[node.layer],) = (x for x in node.inputs if isinstance(x, Constant))
    return found


def logits_of(program: Program, ids: list[int]) -> Float32Array:
    """[T, V] in float64."""
    return run_text(ReferenceRunner(program, limits_for(program, CONTEXT), np.float64, np.float64), ids, [len(ids)])
