"""`sotol serve`: what its options become, and what is said of wrong ones. tests/server starts it."""

import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Sotol

from sotol.cli import serve as command
from sotol.cli.serve import keys_of, named_models, parse_mode, split_host
from sotol.cli.serve_options import QUEUE
from sotol.server.offering import Entry
from sotol.server.settings import Settings

Ran = list[tuple[Settings, dict[str, str], dict[str, Any]]]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOTOL_HOST", "SOTOL_PORT", "SOTOL_API_KEY", "SOTOL_SSL_KEYFILE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


SAMPLED: list[dict[str, Any]] = []  # of each run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """What would have been served."""
    found: Ran = []

    def run(
        settings: Settings,
        names: Mapping[str, str],
        loading: Mapping[str, Any],
        sampling: Mapping[str, Any],
        listed: object,
    ) -> int:
        assert listed == []
        found.append((settings, dict(names), dict(loading)))
        SAMPLED.append({name: value for name, value in sampling.items() if value is not None})
        return 0

    monkeypatch.setattr(command, "_run", run)
    return found


def test_without_options(sotol: Sotol, ran: Ran) -> None:
    assert sotol("serve").exit_code == 0
    [(settings, names, loading)] = ran
    assert settings == Settings()
    assert names == {"smollm2": "smollm2"}
    assert {name: value for name, value in loading.items() if value is not None} == {
        "precision": "int8",
        "queue": QUEUE,
    }


def test_every_option_arrives(sotol: Sotol, ran: Ran, tmp_path: Path) -> None:
    model, keys = tmp_path / "x.gguf", tmp_path / "keys"
    model.write_bytes(b"")
    keys.write_text("third\n")
    options = {
        "--host": "0.0.0.0", "--port": "99", "--uds": "/run/s", "--uds-mode": "660", "--root-path": "/llm",
        "--trusted-proxy": "10.0.0.1", "--ssl-certfile": "c.pem", "--ssl-keyfile": "k.pem",
        "--ssl-keyfile-password": "pass", "--api-key": "first,second", "--api-key-file": str(keys),
        "--requests-per-minute": "5", "--tokens-per-minute": "6", "--cors-origins": "https://a.example",
        "--allowed-host": "b.example", "--max-body": "1MiB", "--max-header-bytes": "5000", "--max-headers": "50",
        "--max-connections": "7", "--max-prompt-tokens": "8", "--max-answer-tokens": "9", "--max-choices": "2",
        "--max-schema-bytes": "100", "--queue": "3", "--read-timeout": "1", "--request-timeout": "2",
        "--stream-timeout": "3", "--idle-timeout": "4", "--keep-alive": "10m", "--max-memory": "2GB",
        "--shutdown-grace": "0", "--log-format": "json",
        "--log-level": "debug", "--threads": "2", "--ctx": "256", "--precision": "f32", "--parallel": "4",
        "--step-tokens": "64", "--kv-memory": "1MB", "--backend": "reference", "--temperature": "0.5", "--top-k": "7",
        "--top-p": "0.9", "--min-p": "0.1", "--repeat-penalty": "1.1", "--seed": "11", "--max-tokens": "99",
    }  # fmt: skip
    flags = [
        "--without-keys", "--open-metrics", "--log-prompts", "--no-prefix-cache", "--allow-pull", "--keep-responses",
        "--no-page",
    ]  # fmt: skip
    result = sotol("serve", str(model), "-m", "smollm2", *(x for pair in options.items() for x in pair), *flags)
    assert result.exit_code == 0, result.stderr
    [(settings, names, loading)] = ran
    assert settings == Settings(
        host="0.0.0.0", port=99, uds=Path("/run/s"), uds_mode=0o660, root_path="/llm", trusted_proxies=("10.0.0.1",),
        ssl_certfile=Path("c.pem"), ssl_keyfile=Path("k.pem"), ssl_keyfile_password="pass",
        api_keys=("first", "second", "third"), open=True, open_metrics=True, requests_per_minute=5,
        tokens_per_minute=6, cors_origins=("https://a.example",), allowed_hosts=("b.example",), body_bytes=1 << 20,
        header_bytes=5000, header_count=50, connections=7, prompt_tokens=8, answer_tokens=9, choices=2,
        schema_bytes=100, read_timeout=1.0, request_timeout=2.0, stream_timeout=3.0, idle_timeout=4.0, keep_alive=600.0,
        max_memory=2 * 10**9, allow_pull=True,
        shutdown_grace=0.0, log_format="json", log_level="debug", log_prompts=True,
        keep_responses=True, page=False,
    )  # fmt: skip
    assert names == {"x": str(model), "smollm2": "smollm2"}
    assert loading == {
        "threads": 2, "ctx": 256, "precision": "f32", "sequences": 4, "step_tokens": 64, "backend": "reference",
        "queue": 3, "kv_memory": 10**6, "prefix_cache": False,
    }  # fmt: skip
    assert SAMPLED[-1] == {
        "temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1, "repeat_penalty": 1.1, "seed": 11, "max_tokens": 99,
    }  # fmt: skip


