"""The options of `sotol serve`, beside those that it shares with other commands."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand, TyperOption

from sotol.catalog import DEFAULT_MODEL, PACKAGED
from sotol.cli.options import complete_model

__all__ = ["NAMES", "QUEUE", "ServeCommand"]

QUEUE = 256  # requests that wait: more would wait longer than clients do
# Fields of `Settings` that have another name on the command line, where several of a kind are given one by one.
NAMES = {
    "api_keys": "api_key",
    "cors_origins": "cors_origin",
    "allowed_hosts": "allowed_host",
    "trusted_proxies": "trusted_proxy",
    "body_bytes": "max_body",
    "header_bytes": "max_header_bytes",
    "header_count": "max_headers",
    "connections": "max_connections",
    "prompt_tokens": "max_prompt_tokens",
    "answer_tokens": "max_answer_tokens",
    "choices": "max_choices",
    "schema_bytes": "max_schema_bytes",
    "open_page": "open",
}


class ServeCommand(TyperCommand):
    """`sotol serve`. Its defaults are those of Python, and are looked up when somebody asks for help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the help of all options, with their defaults."""
        defaults = _defaults()
        for option in self.params:
            default = defaults.get(option.name)
            if isinstance(option, TyperOption) and option.default is None and default is not None:
                option.help = f"{option.help}  [default: {default}]"
        super().format_options(ctx, formatter)


def _defaults() -> dict[Any, object]:
    from sotol.load_options import LoadOptions  # noqa: PLC0415  (see `ServeCommand`)
    from sotol.server.settings import Settings  # noqa: PLC0415

    own = {NAMES.get(f.name, f.name): f.default for f in fields(Settings) if f.default not in (MISSING, (), "", False)}
    loading = {f.name: f.default for f in fields(LoadOptions) if f.default not in (MISSING, False)}
    shown = {**loading, **own, "queue": QUEUE, "uds_mode": f"{Settings().uds_mode:o}"}
    return {**shown, "max_body": f"{Settings().body_bytes >> 20}MiB"}


Whole: TypeAlias = int | None
Seconds: TypeAlias = float | None
Texts: TypeAlias = list[str] | None

Models: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[model]...",
        help=f".gguf files, folders of them, or names: {', '.join(PACKAGED)}, ORG/REPO of a pulled one, an alias."
        " One is loaded at once, several when they are asked for."
        f"  [default: SOTOL_MODEL, or else {DEFAULT_MODEL}]",
        autocompletion=complete_model,
        show_default=False,
    ),
]
ModelOptions: TypeAlias = Annotated[
    Texts,
    typer.Option("--model", "-m", metavar="MODEL", help="The same, as an option.", autocompletion=complete_model),
]
Aliases: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--alias",
        "-a",
        metavar="NAME",
        help="The name of a model for clients, of the first, the second, …; the file's without .gguf if not given."
        " More names for one model are separated by commas.",
    ),
]

ModelFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--models", metavar="FILE", help="More models, and how to load each, in TOML: docs/models.md."),
]
KeepAlive: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--keep-alive",
        metavar="TIME",
        help="How long a model stays loaded when nobody uses it: 5m, 300, or -1 for ever. If not given: for ever where"
        " there is one model, else 5m.",
    ),
]
MaxMemory: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Memory of all models that are loaded at a time: 8GB. Others are unloaded for one that is asked for, those"
        " that were not used for longest first.",
    ),
]
AllowPull: TypeAlias = Annotated[
    bool,
    typer.Option("--allow-pull", help="Whoever may use the server may let it pull models of the Hub (/api/pull)."),
]

# ---- where

Host: TypeAlias = Annotated[
    str | None,
    typer.Option("--host", metavar="ADDRESS", envvar="SOTOL_HOST", help="Where to listen; host:port goes, too."),
]
Port: TypeAlias = Annotated[
    Whole, typer.Option("--port", metavar="N", envvar="SOTOL_PORT", help="Where to listen; 0 takes a free port.")
]
Uds: TypeAlias = Annotated[Path | None, typer.Option("--uds", metavar="PATH", help="Listen on a Unix socket instead.")]
UdsMode: TypeAlias = Annotated[
    str | None, typer.Option("--uds-mode", metavar="MODE", help="Its permissions, as chmod takes them in octal.")
]
RootPath: TypeAlias = Annotated[
    str | None,
    typer.Option("--root-path", metavar="PATH", help="Where a reverse proxy shows the server: /llm, which it strips."),
]
TrustedProxies: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--trusted-proxy",
        metavar="ADDRESS",
        help="Believe its X-Forwarded-For and X-Forwarded-Proto. May be given several times.",
    ),
]
Certificate: TypeAlias = Annotated[
    Path | None, typer.Option("--ssl-certfile", metavar="FILE", help="HTTPS, with this certificate chain (PEM).")
]
CertificateKey: TypeAlias = Annotated[
    Path | None, typer.Option("--ssl-keyfile", metavar="FILE", help="Its key, if that is in another file.")
]
CertificatePassword: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ssl-keyfile-password", metavar="TEXT", envvar="SOTOL_SSL_KEYFILE_PASSWORD", help="What the key needs."
    ),
]

# ---- who

ApiKeys: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="SOTOL_API_KEY",
        help="Requests must have this key. May be given several times. Others on this machine see options: use the"
        " environment or a file.",
    ),
]
ApiKeyFile: TypeAlias = Annotated[
    Path | None, typer.Option("--api-key-file", metavar="FILE", help="The same, from a file: one key a line.")
]
Open: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--without-keys", help="Serve whoever comes: without keys, where other machines reach the server, too."
    ),
]
OpenMetrics: TypeAlias = Annotated[bool, typer.Option("--open-metrics", help="/metrics needs no key.")]
RequestsPerMinute: TypeAlias = Annotated[
    Whole, typer.Option("--requests-per-minute", metavar="N", help="The most of each key, or address without keys.")
]
TokensPerMinute: TypeAlias = Annotated[
    Whole, typer.Option("--tokens-per-minute", metavar="N", help="The same for tokens of prompts and answers.")
]
CorsOrigins: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        help="Web pages of this origin may call the server: https://example.org, http://localhost:*, or * for all."
        " May be given several times.",
    ),
]
AllowedHosts: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--allowed-host",
        metavar="NAME",
        help="A name by which the server may be called, beside addresses and this machine's own: example.org,"
        " *.example.org, or * for all. May be given several times.",
    ),
]

# ---- how much

MaxBody: TypeAlias = Annotated[
    str | None, typer.Option("--max-body", metavar="SIZE", help="The longest body of a request.")
]
MaxHeaderBytes: TypeAlias = Annotated[
    Whole, typer.Option("--max-header-bytes", metavar="N", help="The longest head of a request.")
]
MaxHeaders: TypeAlias = Annotated[Whole, typer.Option("--max-headers", metavar="N", help="The most headers of one.")]
MaxConnections: TypeAlias = Annotated[
    Whole, typer.Option("--max-connections", metavar="N", help="Connections at a time.")
]
MaxPromptTokens: TypeAlias = Annotated[
    Whole,
    typer.Option("--max-prompt-tokens", metavar="N", help="The longest prompt; the context's length if not given."),
]
MaxAnswerTokens: TypeAlias = Annotated[
    Whole, typer.Option("--max-answer-tokens", metavar="N", help="The longest answer; the same.")
]
MaxChoices: TypeAlias = Annotated[
    Whole, typer.Option("--max-choices", metavar="N", help="The most answers to one request (n).")
]
MaxSchemaBytes: TypeAlias = Annotated[
    Whole, typer.Option("--max-schema-bytes", metavar="N", help="The longest schema, grammar or regular expression.")
]
Queue: TypeAlias = Annotated[
    Whole, typer.Option("--queue", metavar="N", help="Requests that may wait for a model; more get 503.")
]
ReadTimeout: TypeAlias = Annotated[
    Seconds, typer.Option("--read-timeout", metavar="S", help="Seconds in which a request must have arrived.")
]
RequestTimeout: TypeAlias = Annotated[
    Seconds, typer.Option("--request-timeout", metavar="S", help="Seconds until an answer begins.")
]
StreamTimeout: TypeAlias = Annotated[
    Seconds, typer.Option("--stream-timeout", metavar="S", help="Seconds that an answer may stream.")
]
IdleTimeout: TypeAlias = Annotated[
    Seconds, typer.Option("--idle-timeout", metavar="S", help="Seconds that an idle connection is kept.")
]
ShutdownGrace: TypeAlias = Annotated[
    Seconds,
    typer.Option("--shutdown-grace", metavar="S", help="Seconds that answers have to end after SIGTERM or Ctrl-C."),
]

# ---- what is logged

LogFormat: TypeAlias = Annotated[
    str | None, typer.Option("--log-format", metavar="text|json", help="Of the log, which goes to standard error.")
]
LogLevel: TypeAlias = Annotated[
    str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
]
LogPrompts: TypeAlias = Annotated[bool, typer.Option("--log-prompts", help="Write what is asked to the log, too.")]

# ---- what is kept

KeepResponses: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--keep-responses", help="Keep responses of /v1/responses on disk, in the database of the page, for 30 days."
    ),
]

NoPage: TypeAlias = Annotated[bool, typer.Option("--no-page", help="Leave the chat page out.")]
OpenPage: TypeAlias = Annotated[bool, typer.Option("--open", help="Open the chat page in a browser.")]
