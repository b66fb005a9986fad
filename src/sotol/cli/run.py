"""`sotol run`: a prompt's answer, streamed; or a conversation, where there is no prompt."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from sotol.answers.folding import Fold
from sotol.answers.pieces import Content, Reasoning
from sotol.catalog import PACKAGED, default_model, find_model
from sotol.cli import options as o
from sotol.cli.constraints import grammar_of, parse_schema
from sotol.cli.loading import load
from sotol.cli.output import AnswerWriter, as_json, console, write_piece
from sotol.cli.parameters import LOADING, merged, parse_bias, parse_memory, parse_parameter, parse_template
from sotol.cli.reading import prompt_of
from sotol.cli.report import speeds, summary
from sotol.cli.streams import say
from sotol.errors import ModelNotFoundError, NotPulledError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sotol.cli.conversations import Session
    from sotol.engine.options import Sampling
    from sotol.llm import LLM
    from sotol.stream import Stream

__all__ = ["run"]


COMMAND = o.RunCommand


# Typer wants a parameter for each option.
def run(
    model: o.Model = None,
    prompt: o.PromptWords = None,
    model_option: o.ModelOption = None,
    prompt_option: o.Prompt = None,
    continue_: o.Continue = False,
    cid: o.ConversationId = None,
    file: o.Files = None,
    system: o.System = None,
    raw: o.Raw = False,
    think: o.Think = None,
    effort: o.EffortOption = None,
    hide_thinking: o.HideThinking = False,
    template_option: o.TemplateOptions = None,
    max_tokens: o.MaxTokens = None,
    temperature: o.Temperature = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    repeat_penalty: o.RepeatPenalty = None,
    repeat_last_n: o.RepeatLastN = None,
    frequency_penalty: o.FrequencyPenalty = None,
    presence_penalty: o.PresencePenalty = None,
    seed: o.Seed = None,
    stop: o.Stop = None,
    logit_bias: o.LogitBias = None,
    logprobs: o.Logprobs = None,
    ignore_eos: o.IgnoreEos = False,
    json_output: o.JsonOutput = False,
    schema: o.Schema = None,
    regex: o.Regex = None,
    grammar: o.GrammarFile = None,
    grammar_string: o.GrammarString = None,
    option: o.Pairs = None,
    server: o.RunServer = None,
    api_key: o.ServerKey = None,
    threads: o.Threads = None,
    ctx: o.RunContext = None,
    precision: o.PrecisionOption = o.Precision.INT8,
    sequences: o.Sequences = None,
    step_tokens: o.StepTokens = None,
    kv_memory: o.KvMemory = None,
    no_prefix_cache: o.NoPrefixCache = False,
    backend: o.BackendOption = None,
    json: o.Json = False,
    nowordwrap: o.NoWordWrap = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
    no_color: o.NoColor = False,
) -> None:
    """Answer a prompt, or hold a conversation.

    `sotol run` talks to the default model, `sotol run smollm2 Why?` answers, `cat file | sotol run smollm2 Summarise
    this` reads standard input, too.
    """
    session = _session(cid, resumes=continue_ or cid is not None)
    name, words = _split(model, prompt or [], model_option, resumes=session is not None)
    words += [prompt_option] if prompt_option is not None else []
    files = file or []
    talking = not (words or files) and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    template = parse_template(template_option or []) | ({} if think is None else {"enable_thinking": think})
    template |= {} if effort is None else {"reasoning_effort": effort.value}
    if raw and (system is not None or template or session is not None):
        raise ValueError(
            "--raw takes neither --system nor options of the template, nor --continue and --cid: it goes without the"
            " chat template"
        )
    if talking and (raw or json):
        raise ValueError("--raw and --json need a prompt: give it after the model, or on standard input")
    if logprobs is not None and not json:
        raise ValueError("--logprobs shows in JSON only: add --json")
    own: dict[str, Any] = {
        "max_tokens": max_tokens, "temperature": temperature, "top_k": top_k,
        "top_p": top_p, "min_p": min_p, "repeat_penalty": repeat_penalty, "repeat_last_n": repeat_last_n,
        "frequency_penalty": frequency_penalty, "presence_penalty": presence_penalty,
        "seed": seed, "stop": stop or None, "logprobs": logprobs,
        "logit_bias": parse_bias(logit_bias) if logit_bias else None,
        "ignore_eos": ignore_eos or None, "json": json_output or None, "regex": regex,
        "schema": None if schema is None else parse_schema(schema),
        "grammar": grammar_of(grammar, grammar_string), "threads": threads, "ctx": ctx,
        "sequences": sequences, "step_tokens": step_tokens, "backend": backend,
        "kv_memory": None if kv_memory is None else parse_memory(kv_memory),
        "prefix_cache": False if no_prefix_cache else None,
    }  # fmt: skip
    given = name
    name, system, template, sampled = _going_on(session, name, system, template)
    _find(name, server, goes_on=name != given, quiet=quiet, color=not no_color)
    text = None if talking else prompt_of(words, files, quiet=quiet)
    named = merged(parse_parameter(*pair) for pair in option or ())
    chosen = sampled | named | {k: v for k, v in own.items() if v is not None}
    from sotol.engine.options import Sampling  # noqa: PLC0415  (`sotol --help` does without)

    loading: dict[str, Any] = {key: chosen.pop(key, None) for key in LOADING}
    sampling = Sampling.of(**chosen)
    opened: Callable[..., LLM] = partial(load, **loading, precision=precision, quiet=quiet, color=not no_color)
    if server:
        opened = _remote(server, api_key, {**loading, "precision": precision}, quiet=quiet)
    if text is None:
        settings = {
            "system": system, "template": template, "verbose": verbose, "wordwrap": not nowordwrap,
            "color": not no_color, "hide_thinking": hide_thinking, "session": session,
            "turns": _asked(session),
        }  # fmt: skip
        title = name or server or default_model()
        _talk(name, opened, sampling, settings, title=title, quiet=quiet, color=not no_color)
        return
    asked = _asked(session, text)
    with (
        opened(name) as llm,
        _keeping(session, llm, system, asked) as answer,
        _begin(llm, text if raw else asked, system, template, sampling) as stream,
    ):
        if json:
            completion = stream.result()
            answer.take(Content(completion.text))
            answer.take(Reasoning(completion.reasoning))
            record = {"model": str(llm.path), **asdict(completion), "tokens_per_second": speeds(completion)}
            record.pop("parsed")  # an object only for Python
            write_piece(as_json(record) + "\n", sys.stdout)
        else:
            writer = AnswerWriter(sys.stdout, wrap=not nowordwrap, color=not no_color, thinking=not hide_thinking)
            try:
                for delta in stream.deltas():
                    for piece in delta.pieces:
                        answer.take(piece)
                    writer.take(delta.pieces)
            finally:
                writer.end()
        if verbose and stream.completion is not None:
            say(summary(stream.completion))


def _session(cid: str | None, *, resumes: bool) -> "Session | None":
    """The conversation that goes on, if one is to."""
    if not resumes:
        return None
    from sotol.cli import conversations  # noqa: PLC0415  (the database is seldom wanted)

    return conversations.latest() if cid is None else conversations.resumed(cid)


def _split(
    model: str | None, words: Sequence[str], option: str | None, *, resumes: bool
) -> tuple[str | None, list[str]]:
    """The model's name, and the words of the prompt: the first word is the model, unless an option names it.

    resumes: a conversation has its model already; so the first word is one only if there is a model of that name.
    """
    if resumes and option is None and model is not None:
        if model.isdecimal():
            raise ValueError(f"-c goes on with the last conversation: --ctx {model} sets the context")
        try:
            find_model(model)
        except ModelNotFoundError:
            return None, [model, *words]
    if option is not None:
        return option, [*([] if model is None else [model]), *words]
    if model == "-":  # standard input, for the default model
        return None, [model, *words]
    return model, list(words)


def _find(name: str | None, server: str | None, *, goes_on: bool, quiet: bool, color: bool) -> None:
    """Look for the model before anything slow, unless a server has it, and offer to pull one that is not here.

    The error says where the prompt goes if it was given alone, or whose model it is where a conversation goes on.
    """
    if server:
        return
    try:
        find_model(name)
    except NotPulledError as error:
        from sotol.cli.pull import offered  # noqa: PLC0415  (few runs begin so)

        if not offered(error.name, quiet=quiet, color=color):
            raise NotPulledError(f"{error}; a prompt comes after the model", error.name) from None
    except ModelNotFoundError as error:
        if name is None or name.casefold() in PACKAGED:
            raise
        if goes_on:
            raise ModelNotFoundError(f"{error}; the conversation had this model: --model names another") from None
        raise ModelNotFoundError(f"{error}; a prompt comes after the model") from None


def _remote(server: str, key: str | None, loading: "Mapping[str, Any]", *, quiet: bool) -> "Callable[..., Any]":
    """What gives a model of a server by name, as `load` does one of this machine."""
    from sotol.cli.remote import connect  # noqa: PLC0415  (runs without a server do without)
    from sotol.cli.server_client import ServerClient  # noqa: PLC0415

    given = {**loading, "precision": None if loading["precision"] is o.Precision.INT8 else loading["precision"]}
    note: Callable[[str], None] = (lambda _: None) if quiet else (lambda text: say(f"sotol: the server is {text}"))
    return partial(connect, ServerClient(server, key), note=note, **given)


def _going_on(
    session: "Session | None", model: str | None, system: str | None, template: dict[str, Any]
) -> tuple[str | None, str | None, dict[str, Any], dict[str, Any]]:
    """The model, the system message, the template's options and the sampling: a conversation's own, if not given."""
    if session is None:
        return model, system, template, {}
    system = session.system if system is None else system
    return model or session.model or None, system, session.template | template, session.sampling


def _asked(session: "Session | None", *texts: str) -> list[dict[str, str]]:
    """What was said before, and the prompt."""
    return [*(session.turns if session else ()), *({"role": "user", "content": text} for text in texts)]


@contextmanager
def _keeping(
    session: "Session | None", llm: "LLM", system: str | None, asked: "list[dict[str, str]]"
) -> "Iterator[Fold]":
    """Keeps what was asked and answered, also where the answer is cut short, if there is anything of it."""
    answer = Fold()
    try:
        yield answer
    finally:
        said, thought, _ = answer.answer
        if session is not None and said:
            from sotol.cli.conversations import Conversation  # noqa: PLC0415  (see `_session`)

            turn = {"role": "assistant", "content": said, **({"reasoning_content": thought} if thought else {})}
            session.keep(Conversation(str(llm.path), system, [*asked, turn]))


def _begin(
    llm: "LLM",
    asked: "str | list[dict[str, str]]",
    system: str | None,
    template: "Mapping[str, Any]",
    sampling: "Sampling",
) -> "Stream":
    """asked: a text to continue as it is, or a conversation."""
    if isinstance(asked, str):
        return llm.stream(asked, sampling=sampling)
    first = [] if system is None else [{"role": "system", "content": system}]
    return llm.stream_chat([*first, *asked], template=template, sampling=sampling)


def _talk(
    name: str | None,
    opened: "Callable[..., LLM]",
    sampling: "Sampling",
    settings: "Mapping[str, Any]",
    *,
    title: str,
    quiet: bool,
    color: bool,
) -> None:
    """A conversation, to the end of input."""
    from sotol.cli.editing import prompt_session  # noqa: PLC0415  (prompt_toolkit takes a fifth of a second)
    from sotol.cli.interrupts import every_one_raises  # noqa: PLC0415
    from sotol.cli.repl import Repl  # noqa: PLC0415

    every_one_raises()
    repl = Repl(opened(name), console(color=color), sampling, opened, **settings)
    try:
        if not quiet:
            repl.note(f"{title}: /? lists commands, Ctrl-D quits")
        repl.talk(prompt_session(repl.note, color=color))
    finally:
        repl.llm.close()
