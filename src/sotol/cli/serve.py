"""`sotol serve`: models over HTTP. Options become `Settings`, whose errors are told in the options' own words."""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotol.catalog import default_model, find_model
from sotol.cli import options as o
from sotol.cli import serve_options as s
from sotol.cli.output import write_piece
from sotol.cli.parameters import parse_memory, parse_size
from sotol.errors import SotolError, plain

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from sotol.llm import LLM
    from sotol.progress import Progress
    from sotol.server.metrics import Metrics
    from sotol.server.serving import Load
    from sotol.server.settings import Settings

__all__ = ["COMMAND", "serve"]

INSTALL = 'the server needs more packages: pip install "sotol[server]"'
NEEDED = {"starlette", "uvicorn", "httptools", "pydantic", "prometheus_client"}

COMMAND = s.ServeCommand


# Typer wants a parameter for each option.
def serve(
    model: s.Models = None,
    model_option: s.ModelOptions = None,
    alias: s.Aliases = None,
    host: s.Host = None,
    port: s.Port = None,
    uds: s.Uds = None,
    uds_mode: s.UdsMode = None,
    root_path: s.RootPath = None,
    trusted_proxy: s.TrustedProxies = None,
    ssl_certfile: s.Certificate = None,
    ssl_keyfile: s.CertificateKey = None,
    ssl_keyfile_password: s.CertificatePassword = None,
    api_key: s.ApiKeys = None,
    api_key_file: s.ApiKeyFile = None,
    open_: s.Open = False,
    open_metrics: s.OpenMetrics = False,
    requests_per_minute: s.RequestsPerMinute = None,
    tokens_per_minute: s.TokensPerMinute = None,
    cors_origin: s.CorsOrigins = None,
    allowed_host: s.AllowedHosts = None,
    max_body: s.MaxBody = None,
    max_header_bytes: s.MaxHeaderBytes = None,
    max_headers: s.MaxHeaders = None,
    max_connections: s.MaxConnections = None,
    max_prompt_tokens: s.MaxPromptTokens = None,
    max_answer_tokens: s.MaxAnswerTokens = None,
    max_choices: s.MaxChoices = None,
    max_schema_bytes: s.MaxSchemaBytes = None,
    queue: s.Queue = None,
    read_timeout: s.ReadTimeout = None,
    request_timeout: s.RequestTimeout = None,
    stream_timeout: s.StreamTimeout = None,
    keep_alive: s.KeepAlive = None,
    shutdown_grace: s.ShutdownGrace = None,
    log_format: s.LogFormat = None,
    log_level: s.LogLevel = None,
    log_prompts: s.LogPrompts = False,
    threads: o.Threads = None,
    ctx: o.Context = None,
    precision: o.PrecisionOption = o.Precision.INT8,
    sequences: o.Sequences = None,
    step_tokens: o.StepTokens = None,
    kv_memory: o.KvMemory = None,
    no_prefix_cache: o.NoPrefixCache = False,
    backend: o.BackendOption = None,
) -> None:
    """Serve models to clients of OpenAI, Anthropic and Ollama.

    `sotol serve smollm2` listens on http://127.0.0.1:8080. It needs more packages: pip install "sotol[server]".
    """
    where, its_port = split_host(host)
    if None not in (port, its_port) and port != its_port:
        raise ValueError(f"--host has port {its_port}, and --port is {port}: give one of them")
    names = named_models([*(model or []), *(model_option or [])], alias or [])
    loading: dict[str, Any] = {
        "threads": threads, "ctx": ctx, "precision": str(precision), "sequences": sequences,
        "step_tokens": step_tokens, "backend": backend, "queue": s.QUEUE if queue is None else queue,
        "kv_memory": None if kv_memory is None else parse_memory(kv_memory),
        "prefix_cache": False if no_prefix_cache else None,
    }  # fmt: skip
    settings = settings_of(
        {
            "host": where, "port": its_port if port is None else port, "uds": uds, "root_path": root_path,
            "uds_mode": None if uds_mode is None else parse_mode(uds_mode), "trusted_proxies": trusted_proxy,
            "ssl_certfile": ssl_certfile, "ssl_keyfile": ssl_keyfile, "ssl_keyfile_password": ssl_keyfile_password,
            "api_keys": keys_of(api_key or [], api_key_file), "open": open_, "open_metrics": open_metrics,
            "requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute,
            "cors_origins": cors_origin, "allowed_hosts": allowed_host,
            "body_bytes": None if max_body is None else parse_size("--max-body", max_body),
            "header_bytes": max_header_bytes, "header_count": max_headers, "connections": max_connections,
            "prompt_tokens": max_prompt_tokens, "answer_tokens": max_answer_tokens, "choices": max_choices,
            "schema_bytes": max_schema_bytes, "read_timeout": read_timeout, "request_timeout": request_timeout,
            "stream_timeout": stream_timeout, "keep_alive": keep_alive, "shutdown_grace": shutdown_grace,
            "log_format": log_format, "log_level": log_level, "log_prompts": log_prompts,
        }
    )  # fmt: skip
    for name in names.values():
        find_model(name)  # before anything slow
    if _run(settings, names, loading):
        raise KeyboardInterrupt  # the server has ended by Ctrl-C, and said so


