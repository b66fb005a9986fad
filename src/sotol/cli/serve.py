"""`sotol serve`: models over HTTP. Options become `Settings`, whose errors are told in the options' own words."""

import logging
import math
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
from sotol.cli.parameters import parse_memory, parse_size, parse_time
from sotol.errors import SotolError, plain
from sotol.server.offering import Entry, offer, read_models

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette

    from sotol.server.metrics import Metrics
    from sotol.server.models import Models, Offered
    from sotol.server.settings import Settings

__all__ = ["COMMAND", "serve"]

INSTALL = 'the server needs more packages: pip install "sotol[server]"'
KEEP_ALIVE = 300.0  # seconds that a model of several stays without being used
NEEDED = {"starlette", "uvicorn", "httptools", "pydantic", "prometheus_client"}

COMMAND = s.ServeCommand


# Typer wants a parameter for each option.
def serve(
    model: s.Models = None,
    model_option: s.ModelOptions = None,
    alias: s.Aliases = None,
    models: s.ModelFile = None,
    keep_alive: s.KeepAlive = None,
    max_memory: s.MaxMemory = None,
    allow_pull: s.AllowPull = False,
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
    idle_timeout: s.IdleTimeout = None,
    shutdown_grace: s.ShutdownGrace = None,
    log_format: s.LogFormat = None,
    log_level: s.LogLevel = None,
    log_prompts: s.LogPrompts = False,
    keep_responses: s.KeepResponses = False,
    no_page: s.NoPage = False,
    open_page: s.OpenPage = False,
    temperature: o.Temperature = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    repeat_penalty: o.RepeatPenalty = None,
    seed: o.Seed = None,
    max_tokens: o.MaxTokens = None,
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
    given = [*(model or []), *(model_option or [])]
    listed = [] if models is None else read_models(models)
    names = {} if listed and not given else named_models(given, alias or [])
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
            "stream_timeout": stream_timeout, "idle_timeout": idle_timeout, "shutdown_grace": shutdown_grace,
            "keep_alive": None if keep_alive is None else parse_time("--keep-alive", keep_alive),
            "max_memory": None if max_memory is None else parse_size("--max-memory", max_memory),
            "allow_pull": allow_pull,
            "log_format": log_format, "log_level": log_level, "log_prompts": log_prompts,
            "keep_responses": keep_responses, "page": not no_page, "open_page": open_page,
        }
    )  # fmt: skip
    sampling: dict[str, Any] = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "repeat_penalty": repeat_penalty,
        "seed": seed, "max_tokens": max_tokens,
    }  # fmt: skip
    check_sampling(sampling)
    for name in names.values():
        find_model(name)  # before anything slow
    if _run(settings, names, loading, sampling, listed):
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
    if not aliases and any(_is_collection(path) for path in paths):
        return _collected(paths)
    if len(aliases) > len(paths):
        raise ValueError(f"--alias is given {len(aliases)} times, for {len(paths)} models: give one for each at most")
    names: dict[str, str] = {}
    for number, path in enumerate(paths):
        name = aliases[number] if number < len(aliases) else _own_name(path)
        for one in name.split(","):
            if not one.strip():
                raise ValueError(f"--alias is {plain(repr(name))}: a name is missing")
        if name in names:
            raise ValueError(f"two models have the name {plain(name)}: give each its own (--alias)")
        names[name] = path
    return names


def _own_name(path: str) -> str:
    """What a model is called where nobody says: a file by its name, one of the Hub by that."""
    from sotol.hub import parse_name  # noqa: PLC0415  (`sotol --help` does without)

    asked = None if Path(path).exists() else parse_name(path)
    return Path(path).name.removesuffix(".gguf") if asked is None else str(asked)


def _is_collection(path: str) -> bool:
    """Whether it is a folder, and not one that is a model itself."""
    folder = Path(path).expanduser()
    return folder.is_dir() and not (folder / "config.json").exists()


def _collected(paths: Sequence[str]) -> dict[str, str]:
    """The models of folders, and those that are given themselves."""
    from sotol.server.offering import models_in  # noqa: PLC0415  (as above)

    names: dict[str, str] = {}
    for path in paths:
        found = models_in(Path(path).expanduser()) if _is_collection(path) else {_own_name(path): path}
        if twice := names.keys() & found.keys():
            raise ValueError(f"two models have the name {plain(min(twice))}: name each by its own path, with --alias")
        names |= found
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


