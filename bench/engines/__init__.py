"""Engines under measurement, each alone in its process and in its own Python environment (`__main__.py`).

Only the standard library is imported here, and an engine's package only when it is built.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bench.engines.protocol import Engine, Setup

__all__ = ["ENGINES", "Kind"]


@dataclass(frozen=True, slots=True)
class Kind:
    """An engine in one of its settings, of which the better one counts."""

    family: str  # the engine's name, as tables show it
    setting: str  # "" where there is one only
    environment: str  # whose Python runs it: a key of `peers.PYTHONS`
    build: Callable[[Setup], Engine]
    batches: bool = True  # runs several sequences in one step


def _sotol(setup: Setup) -> Engine:
    from bench.engines.sotol import Sotol  # noqa: PLC0415 (each engine has another Python)
    from bench.engines.stepping import Stepping  # noqa: PLC0415

    return Stepping(Sotol(setup))


def _llama(setup: Setup, *, flash: bool) -> Engine:
    from bench.engines.llama import Llama, llama_cpp  # noqa: PLC0415
    from bench.engines.stepping import Stepping  # noqa: PLC0415

    return Stepping(Llama(llama_cpp(), setup, flash=flash))


def _ik(setup: Setup, *, flash: bool) -> Engine:
    from bench.engines.llama import Llama, ik_llama_cpp  # noqa: PLC0415
    from bench.engines.stepping import Stepping  # noqa: PLC0415

    return Stepping(Llama(ik_llama_cpp(), setup, flash=flash))


def _openvino(setup: Setup, precision: str) -> Engine:
    from bench.engines.openvino import OpenVino  # noqa: PLC0415

    return OpenVino(setup, precision)


def _vllm(setup: Setup) -> Engine:
    from bench.engines.vllm import Vllm  # noqa: PLC0415

    return Vllm(setup)


def _plain_read(setup: Setup) -> Engine:
    from bench.engines.plain_read import PlainRead  # noqa: PLC0415

    return PlainRead(setup)


ENGINES: dict[str, Kind] = {
    "sotol": Kind("sotol", "", "sotol", _sotol),
    "llama.cpp": Kind("llama.cpp", "", "llama", lambda setup: _llama(setup, flash=False)),
    "llama.cpp flash": Kind("llama.cpp", "flash", "llama", lambda setup: _llama(setup, flash=True)),
    "ik_llama.cpp": Kind("ik_llama.cpp", "", "ik", lambda setup: _ik(setup, flash=False)),
    # Several sequences with flash attention abort its process.
    "ik_llama.cpp flash": Kind("ik_llama.cpp", "flash", "ik", lambda setup: _ik(setup, flash=True), batches=False),
    "OpenVINO int8": Kind("OpenVINO", "int8", "openvino", lambda setup: _openvino(setup, "f32")),
    "OpenVINO bf16": Kind("OpenVINO", "bf16", "openvino", lambda setup: _openvino(setup, "bf16")),
    "vLLM": Kind("vLLM", "bf16", "vllm", _vllm),
    "plain read": Kind("plain read", "", "sotol", _plain_read),
}
