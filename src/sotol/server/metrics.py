"""Metrics for Prometheus: of requests, of answers, and of how full the engines are. Each server has its own registry.

`examples/grafana.json` is a dashboard of them, and docs/server.md lists them.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sotol import __version__
from sotol.llm import LLM
from sotol.results import Completion

__all__ = ["Metrics", "Running"]

# Seconds: of a request, until a first token, and between two tokens.
LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"}

Running = Callable[[], Mapping[str, LLM]]  # the loaded models by name


class Metrics:
    """What a server counts. running: what to ask how busy the engines are."""

    def __init__(self, running: Running = dict) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(_Loads(running))
        Info("sotol_build", "The version of sotol.", registry=registry).info({"version": __version__})

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"sotol_{name}", help_text, labels, registry=registry)

        def seconds(name: str, help_text: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(f"sotol_{name}_seconds", help_text, labels, buckets=tuple(buckets), registry=registry)

        self._requests = counter("http_requests", "Requests that ended.", "route", "method", "status")
        self._durations = seconds("http_request", "From a request's head to the end of its answer.", LONG, "route")
        self.running = Gauge("sotol_http_requests_running", "Requests under way.", registry=registry)
        self._answers = counter("answers", "Finished answers.", "model", "reason")
        self._prompt = counter("prompt_tokens", "Tokens of prompts.", "model")
        self._cached = counter("cached_prompt_tokens", "Of these, those that were known already.", "model")
        self._generated = counter("generated_tokens", "Tokens of answers.", "model")
        self._queued = seconds("queue", "In the queue.", FIRST, "model")
        self._first = seconds("first_token", "From the question to the first token.", FIRST, "model")
        self._loads = counter("model_loads", "Models that were loaded, or could not be.", "model", "outcome")
        self._load_seconds = seconds("model_load", "Loading a model, making room for it included.", LONG, "model")
        self._unloads = counter("model_unloads", "Models that were unloaded.", "model", "reason")
        self._between = seconds("between_tokens", "Between two tokens: an answer's mean.", SHORT, "model")

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request that ended. route: the pattern of its path, one of a few, as each makes a series of its own."""
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self._durations.labels(route).observe(seconds)

    def observe(self, model: str, completion: Completion) -> None:
        """A finished answer of a model."""
        usage, timings = completion.usage, completion.timings
        self._answers.labels(model, completion.finish_reason).inc()
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._cached.labels(model).inc(usage.cached_tokens)
        self._generated.labels(model).inc(usage.completion_tokens)
        self._queued.labels(model).observe(timings.queued)
        self._first.labels(model).observe(timings.queued + timings.prefill)
        if usage.completion_tokens > 1:
            self._between.labels(model).observe(timings.decode / (usage.completion_tokens - 1))

    def loaded(self, name: str, seconds: float) -> None:
        """A model was loaded."""
        self._loads.labels(name, "ready").inc()
        self._load_seconds.labels(name).observe(seconds)

    def failed(self, name: str) -> None:
        """A model could not be loaded."""
        self._loads.labels(name, "failed").inc()

    def unloaded(self, name: str, reason: str) -> None:
        """A model was unloaded: idle, for memory, or because somebody asked for it."""
        self._unloads.labels(name, reason).inc()

    def text(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self._registry)


class _Loads(Collector):
    """How busy the engines are, at the moment when somebody asks."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def describe(self) -> Iterable[Metric]:
        """What there will be, without asking the engines."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The figures of all models."""
        waiting, running, most, memory, blocks = families = self._families()
        for name, llm in self._running().items():
            load = llm.load()
            waiting.add_metric([name], load.waiting)
            running.add_metric([name], load.running)
            most.add_metric([name], llm.options.sequences)
            memory.add_metric([name], llm.memory)
            for number, group in enumerate(load.groups):
                for state, count in (("free", group.free), ("held", group.held), ("kept", group.kept)):
                    blocks.add_metric([name, str(number), state], count)
        return families

    def _families(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily("sotol_sequences_waiting", "Sequences in the queue.", labels=["model"]),
            GaugeMetricFamily("sotol_sequences_running", "Sequences that run: the batch.", labels=["model"]),
            GaugeMetricFamily("sotol_sequences_most", "How many can run at once.", labels=["model"]),
            GaugeMetricFamily("sotol_model_memory_bytes", "Of weights and past, while loaded.", labels=["model"]),
            GaugeMetricFamily(
                "sotol_kv_blocks",
                "Blocks of keys and values: free, held by running sequences, or kept of earlier ones.",
                labels=["model", "group", "state"],
            ),
        ]