def check_sampling(options: Mapping[str, Any]) -> None:
    """ValueError for what no request could say, in the options' own words."""
    from sotol.engine.options import Sampling  # noqa: PLC0415  (`sotol --help` does without)

    try:
        Sampling.of(None, **options)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise ValueError(f"--{name.replace('_', '-')} {rest}") from None


def _run(
    settings: "Settings",
    names: Mapping[str, str],
    loading: Mapping[str, Any],
    sampling: Mapping[str, Any],
    listed: "Sequence[Entry]" = (),
) -> int:
    try:
        from sotol.server.logs import begin_log  # noqa: PLC0415  (the server is an extra)
        from sotol.server.serving import serve as run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in NEEDED:
            raise
        raise SotolError(INSTALL) from None
    entries = [*(_entry(given, path) for given, path in names.items()), *listed]

    def offered(entry: "Entry") -> "Offered":
        return offer(entry, loading, sampling)

    make_models = _models(settings, [offered(entry) for entry in entries], offered)
    begin_log(settings)
    return run(
        settings,
        make_models,
        lambda models, metrics: _app(models, metrics, settings),
        lambda address: _announce(address, settings),
    )


def _entry(names: str, path: str) -> "Entry":
    """A model by its names; those after the first are aliases."""
    name, *aliases = (one.strip() for one in names.split(","))
    return Entry(name=name, path=path, aliases=tuple(aliases))


def _models(
    settings: "Settings", models: "Sequence[Offered]", offered: "Callable[[Entry], Offered]"
) -> "Callable[[Metrics], Models]":
    """The models of the server, which tell the metrics what they do. ValueError, now, if two have one name."""
    from sotol.server.models import Models  # noqa: PLC0415  (the server is an extra)

    one = len(models) == 1 and not settings.allow_pull
    keep = settings.keep_alive if settings.keep_alive is not None else -1.0 if one else KEEP_ALIVE

    def more(name: str) -> "Offered":
        return offered(Entry(name=name, path=name, aliases=(f"hf.co/{name}",)))

    def make(metrics: "Metrics | None") -> "Models":
        return Models(
            models,
            memory=settings.max_memory,
            keep_alive=math.inf if keep < 0 else keep,
            watch=metrics,
            more=more if settings.allow_pull else None,
        )

    make(None)
    return make


def _conversations(settings: "Settings") -> Path | None:
    """Where the page keeps conversations; None without a page, which a user without a home has not."""
    if not settings.page:
        return None
    from sotol.conversations import default_path  # noqa: PLC0415  (`sotol --help` does without)

    try:
        return default_path()
    except SotolError as error:
        logging.getLogger("sotol.server").warning("there is no chat page: %s", error)
        return None


def _announce(address: str, settings: "Settings") -> None:
    """Say where the server is, for programs on the first line; where the page is; and open that if asked to."""
    page = f"{address}/ui/"
    shown = f"{address}\n" + (f"chat page: {page}\n" if settings.page and settings.uds is None else "")
    with suppress(OSError, SotolError):  # nobody reads it, and the server goes on
        write_piece(shown, sys.stdout)
    if settings.open_page:
        import threading  # noqa: PLC0415
        import webbrowser  # noqa: PLC0415

        threading.Thread(target=webbrowser.open, args=(page,), name="sotol-browser", daemon=True).start()


def _app(models: "Models", metrics: "Metrics", settings: "Settings") -> "Starlette":
    from sotol.server.app import create_app  # noqa: PLC0415  (the server is an extra)
    from sotol.server.around import Around  # noqa: PLC0415

    store = None
    if settings.keep_responses:
        from sotol.conversations import DatabaseFile, Responses, default_path  # noqa: PLC0415
        from sotol.server.store import Kept  # noqa: PLC0415

        store = Kept(Responses(DatabaseFile(default_path())))
    return create_app(models, settings, around=Around(metrics), store=store, conversations=_conversations(settings))
