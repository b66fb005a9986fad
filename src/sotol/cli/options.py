"""What commands read from their command line: the options of several commands, and those of `sotol run`."""

from contextlib import suppress
from dataclasses import MISSING, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand, TyperOption

from sotol.backends.table import BACKENDS
from sotol.catalog import DEFAULT_MODEL, PACKAGED
from sotol.errors import SotolError

__all__ = [
    "BackendOption", "Context", "Continue", "ConversationId", "Effort", "EffortOption", "Files", "FrequencyPenalty",
    "GrammarFile", "GrammarString", "HideThinking", "IgnoreEos", "Json", "JsonOutput", "KvMemory", "LogitBias",
    "Logprobs", "MaxTokens", "MinP", "Model", "ModelOption", "NoColor", "NoPrefixCache", "NoWordWrap", "Pairs",
    "Precision", "PrecisionOption", "PresencePenalty", "Prompt", "PromptTokens", "PromptWords", "Quiet", "Raw", "Regex",
    "RepeatLastN", "RepeatPenalty", "Repeats", "RunCommand", "RunContext", "RunServer", "Schema", "Seed", "Sequences",
    "ServerAddress", "ServerKey", "StepTokens", "Stop", "System", "Temperature", "TemplateOptions", "Think", "Threads",
    "TopK", "TopP", "Verbose", "complete_model", "model_names",
]  # fmt: skip


def complete_model(incomplete: str) -> list[str]:
    """What a shell may offer for a model: names and the files of the current folder; none lets it offer any path."""
    files = (str(path) for path in sorted(Path().glob("*.gguf")))
    return [name for name in (*model_names(), *files) if name.startswith(incomplete)]


def model_names() -> list[str]:
    """The names that models have here: those of the table, aliases, and of what was pulled."""
    from sotol.aliases import aliases  # noqa: PLC0415  (only a shell asks)
    from sotol.hub import pulled  # noqa: PLC0415
    from sotol.hub.places import places  # noqa: PLC0415

    names = list(PACKAGED)
    with suppress(SotolError):
        names += [*aliases(), *(model.name for model in pulled(places().cache))]
    return names


def parse_threads(text: str | int) -> int | None:
    """A number of threads; 0 is as if none was given."""
    try:
        threads = int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number (a temperature is --temp)") from None
    if threads < 0:
        raise typer.BadParameter(f"{threads} is less than 0")
    return threads or None


class Precision(StrEnum):
    """`LLM`'s precision."""

    INT8 = "int8"
    F32 = "f32"


