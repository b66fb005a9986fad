"""The table of backends: name -> module, imported on demand. `program/runner.py` has the interface of a backend."""

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from sotol.program.runner import Backend  # NumPy, which those who only want names do without

__all__ = ["BACKENDS", "backend"]

BACKENDS = {"cpu": "sotol.backends.cpu.running.backend", "reference": "sotol.backends.reference"}


def backend(name: str) -> "Backend":
    """The backend with this name; ValueError lists the names."""
    if name not in BACKENDS:
        raise ValueError(f"backend is {name!r:.80}; it must be one of {', '.join(BACKENDS)}")
    return cast("Backend", import_module(BACKENDS[name]))
