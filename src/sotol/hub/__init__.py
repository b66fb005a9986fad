"""Models of a Hub by name: which files a name means, fetching them, and the cache of what was fetched.

The Hub is huggingface.co, or what HF_ENDPOINT names. The cache is that of `huggingface_hub`, file for file: what either
has pulled, both find. Only pulling needs that package (pip install "sotol[hub]"): names and the cache are read without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sotol.hub.cache import Pulled, find_pulled, pulled, remove
    from sotol.hub.names import HubName, parse_name
    from sotol.hub.pulling import available, pull

_HOMES = {
    "HubName": "names", "Pulled": "cache", "available": "pulling", "find_pulled": "cache", "parse_name": "names",
    "pull": "pulling", "pulled": "cache", "remove": "cache",
}  # fmt: skip
__all__ = ["HubName", "Pulled", "available", "find_pulled", "parse_name", "pull", "pulled", "remove"]

if not TYPE_CHECKING:  # as in sotol/__init__.py

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'sotol.hub' has no attribute {name!r}")
        globals()[name] = thing = getattr(import_module(f"sotol.hub.{_HOMES[name]}"), name)
        return thing

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