def test_folders_of_models(sotol: Sotol, ran: Ran, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    assert sotol("serve", str(tmp_path), "smollm2").exit_code == 0
    [(_, names, _)] = ran
    assert names == {"a": str(tmp_path / "a.gguf"), "b": str(tmp_path / "b.gguf"), "smollm2": "smollm2"}
    twice = sotol("serve", str(tmp_path), str(tmp_path / "a.gguf"))
    assert twice.exit_code == 2
    assert "two models have the name a: name each by its own path" in twice.stderr


def test_names_of_the_hub() -> None:
    assert named_models(["org/repo:q8_0", "hf.co/org/other"], []) == {
        "org/repo:q8_0": "org/repo:q8_0", "org/other": "hf.co/org/other",
    }  # fmt: skip


def test_a_file_of_models(sotol: Sotol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone it is all that is served; with models it comes after them."""
    found: list[tuple[dict[str, str], list[str]]] = []

    def run(
        settings: Settings, names: Mapping[str, str], loading: object, sampling: object, listed: Sequence[Entry]
    ) -> int:
        del settings, loading, sampling
        found.append((dict(names), [entry.name for entry in listed]))
        return 0

    monkeypatch.setattr(command, "_run", run)
    file = tmp_path / "models.toml"
    file.write_text('[[models]]\nname = "small"\npath = "smollm2"\n')
    assert sotol("serve", "--models", str(file)).exit_code == 0
    assert sotol("serve", "smollm2", "--models", str(file)).exit_code == 0
    assert found == [({}, ["small"]), ({"smollm2": "smollm2"}, ["small"])]


def test_the_page(sotol: Sotol, ran: Ran) -> None:
    for options in ([], ["--open"], ["--no-page"]):
        assert sotol("serve", *options).exit_code == 0
    assert [(settings.page, settings.open_page) for settings, _, _ in ran] == [
        (True, False),
        (True, True),
        (False, False),
    ]


@pytest.mark.parametrize("settings", [Settings(), Settings(page=False), Settings(open_page=True)])
def test_what_is_announced(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is alone on its line: programs read that."""
    opened: list[str] = []
    shown = threading.Event()

    def browse(address: str) -> None:
        opened.append(address)
        shown.set()

    monkeypatch.setattr("webbrowser.open", browse)
    command._announce("http://127.0.0.1:1", settings)
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "http://127.0.0.1:1"
    assert others == (["chat page: http://127.0.0.1:1/ui/"] if settings.page else [])
    if settings.open_page:
        assert shown.wait(30)
    assert opened == (["http://127.0.0.1:1/ui/"] if settings.open_page else [])


def test_the_environment(sotol: Sotol, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTOL_HOST", "0.0.0.0:9000")
    monkeypatch.setenv("SOTOL_API_KEY", "first second")
    assert sotol("serve").exit_code == 0
    assert sotol("serve", "--host", "localhost", "--port", "1", "--api-key", "third").exit_code == 0  # they beat it
    monkeypatch.setenv("SOTOL_PORT", "7")
    assert sotol("serve", "--host", "::1").exit_code == 0
    found = [(settings.host, settings.port, settings.api_keys) for settings, _, _ in ran]
    assert found == [
        ("0.0.0.0", 9000, ("first", "second")),
        ("localhost", 1, ("third",)),
        ("::1", 7, ("first", "second")),
    ]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--port", "70000"], 2, "--port is 70000; it must be a whole number from 0 to 65535"),
        (["--port", "http"], 2, "'http'"),
        (["--host", "0.0.0.0"], 2, "--host is 0.0.0.0, where other machines reach the server, and there are no API"
         " keys: give --api-key-file, or --without-keys to serve whoever comes"),
        (["--top-p", "2"], 2, "--top-p is 2.0; it must be a number from 0 to 1"),
        (["--host", "localhost:1", "--port", "2"], 2, "--host has port 1, and --port is 2"),
        (["--api-key", ""], 2, "has an empty key"),
        (["--api-key", "first,"], 2, "has an empty key"),
        (["--api-key-file", "no/such"], 1, "no/such: no such file"),
        (["--max-body", "1 elephant"], 2, "--max-body is '1 elephant'; it must be a size"),
        (["--max-body", "0"], 2, "--max-body is 0; it must be a whole number from 1"),
        (["--uds-mode", "rw"], 2, "--uds-mode is 'rw'"),
        (["--cors-origin", "example.org"], 2, "--cors-origin has 'example.org'"),
        (["--allowed-host", "http://x"], 2, "--allowed-host has 'http://x'"),
        (["--log-format", "xml"], 2, "--log-format is 'xml'; it must be one of text, json"),
        (["--idle-timeout", "-1"], 2, "--idle-timeout is -1.0; it must be a number of seconds"),
        (["--keep-alive", "soon"], 2, "--keep-alive is 'soon'; it must be seconds or a time as 5m, or -1 for ever"),
        (["--max-memory", "0"], 2, "--max-memory is 0; it must be a whole number from 1"),
        (["--models", "no/such"], 1, "no/such: no such file"),
        (["--alias", "a", "--alias", "b"], 2, "--alias is given 2 times, for 1 models"),
        (["--alias", "a,,b"], 2, "a name is missing"),
        (["-m", "smollm2", "-m", "smollm2"], 2, "two models have the name smollm2"),
        (["no/such.gguf"], 1, "no/such.gguf"),
        (["--kv-memory", "much"], 2, "kv_memory is 'much'"),
        (["--prot", "1"], 2, "did you mean --port"),
        (["--open", "--no-page"], 2, "--open shows the page in a browser: it goes with neither a socket nor"),
        (["--open", "--uds", "s"], 2, "--open shows the page in a browser"),
    ],
)  # fmt: skip
def test_wrong_options(options: list[str], code: int, said: str, sotol: Sotol, ran: Ran) -> None:
    result = sotol("serve", *options)
    assert (result.exit_code, result.stdout, ran) == (code, "", [])
    assert result.stderr.startswith("sotol: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["uvicorn", "starlette", "prometheus_client"])
def test_without_the_extra(missing: str, sotol: Sotol, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sotol.server.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [name for name in sys.modules if name.startswith(f"{missing}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    result = sotol("serve")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == 'sotol: the server needs more packages: pip install "sotol[server]"\n'


def test_hosts() -> None:
    assert split_host(None) == (None, None)
    assert split_host("0.0.0.0") == ("0.0.0.0", None)
    assert split_host("localhost:9") == ("localhost", 9)
    assert split_host("::1") == ("::1", None)
    assert split_host("[::1]") == ("::1", None)
    assert split_host("[::1]:9") == ("::1", 9)


def test_small_parts(tmp_path: Path) -> None:
    assert parse_mode("0o600") == parse_mode("600") == 0o600
    path = tmp_path / "keys"
    path.write_text("b\n")
    assert keys_of(["a"], path) == ("a", "b")
    assert keys_of([], None) == ()
    assert named_models(["a/b.gguf", "c"], ["x,y"]) == {"x,y": "a/b.gguf", "c": "c"}
