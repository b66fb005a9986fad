"""The `sotol` command: one file per command, and the table of them in `app.py`."""

import gc
import os

from sotol.cli.interrupts import at_once
from sotol.cli.streams import put_in_order

__all__ = ["main"]


def main() -> None:
    """The console script."""
    at_once()
    put_in_order()
    # Starting makes a great many objects that stay: looking through them for garbage again and again takes a tenth
    # of the time that imports and loading take.
    gc.set_threshold(100_000, 20, 20)
    # NumPy's BLAS would start threads, each with memory of its own, and nothing here multiplies matrices with it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from sotol.cli.app import main as run_command  # noqa: PLC0415  (after the above)

    run_command()