class Effort(StrEnum):
    """The levels of `tokenizers/effort.py`."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class RunCommand(TyperCommand):
    """`sotol run`, two of whose options are more than Typer knows.

    `--option` takes a name and a value each time, as that of `llm` does: Typer has options that are given several
    times, and options of two words, but none that is both. Defaults that are those of Python are looked up when
    somebody asks for help: all other uses would wait for their import.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        for parameter in self.params:
            if parameter.name == "option":
                parameter.nargs = 2

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the help of all options, with their defaults."""
        defaults = _defaults()
        for option in self.params:
            default = defaults.get(option.name)
            if isinstance(option, TyperOption) and option.default is None and default is not None:
                option.help = f"{option.help}  [default: {default}]"
        super().format_options(ctx, formatter)


def _defaults() -> dict[str | None, object]:
    """What is taken where an option is not given, of those of which something is taken."""
    from sotol.engine.options import Sampling  # noqa: PLC0415  (see `RunCommand`)
    from sotol.load_options import LoadOptions  # noqa: PLC0415

    return {f.name: f.default for f in (*fields(Sampling), *fields(LoadOptions)) if f.default not in (MISSING, ())}


Whole: TypeAlias = int | None
Number: TypeAlias = float | None

# ---- options of several commands

Model: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        help=f"A .gguf file, a folder, or a name: {', '.join(PACKAGED)}, ORG/REPO of a pulled one, an alias."
        f"  [default: SOTOL_MODEL, or else {DEFAULT_MODEL}]",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Continue: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--continue",
        "-c",
        help="Go on with the last conversation, of the chat page or of a terminal, and keep what is said. All words are"
        " the prompt then, unless the first is a model.",
    ),
]
ConversationId: TypeAlias = Annotated[
    str | None, typer.Option("--cid", metavar="ID", help="The same with another conversation, by its id or title.")
]
Threads: TypeAlias = Annotated[
    Whole,
    typer.Option(
        "--threads", "-t", metavar="N", parser=parse_threads, help="CPU threads; the physical cores if 0 or not given."
    ),
]
Context: TypeAlias = Annotated[
    Whole,
    typer.Option(
        "--ctx",
        "-c",
        min=1,
        metavar="N",
        help="Tokens of prompt and answer together; the model's own up to 4096 if not given.",
    ),
]
# The same for `sotol run`, where -c goes on with a conversation.
RunContext: TypeAlias = Annotated[
    Whole,
    typer.Option(
        "--ctx",
        min=1,
        metavar="N",
        help="Tokens of prompt and answer together; the model's own up to 4096 if not given.",
    ),
]
PrecisionOption: TypeAlias = Annotated[
    Precision, typer.Option("--precision", help="int8 quantises activations before quantised weights, f32 does not.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON object.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Write nothing but the result.")]
NoColor: TypeAlias = Annotated[
    bool, typer.Option("--no-color", help="No colours or other styles; NO_COLOR=1 does the same.")
]
PromptTokens: TypeAlias = Annotated[
    int, typer.Option("--prompt", "-p", min=1, metavar="N", help="Tokens of the prompt.")
]
Repeats: TypeAlias = Annotated[int, typer.Option("--repeats", "-r", min=1, metavar="N", help="How often to measure.")]

ServerAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="SOTOL_SERVER",
        help="The server, as http://127.0.0.1:8080, which is also where it is looked for if not given.",
    ),
]
ServerKey: TypeAlias = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", envvar="SOTOL_API_KEY", help="What the server wants, if it has keys."),
]

# ---- what `sotol run` is asked

RunServer: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="SOTOL_SERVER",
        help="Let a server answer, as http://127.0.0.1:8080: the model is one of its models, and none is loaded here.",
    ),
]

PromptWords: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[prompt]...",
        help="What to ask, in as many words as you like. What comes in on standard input goes before it; '-' alone is"
        " standard input. With neither, in a terminal, a conversation begins.",
        show_default=False,
    ),
]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="The model, in another place: all words are the prompt then.",
        autocompletion=complete_model,
    ),
]
Prompt: TypeAlias = Annotated[
    str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="The prompt, in another place.")
]
Files: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--file", "-f", metavar="FILE", help="A text to put before the prompt. May be given several times."),
]
System: TypeAlias = Annotated[
    str | None, typer.Option("--system", "-s", metavar="TEXT", help="The system message, before the prompt.")
]
Raw: TypeAlias = Annotated[bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")]
Think: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--think/--no-think",
        help="Whether a model that can do either thinks before it answers (enable_thinking of its template).",
        show_default=False,
    ),
]
EffortOption: TypeAlias = Annotated[
    Effort | None,
    typer.Option(
        "--effort",
        metavar="LEVEL",
        help=f"How much it is to think, as near as its template has it: {', '.join(Effort)}.",
        show_default=False,
    ),
]
HideThinking: TypeAlias = Annotated[
    bool, typer.Option("--hide-thinking", help="Show only what the model says, not what it thinks before.")
]
TemplateOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--template-option",
        metavar="NAME=VALUE",
        help="A variable for the chat template, as JSON or text. May be given several times.",
    ),
]

Sequences: TypeAlias = Annotated[
    Whole, typer.Option("--sequences", metavar="N", help="Requests that run at once; others wait.")
]
StepTokens: TypeAlias = Annotated[
    Whole, typer.Option("--step-tokens", metavar="N", help="A longer prompt runs in chunks of so many tokens.")
]
KvMemory: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--kv-memory",
        metavar="SIZE",
        help="Memory for keys and values: 2GB, or 25% of what is free. If not given: four full contexts, or half of"
        " what is free if that is less.",
    ),
]
NoPrefixCache: TypeAlias = Annotated[
    bool, typer.Option("--no-prefix-cache", help="Compute all of each prompt, also what is known from an earlier one.")
]
BackendOption: TypeAlias = Annotated[
    str | None, typer.Option("--backend", metavar="NAME", help=f"What computes: {' or '.join(BACKENDS)}.")
]

# ---- sampling

MaxTokens: TypeAlias = Annotated[
    Whole,
    typer.Option(
        "--max-tokens",
        "-n",
        metavar="N",
        help="Tokens to generate at most; to the end of the context if -1 or not given.",
    ),
]
Temperature: TypeAlias = Annotated[
    Number,
    typer.Option("--temperature", metavar="X", help="0 takes the likeliest token, 1 draws as the model says."),
]
TopK: TypeAlias = Annotated[
    Whole, typer.Option("--top-k", metavar="N", help="Keep the k likeliest tokens; 0 keeps all.")
]
TopP: TypeAlias = Annotated[
    Number,
    typer.Option("--top-p", metavar="X", help="Keep the fewest tokens whose probabilities reach p."),
]
MinP: TypeAlias = Annotated[
    Number,
    typer.Option("--min-p", metavar="X", help="Keep tokens at least this times as likely as the best."),
]
RepeatPenalty: TypeAlias = Annotated[
    Number,
    typer.Option("--repeat-penalty", metavar="X", help="Against the last tokens, by division; 1 is off."),
]
RepeatLastN: TypeAlias = Annotated[
    Whole,
    typer.Option("--repeat-last-n", metavar="N", help="How many tokens that looks at; -1 is all."),
]
FrequencyPenalty: TypeAlias = Annotated[
    Number,
    typer.Option("--frequency-penalty", metavar="X", help="Against generated tokens, each time."),
]
PresencePenalty: TypeAlias = Annotated[
    Number, typer.Option("--presence-penalty", metavar="X", help="Against generated tokens, once.")
]
Seed: TypeAlias = Annotated[
    Whole, typer.Option("--seed", metavar="N", help="The same seed gives the same text; random if -1 or not given.")
]
Stop: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End before this text. May be given several times."),
]
LogitBias: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--logit-bias",
        metavar="ID=X",
        help="Add X to a token's logit, -inf forbids it. May be given several times.",
    ),
]
Logprobs: TypeAlias = Annotated[
    Whole,
    typer.Option("--logprobs", metavar="N", help="With --json: log-probabilities, and those of so many alternatives."),
]
IgnoreEos: TypeAlias = Annotated[bool, typer.Option("--ignore-eos", help="Go on where the model would end.")]
JsonOutput: TypeAlias = Annotated[
    bool,
    typer.Option("--json-output", help="The answer must be a JSON object. (--json: what sotol says of it is.)"),
]
Schema: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="SCHEMA",
        help="The answer must be JSON that this describes: a JSON schema, a file that has one, or fields as 'name, age"
        " int, bio: in one sentence'.",
    ),
]
Regex: TypeAlias = Annotated[
    str | None,
    typer.Option("--regex", metavar="REGEX", help="The answer must be what this regular expression matches."),
]
GrammarFile: TypeAlias = Annotated[
    str | None,
    typer.Option("--grammar", metavar="FILE", help="The answer must be a sentence of this grammar, in GBNF or Lark."),
]
GrammarString: TypeAlias = Annotated[
    str | None, typer.Option("--grammar-string", metavar="TEXT", help="The same, with the grammar itself.")
]
Pairs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-o", metavar="NAME VALUE", help="The same options by name: -o temperature 0 -o num_ctx 2048."
    ),
]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Say how long it took, on standard error.")]
NoWordWrap: TypeAlias = Annotated[bool, typer.Option("--nowordwrap", help="Let the terminal break lines within words.")]
