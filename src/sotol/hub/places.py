"""Where the Hub is and where its cache lies, by the environment variables of `huggingface_hub`.

https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
"""

import os
from pathlib import Path
from typing import NamedTuple

from sotol.errors import SotolError, plain

__all__ = ["HUB", "Places", "places"]

HUB = "https://huggingface.co"
YES = {"1", "on", "yes", "true"}


class Places(NamedTuple):
    """cache: the folder of models--… folders. endpoint: the Hub's address, without / at its end. offline: stay here."""

    cache: Path
    endpoint: str
    offline: bool


def places() -> Places:
    """What the environment says now; SotolError for an endpoint that is no address."""
    read = os.environ.get
    cache = read("HF_HUB_CACHE") or read("HUGGINGFACE_HUB_CACHE")
    if not cache:
        home = read("HF_HOME") or str(Path(read("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
        cache = str(Path(home) / "hub")
    endpoint = (read("HF_ENDPOINT") or HUB).rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise SotolError(f"HF_ENDPOINT is {plain(repr(endpoint))}: it must be an address as {HUB}")
    offline = any(read(name, "").casefold() in YES for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    folder = Path(os.path.expanduser(os.path.expandvars(cache)))  # noqa: PTH111  (Path's own fails for unknown users)
    return Places(folder, endpoint, offline)
