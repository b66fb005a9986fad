"""OpenVINO GenAI by its batching pipeline, of which one call is one step. It chooses tokens itself, the likeliest.

With the precision `f32` it runs int8 activations over quantised weights. Prompts that were seen stay in its cache.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from bench.engines.protocol import Ids, Setup

__all__ = ["OpenVino"]

BATCHED_TOKENS = 4096  # of one step, at least


class OpenVino:
    """precision: "f32" or "bf16"; RuntimeError where the CPU lacks the latter."""

    def __init__(self, setup: Setup, precision: str) -> None:
        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in able:
            raise RuntimeError("this CPU, or the level asked for, has no bf16")
        schedule = genai.SchedulerConfig()
        schedule.max_num_batched_tokens = max(BATCHED_TOKENS, setup.context)
        schedule.cache_size = 1  # GB
        schedule.enable_prefix_caching = True
        options = {"INFERENCE_NUM_THREADS": setup.threads, "INFERENCE_PRECISION_HINT": precision}
        self._pipeline = genai.ContinuousBatchingPipeline(setup.model, schedule, "CPU", options, {})
        self._requests = 0
        self.about = f"openvino-genai {version('openvino-genai')}"

    def prefill(self, ids: Ids) -> float:
        request = self._ask(ids, 1)
        begin = perf_counter()
        self._pipeline.step()
        seconds = perf_counter() - begin
        self._finish([request])
        return seconds

    def decode(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> float:
        requests = [self._ask(ids, len(answers) + 2) for ids in prompts]
        self._pipeline.step()  # the prompts
        self._pipeline.step()  # wakes the threads
        begin = perf_counter()
        for _ in answers:
            self._pipeline.step()
        seconds = perf_counter() - begin
        self._finish(requests)
        return seconds

    def first(self, ids: Ids) -> int:
        request = self._ask(ids, 1)
        self._pipeline.step()
        return int(request.read_all()[0].generated_ids[0])

    def memory(self) -> Mapping[str, int]:
        return {}

    def _ask(self, ids: Ids, tokens: int) -> Any:
        """A request, which lives as long as its handle."""
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        self._requests += 1
        return self._pipeline.add_request(self._requests, openvino.Tensor(np.array([ids], np.int64)), config)

    def _finish(self, requests: Sequence[Any]) -> None:
        """RuntimeError where the steps were not those that were meant."""
        if self._pipeline.has_non_finished_requests():
            raise RuntimeError(f"it took more steps than asked for {len(requests)} requests")
