"""Sotol: an LLM inference engine in Python all the way down.

    from sotol import LLM

    with LLM() as llm:  # or LLM("model.gguf")
        print(llm.chat([{"role": "user", "content": "Name three rivers."}]))

`help(sotol.LLM)` has the methods, `help(sotol.Sampling)` the options of a request.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sotol.answers.pieces import ToolCall
    from sotol.engine.options import Options, Sampling, Terms
    from sotol.errors import (
        FormatError,
        ModelError,
        ModelNotFoundError,
        QueueFullError,
        SotolError,
        TemplateError,
    )
    from sotol.llm import LLM
    from sotol.load_options import LoadOptions
    from sotol.prompts import Turn
    from sotol.results import Completion, Delta, Timings, TokenLogprob, TopLogprob, Usage
    from sotol.stream import AsyncStream, Stream
    from sotol.tokenizers import Tokenizer
    from sotol.tokenizers.chat import ChatTemplate

__version__ = "0.1.0"

# Where each public name is: `import sotol` itself takes a millisecond, and what is asked for is imported then.
_HOMES = {
    "LLM": "llm",
    "AsyncStream": "stream",
    "ChatTemplate": "tokenizers.chat",
    "Completion": "results",
    "Delta": "results",
    "FormatError": "errors",
    "LoadOptions": "load_options",
    "ModelError": "errors",
    "ModelNotFoundError": "errors",
    "Options": "engine.options",
    "QueueFullError": "errors",
    "Sampling": "engine.options",
    "SotolError": "errors",
    "Stream": "stream",
    "TemplateError": "errors",
    "Terms": "engine.options",
    "Timings": "results",
    "TokenLogprob": "results",
    "Tokenizer": "tokenizers",
    "ToolCall": "answers.pieces",
    "TopLogprob": "results",
    "Turn": "prompts",
    "Usage": "results",
}
__all__ = [
    "LLM",
    "AsyncStream",
    "ChatTemplate",
    "Completion",
    "Delta",
    "FormatError",
    "LoadOptions",
    "ModelError",
    "ModelNotFoundError",
    "Options",
    "QueueFullError",
    "Sampling",
    "SotolError",
    "Stream",
    "TemplateError",
    "Terms",
    "Timings",
    "TokenLogprob",
    "Tokenizer",
    "ToolCall",
    "TopLogprob",
    "Turn",
    "Usage",
    "__version__",
]

if not TYPE_CHECKING:  # or type checkers would believe that any name can be imported

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'sotol' has no attribute {name!r}")
        globals()[name] = thing = getattr(import_module(f"sotol.{_HOMES[name]}"), name)
        return thing

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
