"""HTTP in the dialects of OpenAI, Anthropic and Ollama, over models that are loaded, or are when they are asked for.

`create_app(models)` is an ASGI application, for a server of your own or to mount in another application; `sotol serve`
runs one. Needs the extra: pip install "sotol[server]".
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sotol.server.app import create_app
    from sotol.server.models import Models, Offered, Served

_HOMES = {
    "Models": "models",
    "Offered": "models",
    "Served": "models",
    "create_app": "app",
}  # imported when they are asked for
__all__ = ["Models", "Offered", "Served", "create_app"]

if not TYPE_CHECKING:  # as in sotol/__init__.py

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'sotol.server' has no attribute {name!r}")
        globals()[name] = thing = getattr(import_module(f"sotol.server.{_HOMES[name]}"), name)
        return thing

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
