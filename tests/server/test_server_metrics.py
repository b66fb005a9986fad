"""Metrics, the log, and what is asked of a server's state."""

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send
from tests.support.asgi import asked, echo
from tests.support.scripted import scripted

from sotol.server.around import Around
from sotol.server.guard import protected
from sotol.server.guard.visit import visit_of
from sotol.server.logs import JsonFormat, TextFormat, begin_log
from sotol.server.metrics import Metrics
from sotol.server.operation import Operation
from sotol.server.settings import Settings

DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana.json"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    """All samples of sotol's own, as a Prometheus would read them."""
    found: Samples = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if sample.name.startswith("sotol_"):
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_answers_are_counted() -> None:
    with scripted("Hello.") as llm:
        metrics = Metrics(lambda: {"m": llm})
        around = Around(metrics)
        scope: Scope = {"type": "http", "client": ("10.0.0.1", 1)}
        completions = [llm.generate("abcdefgh" * 8, max_tokens=count) for count in (1, 4, 4)]
        for completion in completions:
            around.finished(scope, "m", completion)
        assert around.client(scope) == "10.0.0.1"
        assert around.request_id(scope) is None
        found = samples(metrics)
        load = llm.load()
    label = (("model", "m"),)
    usages = [completion.usage for completion in completions]
    assert found["sotol_prompt_tokens_total", label] == sum(usage.prompt_tokens for usage in usages) == 3 * 64
    assert found["sotol_cached_prompt_tokens_total", label] == sum(usage.cached_tokens for usage in usages) > 0
    assert found["sotol_generated_tokens_total", label] == sum(usage.completion_tokens for usage in usages) == 9
    assert found["sotol_answers_total", (("model", "m"), ("reason", "length"))] == 3
    assert found["sotol_first_token_seconds_count", label] == found["sotol_queue_seconds_count", label] == 3
    assert found["sotol_between_tokens_seconds_count", label] == 2  # one answer has nothing between
    assert found["sotol_sequences_most", label] == llm.options.sequences
    assert found["sotol_sequences_running", label] == found["sotol_sequences_waiting", label] == 0
    [group] = load.groups
    for state in ("free", "held", "kept"):
        labels = (("group", "0"), ("model", "m"), ("state", state))
        assert found["sotol_kv_blocks", labels] == getattr(group, state)
    visit = visit_of(scope)
    assert (visit.model, visit.answers, visit.tokens) == ("m", 3, 3 * 64 + 9)


def test_requests_are_counted_by_few_labels() -> None:
    metrics = Metrics()
    app = protected(Operation(metrics, echo), Settings(), metrics)
    for path in ("/a", "/b", "/health", "/health"):
        asked(app, path)
    asked(app, "/a", "BREW")
    asked(app, "/a", headers={"host": "evil.example"})
    found = samples(metrics)
    requests = {labels: value for (name, labels), value in found.items() if name == "sotol_http_requests_total"}
    assert requests == {
        (("method", "GET"), ("route", "other"), ("status", "200")): 2,
        (("method", "other"), ("route", "other"), ("status", "200")): 1,
        (("method", "GET"), ("route", "other"), ("status", "403")): 1,
        (("method", "GET"), ("route", "/health"), ("status", "200")): 2,
    }
    assert found["sotol_http_request_seconds_count", (("route", "other"),)] == 4
    assert found["sotol_http_requests_running", ()] == 0


def test_each_server_has_its_own() -> None:
    first, second = Metrics(), Metrics()
    first.count_request("/a", "GET", 200, 0.1)
    assert ("sotol_http_request_seconds_count", (("route", "/a"),)) in samples(first)
    assert ("sotol_http_request_seconds_count", (("route", "/a"),)) not in samples(second)


