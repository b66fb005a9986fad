"""docs/server.md and examples/ say what is true: options, defaults, metrics."""

import configparser
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.support.scripted import scripted
from typer.testing import CliRunner

from sotol.cli import serve as command
from sotol.cli.app import make_app
from sotol.cli.serve_options import NAMES, QUEUE
from sotol.server.metrics import Metrics
from sotol.server.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")


def settings_of(options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The settings of a command line; a file of keys is another one."""
    keys = tmp_path / "keys"
    keys.write_text("key\n")
    found: list[Any] = []
    monkeypatch.setattr(command, "_run", lambda *given: found.extend(given))
    monkeypatch.setattr(command, "find_model", lambda _: None)
    for i, option in enumerate(options):
        if option == "--api-key-file":
            options[i + 1] = str(keys)
    result = CliRunner().invoke(make_app(), ["serve", *options], env={"SOTOL_API_KEY": None})
    assert result.exit_code == 0, result.stderr
    settings: Settings = found[0]
    return settings


def test_the_unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # names as they are written
    unit.read_string((ROOT / "examples" / "sotol.service").read_text().replace("\\\n", ""))
    service = unit["Service"]
    program, serve, *options = shlex.split(service["ExecStart"])
    assert (program, serve) == ("/opt/sotol/bin/sotol", "serve")
    settings = settings_of(options, monkeypatch, tmp_path)
    assert settings.api_keys == ("key",)
    assert not settings.reachable
    assert int(service["TimeoutStopSec"]) > settings.shutdown_grace
    assert int(service["LimitNOFILE"]) > settings.connections
    # What sotol needs: memory that is written and run, what the CPU can do, and a folder for kernels.
    assert "MemoryDenyWriteExecute" not in service
    assert "ProcSubset" not in service
    assert service["CacheDirectory"] == "sotol"


def test_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (ROOT / "examples" / "Containerfile").read_text()
    [entry] = re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    [default] = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    program, serve, *options = json.loads(entry)
    assert (program, serve) == ("sotol", "serve")
    options += json.loads(default)
    settings = settings_of([*options, "--api-key", "given"], monkeypatch, tmp_path)
    assert settings.reachable  # so it does not start without a key
    [exposed] = re.findall(r"^EXPOSE (\d+)$", text, re.MULTILINE)
    assert settings.port == int(exposed)
    assert f"http://127.0.0.1:{exposed}/health" in text
    for copied in re.findall(r"^COPY ((?!--).*) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())


def test_commands_of_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = re.findall(r"(?:^|`)sotol serve ([^`#\n]*)", PAGE, re.MULTILINE)
    found = [settings_of(shlex.split(text), monkeypatch, tmp_path) for text in commands if "--help" not in text]
    assert len(found) > 2
    [behind] = [settings for settings in found if settings.root_path]
    assert (behind.root_path, behind.trusted_proxies) == ("/llm", ("127.0.0.1",))


def test_the_table_of_limits() -> None:
    rows = re.findall(r"^\| (`--[^|]*) \| ([^|]*) \|", PAGE, re.MULTILINE)
    shown = {}
    for names, values in rows:
        for name, value in zip(names.split(", "), (values.split(", ") * 2)[: names.count(",") + 1], strict=True):
            shown[name.strip("`")] = value
    settings = Settings()
    others = {option: field for field, option in NAMES.items()}
    for option, value in shown.items():
        name = option.removeprefix("--").replace("-", "_")
        known = QUEUE if name == "queue" else getattr(settings, others.get(name, name))
        said = (
            f"{known >> 20} MiB" if name == "max_body" else f"{known:g} s" if isinstance(known, float) else str(known)
        )
        assert value in (said, "no limit" if known is None else said, "the context" if known is None else said), option
    limits = {"--" + NAMES.get(name, name).replace("_", "-") for name in (
        "body_bytes", "header_bytes", "header_count", "connections", "prompt_tokens", "answer_tokens", "choices",
        "schema_bytes", "requests_per_minute", "tokens_per_minute", "read_timeout", "request_timeout",
        "stream_timeout", "idle_timeout")}  # fmt: skip
    assert set(shown) == limits | {"--queue"}


def test_the_table_of_metrics() -> None:
    with scripted("Hello.") as llm:
        metrics = Metrics(lambda: {"m": llm})
        families = re.findall(r"^# TYPE (sotol_\w+) (\w+)$", metrics.text().decode(), re.MULTILINE)
    names = {name for name, _ in families if not name.endswith("_created")}
    shown = set(re.findall(r"`(sotol_\w+)`", PAGE))
    assert shown == names