def split_host(text: str | None) -> tuple[str | None, int | None]:
    """An address, and a port if it has one: 0.0.0.0, localhost:9000, [::1]:9000."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*):(\d{1,5})", text)
    host, port = (found[1], int(found[2])) if found else (text, None)
    return host.removeprefix("[").removesuffix("]"), port


def parse_mode(text: str) -> int:
    """Permissions in octal."""
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text):
        raise ValueError(f"--uds-mode is {plain(repr(text))}; it must be as chmod takes it, in octal: 660")
    return int(text.removeprefix("0o"), 8)


def keys_of(given: Sequence[str], path: Path | None) -> tuple[str, ...]:
    """All API keys: several in one text are separated by commas or spaces. An empty one is an error, and no key."""
    from sotol.server.settings import read_keys  # noqa: PLC0415  (`sotol --help` does without)

    keys = [key for text in given for key in re.split(r"[,\s]+", text)]
    if "" in keys:
        raise ValueError("--api-key (or SOTOL_API_KEY) has an empty key: give none, or one that is hard to guess")
    return (*keys, *(read_keys(path) if path is not None else ()))


def named_models(models: Sequence[str], aliases: Sequence[str]) -> dict[str, str]:
    """Models by the names for clients, several of which are separated by commas; None of both is the default model."""
    paths = list(models) or [default_model()]
    if len(aliases) > len(paths):
        raise ValueError(f"--alias is given {len(aliases)} times, for {len(paths)} models: give one for each at most")
    names: dict[str, str] = {}
    for number, path in enumerate(paths):
        name = aliases[number] if number < len(aliases) else Path(path).name.removesuffix(".gguf")
        for one in name.split(","):
            if not one.strip():
                raise ValueError(f"--alias is {plain(repr(name))}: a name is missing")
        if name in names:
            raise ValueError(f"two models have the name {plain(name)}: give each its own (--alias)")
        names[name] = path
    return names


def settings_of(options: Mapping[str, Any]) -> "Settings":
    """The settings; an error about one names the option as the command line has it."""
    from sotol.server.settings import Settings  # noqa: PLC0415  (`sotol --help` does without)

    try:
        return Settings.of({name: value if value not in ([], ()) else None for name, value in options.items()})
    except ValueError as error:
        message = str(error)
        if "give api_keys, or open " in message:
            message = message.replace("give api_keys, or open ", "give --api-key-file, or --without-keys ")
        found = re.match(r"[a-z_]+", message)
        name = found[0] if found else ""
        if name in options:
            message = "--" + s.NAMES.get(name, name).replace("_", "-") + message.removeprefix(name)
        raise ValueError(message) from None


def _run(settings: "Settings", names: Mapping[str, str], loading: Mapping[str, Any]) -> int:
    try:
        from sotol.server.logs import begin_log  # noqa: PLC0415  (the server is an extra)
        from sotol.server.serving import serve as run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in NEEDED:
            raise
        raise SotolError(INSTALL) from None
    begin_log(settings)
    models = {name: _loader(path, loading) for name, path in names.items()}
    return run(settings, models, lambda llms, metrics: _app(llms, metrics, settings), _announce)


def _announce(address: str) -> None:
    with suppress(OSError, SotolError):  # nobody reads it, and the server goes on
        write_piece(f"{address}\n", sys.stdout)


def _loader(path: str, loading: Mapping[str, Any]) -> "Load":
    def load(progress: "Progress") -> "LLM":
        from sotol.llm import LLM  # noqa: PLC0415  (in the thread that loads)

        return LLM(path, progress=progress, **loading)

    return load


def _app(llms: "Mapping[str, LLM]", metrics: "Metrics", settings: "Settings") -> "Starlette":
    """The application of the loaded models; names after the first are aliases."""
    from sotol.server.app import create_app  # noqa: PLC0415  (the server is an extra)
    from sotol.server.around import Around  # noqa: PLC0415
    from sotol.server.models import Served  # noqa: PLC0415

    served = []
    for names, llm in llms.items():
        name, *aliases = (one.strip() for one in names.split(","))
        served.append(Served(name, llm, tuple(aliases)))
    return create_app(served, settings, around=Around(metrics))
