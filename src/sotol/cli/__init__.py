"""The `sotol` command: one file per command, and the table of them in `app.py`."""

from sotol.cli.app import main

__all__ = ["main"]
