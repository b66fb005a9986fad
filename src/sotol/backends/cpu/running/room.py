"""Room for the panels of a model's weights: in memory, or those of experts in a file, where memory can't hold them.

A token reads a few experts of many, so a mixture may run on a machine with less memory than it has weights. Then the
panels of experts are written, once a model loads, to a file without a name in the user's cache folder, which is mapped.
The system keeps what is read often in memory, and drops what is not. It costs as much disk as the experts have bytes,
their writing, and a read of the disk for each expert that is not there when a token takes it.
"""

import logging
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs

from sotol.backends.cpu.layout import CACHE_LINE
from sotol.backends.cpu.running.memory import Bytes, zeros
from sotol.backends.cpu.running.packing import room_for
from sotol.errors import SotolError
from sotol.formats.weights import Weight

__all__ = ["Sizes", "room_for_panels", "sizes_of"]


class Sizes(NamedTuple):
    """Bytes of panels."""

    all: int
    experts: int


def sizes_of(weights: Sequence[Weight]) -> Sizes:
    """What the panels of these weights take."""
    sizes = [(len(weight.shape) == 3, math.prod(room_for(weight))) for weight in weights]
    return Sizes(sum(size for _, size in sizes), sum(size for expert, size in sizes if expert))


def room_for_panels(weights: Sequence[Weight], *, experts_in_file: bool) -> dict[int, Bytes]:
    """Room by the id of the weight: uint8 [panels, bytes]. SotolError where a file is needed and can't be had."""
    if not experts_in_file:
        return _divided(weights, zeros(_whole(weights)))
    apart = [weight for weight in weights if len(weight.shape) == 3]
    rest = [weight for weight in weights if len(weight.shape) != 3]
    return _divided(rest, zeros(_whole(rest))) | _divided(apart, _in_file(_whole(apart)))


def _room(weight: Weight) -> int:
    count, size = room_for(weight)
    return -(-count * size // CACHE_LINE) * CACHE_LINE


def _whole(weights: Sequence[Weight]) -> int:
    return sum(map(_room, weights))


def _divided(weights: Sequence[Weight], arena: Bytes) -> dict[int, Bytes]:
    start, packed = 0, dict[int, Bytes]()
    for weight in weights:
        count, size = room_for(weight)
        packed[id(weight)] = arena[start : start + count * size].reshape(count, size)
        start += _room(weight)
    return packed


def cache_folder() -> Path:
    """Where the file is made. RuntimeError for a user without a home."""
    return Path(platformdirs.user_cache_dir("sotol"))


def _in_file(size: int) -> Bytes:
    """A file's bytes, shared with the system's cache; the file goes with the last view of them.

    All of its room on the disk is taken at once: a mapped file for which there is no room later would end the process.
    """
    if sys.platform == "win32" or not hasattr(os, "posix_fallocate"):
        raise SotolError("this machine's memory can't hold the model's experts, and on this system no file can")
    try:
        folder = cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            space = mmap.mmap(file.fileno(), size)
    except (OSError, RuntimeError) as error:
        raise SotolError(
            f"this machine's memory can't hold the model's experts, and a file of {size >> 20} MB for them can't be"
            f" made: {error}"
        ) from error
    logging.getLogger("sotol").warning(
        "the model's experts are kept in a file of %d MB in %s, since memory can't hold them", size >> 20, folder
    )
    return np.frombuffer(space, np.uint8)