def test_the_dashboard_asks_for_what_there_is() -> None:
    with scripted("Hello.") as llm:
        metrics = Metrics(lambda: {"m": llm})
        metrics.observe("m", llm.generate("abc", max_tokens=3))
        metrics.count_request("/a", "GET", 200, 0.1)
        metrics.loaded("m", 0.5)
        metrics.unloaded("m", "idle")
        process = re.findall(r"^(process_\w+)", metrics.text().decode(), re.MULTILINE)
        names = {*(name for name, _ in samples(metrics)), *process}
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 10
    asked_for = {name for query in queries for name in re.findall(r"\b(?:sotol|process)_\w+", query)}
    assert asked_for <= names, asked_for - names
    # And all that is worth a look is on it.
    own = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in names if name.startswith("sotol_")}
    shown = {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in asked_for}
    assert own - shown - {"sotol_build_info"} == set()


# ---- state


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_states(path: str) -> None:
    operation = Operation(Metrics())
    app = protected(operation, Settings())

    def codes() -> tuple[int, ...]:
        return tuple(asked(app, asked_path).status_code for asked_path in ("/health", "/ready", "/metrics", path))

    refused = 529 if path == "/v1/messages" else 503
    assert codes() == (200, 503, 200, refused)
    loading = asked(app, "/ready")
    assert loading.json()["error"]["message"] == "Loading model"
    assert loading.headers["retry-after"] == "1"
    assert "Loading model" in asked(app, path).text
    operation.begin(echo)
    assert codes() == (200, 200, 200, 200)
    assert asked(app, "/ready").json() == {"status": "ok"}
    operation.stop()
    assert codes() == (200, 503, 200, refused)
    assert asked(app, path).headers["connection"] == "close"


def test_what_begins_too_late_does_not_begin() -> None:
    operation = Operation(Metrics())
    operation.stop()
    operation.begin(echo)
    assert asked(operation, "/ready").status_code == 503


def test_operation_is_read_only() -> None:
    operation = Operation(Metrics(), echo)
    for path in ("/health", "/ready", "/metrics"):
        assert asked(operation, path, "POST").status_code == 405
        head = asked(operation, path, "HEAD")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 0


def test_its_lifespan() -> None:
    sent: list[Any] = []

    async def play() -> None:
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> Any:
            return {"type": next(messages)}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await protected(Operation(Metrics(), _never), Settings())({"type": "lifespan"}, receive, send)

    asyncio.run(play())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def _never(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise AssertionError


# ---- logs


def record(message: str, error: BaseException | None = None, **fields: object) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("sotol.access", logging.INFO, "", 0, message, (), info)
    made.fields = fields
    return made


def test_lines_for_machines() -> None:
    line = JsonFormat().format(record("request", status=200, path='a"b\nc', left=True))
    found = json.loads(line)
    assert "\n" not in line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {"level": "info", "logger": "sotol.access", "message": "request", "status": 200, "path": 'a"b\nc',
                     "left": True}  # fmt: skip
    assert "ValueError: no" in json.loads(JsonFormat().format(record("failed", ValueError("no"))))["traceback"]


def test_lines_for_people() -> None:
    line = TextFormat().format(record("re\x1b[31mquest\nforged", status=200, path="/a b\r\nforged=1", empty=""))
    assert re.fullmatch(r'\S+Z info    re \[31mquest forged status=200 path="/a b forged=1" empty=""', line)
    assert TextFormat().format(record("failed", ValueError("no"))).endswith("\nValueError: no")


def test_levels_and_formats(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("sotol", "uvicorn.error", "asyncio")
    before = {name: (vars(logging.getLogger(name)).copy()) for name in names}
    try:
        begin_log(Settings(log_level="warning"))
        logging.getLogger("sotol.access").info("unseen")
        logging.getLogger("sotol.access").warning("seen")
        begin_log(Settings(log_format="json", log_level="debug"))
        logging.getLogger("sotol.access").debug("detail")
        logging.getLogger("uvicorn.error").info("unseen")
        first, second = capsys.readouterr().err.splitlines()
    finally:
        for name, attributes in before.items():
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = attributes["handlers"], attributes["propagate"]
            logger.setLevel(attributes["level"])
    assert first.endswith("warning seen")
    assert json.loads(second)["message"] == "detail"
