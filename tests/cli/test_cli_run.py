"""`sotol run` with a prompt: the judge of its text is `LLM`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Sotol
from tests.support.scripted import TEMPLATE, scripted
from tests.support.tiny_model import tiny_model

from sotol import LLM, Sampling, SotolError
from sotol.engine.options import CONSTRAINTS
from sotol.load_options import LoadOptions

COMMAND = [sys.executable, "-c", "from sotol.cli import main; main()", "run"]
GREEDY = ("--temp", "0", "-n", "12")


def answer(llm: LLM, *messages: tuple[str, str]) -> str:
    return llm.chat([{"role": r, "content": c} for r, c in messages], temperature=0, max_tokens=12).text


def test_an_answer_is_plain_text(sotol: Sotol, llm: LLM) -> None:
    result = sotol("run", "smollm2", "What is the capital of France?", *GREEDY)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == answer(llm, ("user", "What is the capital of France?")) + "\n"


@pytest.mark.parametrize("arguments", [(), ("smollm2",), ("smollm2", "-")])
def test_the_prompt_comes_from_standard_input(arguments: tuple[str, ...], sotol: Sotol, llm: LLM) -> None:
    result = sotol("run", *arguments, *GREEDY, stdin="Name\na colour.\n")
    assert result.stdout == answer(llm, ("user", "Name\na colour.")) + "\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """A model that loads at once; it knows lower case letters."""
    with LLM(tiny_model(tmp_path_factory.mktemp("tiny")), threads=1) as llm:
        yield llm


@pytest.mark.parametrize(
    ("arguments", "stdin", "asked"),
    [
        (("{model}", "name", "a", "colour."), "", "name a colour."),
        (("{model}", "sum it up."), "a text.\n", "a text.\n\nsum it up."),
        (("{model}", "-f", "{file}", "sum it up."), "", "from a file.\n\nsum it up."),
        (("{model}", "-f", "{file}", "--file", "{file}"), "in.", "in.\n\nfrom a file.\n\nfrom a file."),
        (("{model}", "-p", "sum it up."), "a text.", "a text.\n\nsum it up."),
        (("-m", "{model}", "name", "a colour."), "", "name a colour."),
        (("--model", "{model}", "-p", "hi"), "", "hi"),
        (("{model}", "-p", "hi", "there"), " \n", "there hi"),
        (("{model}", "-", "why?"), "name a colour.\n", "name a colour.\n\nwhy?"),
        (("{model}", "-f", "-", "why?"), "\ufeffname a colour.\n", "name a colour.\n\nwhy?"),
        (("{model}",), "name\na colour.\n", "name\na colour."),
    ],
)
def test_what_is_asked(
    arguments: tuple[str, ...], stdin: str, asked: str, sotol: Sotol, tiny: LLM, tmp_path: Path
) -> None:
    (tmp_path / "a file").write_text("from a file.\n")
    given = (a.format(file=tmp_path / "a file", model=tiny.path) for a in arguments)
    result = sotol("run", *given, "--temp", "0", "-n", "4", "--raw", "--json", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    record, expected = json.loads(result.stdout), tiny.generate(asked, temperature=0, max_tokens=4)
    assert record["usage"]["prompt_tokens"] == expected.usage.prompt_tokens == len(tiny.tokenize(asked))
    assert record["tokens"] == list(expected.tokens)


def test_input_for_the_default_model(sotol: Sotol, llm: LLM) -> None:
    result = sotol("run", "-", *GREEDY, stdin="Name a colour.\n")
    assert result.stdout == answer(llm, ("user", "Name a colour.")) + "\n"


def test_the_model_of_the_environment(sotol: Sotol, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTOL_MODEL", "nowhere.gguf")
    result = sotol("run", "-p", "Hi")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("sotol: no model 'nowhere.gguf' (SOTOL_MODEL): give the path")
    monkeypatch.setenv("SOTOL_MODEL", str(llm.path))
    assert sotol("run", "-p", "Hi", *GREEDY).stdout == answer(llm, ("user", "Hi")) + "\n"


def test_the_system_message(sotol: Sotol, llm: LLM) -> None:
    result = sotol("run", "smollm2", "Who are you?", "--system", "You are a pirate.", *GREEDY)
    assert result.stdout == answer(llm, ("system", "You are a pirate."), ("user", "Who are you?")) + "\n"


def test_raw_continues_the_text(sotol: Sotol, llm: LLM) -> None:
    result = sotol("run", "smollm2", "One, two, three,", "--raw", *GREEDY)
    assert result.stdout == llm.generate("One, two, three,", temperature=0, max_tokens=12).text + "\n"


def test_sampling_options_arrive(sotol: Sotol, llm: LLM) -> None:
    given = Sampling(
        temperature=1.5, top_k=50, top_p=0.9, min_p=0.01, repeat_penalty=1.3, repeat_last_n=32, frequency_penalty=0.5,
        presence_penalty=0.25, seed=7, stop=["zzz", "qqq"], logit_bias={42: -3.0, 7: float("-inf")}, logprobs=2,
        max_tokens=24, ignore_eos=True,
    )  # fmt: skip
    options = [
        "--temperature=1.5", "--top-k=50", "--top-p=0.9", "--min-p=0.01", "--repeat-penalty=1.3", "--repeat-last-n=32",
        "--frequency-penalty=0.5", "--presence-penalty=0.25", "--seed=7", "--stop=zzz", "--stop=qqq",
        "--logit-bias=42=-3", "--logit-bias=7=-inf", "--logprobs=2", "--max-tokens=24", "--ignore-eos",
    ]  # fmt: skip
    result = json.loads(sotol("run", "smollm2", "Tell me more.", "--json", *options).stdout)
    expected = llm.chat([{"role": "user", "content": "Tell me more."}], sampling=given)
    assert result["tokens"] == list(expected.tokens)
    assert result["finish_reason"] == expected.finish_reason
    assert [len(item["top"]) for item in result["logprobs"]] == [2] * 24


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (("--temp", "0", "--n-predict", "3"), Sampling(temperature=0, max_tokens=3)),
        (("--temp=0", "--num_predict", "3", "--seed", "-1"), Sampling(temperature=0, max_tokens=3)),
        (("-o", "temperature", "0", "-o", "num_predict", "3", "-t", "0"), Sampling(temperature=0, max_tokens=3)),
        (("-o", "temp", "1", "--temp", "0", "--predict", "3", "-t1"), Sampling(temperature=0, max_tokens=3)),
        (("-o", "stop", "a", "-o", "stop", "e", "-o", "logit_bias", "7=-inf", "--temp", "0", "-n", "9"),
         Sampling(temperature=0, max_tokens=9, stop=["a", "e"], logit_bias={7: float("-inf")})),
        (("-n", "-1", "--temp", "0", "--repetition-penalty", "1.2", "--ctx-size", "40"),
         Sampling(temperature=0, repeat_penalty=1.2)),
        (("-n", "-2", "--temp", "0", "-o", "num_ctx", "40"), Sampling(temperature=0)),
    ],
)  # fmt: skip
def test_options_by_the_names_of_others(options: tuple[str, ...], given: Sampling, sotol: Sotol, tiny: LLM) -> None:
    result = json.loads(sotol("run", str(tiny.path), "count to ten.", "--json", *options).stdout)
    expected = tiny.chat([{"role": "user", "content": "count to ten."}], sampling=given)
    most = 40 - result["usage"]["prompt_tokens"] if given.max_tokens is None else given.max_tokens
    assert result["tokens"] == list(expected.tokens)[:most]


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ((), {}),
        (("--sequences", "3", "--step-tokens=32", "--no-prefix-cache"),
         {"sequences": 3, "step_tokens": 32, "prefix_cache": False}),
        (("--kv-memory", "25%", "--backend", "reference"), {"kv_memory": 0.25, "backend": "reference"}),
        (("-o", "kv_memory", "2GB", "--parallel", "2", "--ubatch-size", "8"),
         {"kv_memory": 2 * 10**9, "sequences": 2, "step_tokens": 8}),
        (("-o", "prefix_cache", "off", "-o", "num_ctx", "40", "--precision=f32"),
         {"prefix_cache": False, "ctx": 40, "precision": "f32"}),
    ],
)  # fmt: skip
def test_options_of_loading_arrive(
    options: tuple[str, ...], given: dict[str, object], sotol: Sotol, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def load(_model: str, *, quiet: bool, color: bool, **loading: Any) -> LLM:
        seen.append((quiet, color, LoadOptions.of(loading)))
        raise SotolError("that is all")

    monkeypatch.setattr("sotol.cli.run.load", load)
    assert sotol("run", "smollm2", "Hi", *options).stderr == "sotol: that is all\n"
    assert seen == [(False, True, LoadOptions.of(given))]


def test_an_answer_with_options_of_loading(sotol: Sotol, tiny: LLM) -> None:
    options = ("--step-tokens=4", "--sequences=1", "--kv-memory=100MB", "--no-prefix-cache", "--backend=cpu")
    result = sotol("run", str(tiny.path), "name a colour.", "--json", "--temp=0", "-n4", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    expected = tiny.chat([{"role": "user", "content": "name a colour."}], temperature=0, max_tokens=4)
    assert json.loads(result.stdout)["tokens"] == list(expected.tokens)


def test_options_of_the_template(sotol: Sotol, tmp_path: Path) -> None:
    shown = (
        "{{ messages[0].content }}{% if enable_thinking is defined %}[{{ enable_thinking }}]{% endif %}{{ word }}"
        "{% if reasoning_effort is defined %}({{ reasoning_effort }}){% endif %}"
    )
    path = str(tiny_model(tmp_path, {"tokenizer.chat_template": shown}))
    with LLM(path) as tiny:
        for options, text in (
            ([], "ab"),
            (["--think"], "ab[True]"),
            (["--no-think"], "ab[False]"),
            (["--effort", "max"], "ab[True](high)"),
            (["--reasoning-effort", "none"], "ab[False]"),
            (["--template-option", "word=xyz", "--template-option", "enable_thinking=null"], "ab[None]xyz"),
            (["--template-option", "word=5"], "ab5"),
        ):
            result = json.loads(sotol("run", path, "ab", "--json", "-n", "1", *options).stdout)
            ids = tiny.tokenizer.encode(text, special=True, add_special=False)
            assert result["usage"]["prompt_tokens"] == len(ids) + 1  # the beginning of the text


def test_json_has_the_completion_and_its_speed(sotol: Sotol, llm: LLM) -> None:
    result = json.loads(sotol("run", "smollm2", "Hi", "--json", *GREEDY).stdout)
    expected = llm.chat([{"role": "user", "content": "Hi"}], temperature=0, max_tokens=12)
    assert result["text"] == expected.text
    assert result["tokens"] == list(expected.tokens)
    assert result["usage"]["prompt_tokens"] == expected.usage.prompt_tokens
    assert result["usage"]["cached_tokens"] == 0
    assert result["model"] == str(llm.path)
    timings, speed = result["timings"], result["tokens_per_second"]
    assert speed["prefill"] == pytest.approx(expected.usage.prompt_tokens / timings["prefill"])
    assert speed["decode"] == pytest.approx((expected.usage.completion_tokens - 1) / timings["decode"])


def test_verbose_goes_to_standard_error(sotol: Sotol, llm: LLM) -> None:
    result = sotol("run", "smollm2", "Hi", "--verbose", *GREEDY)
    assert result.stdout == answer(llm, ("user", "Hi")) + "\n"
    assert re.fullmatch(r"prompt \d+ tokens in .* s \(.* tokens/s\), answer \d+ .*, ended by \w+\n", result.stderr)


def broken(folder: Path) -> str:
    (folder / "broken.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 64)
    return str(folder / "broken.gguf")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["Why is the sky blue?"], 1, "no model 'Why is the sky blue.'.* comes after the model"),
        (["{folder}", "hi"], 1, "is a folder: give the path"),
        (["{broken}", "hi"], 1, r"broken\.gguf: the number of"),
        (["smolm2", "hi"], 1, "no model 'smolm2': did you mean smollm2"),
        (["smollm2", ""], 2, "the prompt is empty"),
        (["smollm2", "hi", "-f", "{folder}/none"], 1, "none can't be read: no such file"),
        (["smollm2", "hi", "-f", "{folder}"], 1, "can't be read: is a directory"),
        (["smollm2", "hi", "-f", "{image}"], 2, r"image\.png is an image \(PNG\): only text can be read"),
        (["smollm2", "hi", "-f", "{broken}"], 2, "broken.gguf is not UTF-8 text: invalid start byte at byte 8"),
        (["smollm2", "\udcff"], 2, "the prompt is not text in the encoding of this locale"),
        (["smollm2", "hi", "-o", "temprature", "1"], 2, "no parameter 'temprature': did you mean temperature"),
        (["smollm2", "hi", "--seed", "-2"], 2, "seed is -2"),
        (["smollm2", "hi", "--template-option", "messages=1"], 2, "it must be NAME=VALUE"),
        (["smollm2", "hi", "--effort", "much"], 2, "invalid value for '--effort': 'much' is not one of"),
        (["smollm2", "hi", "--raw", "--effort", "low"], 2, "--raw takes neither"),
        (["smollm2", "hi", "--raw", "--think"], 2, "--raw takes neither"),
        (["smollm2", "hi", "--top-k=-1"], 2, "top_k is -1; it must be"),
        (["smollm2", "hi", "--logit-bias=x"], 2, "--logit-bias is 'x'"),
        (["smollm2", "hi", "--logit-bias=999999=1", "-n1"], 2, "token 999999"),
        (["smollm2", "hi", "--raw", "--system=x"], 2, "--raw takes neither --system nor"),
        (["smollm2", "hi", "--logprobs=1"], 2, "add --json"),
        (["smollm2", "hi", "--ctx=8"], 2, "the prompt has .* tokens, but the context holds 7"),
        (["smollm2", "hi", "--ctx=99999"], 2, "ctx is 99999, but the model was made for"),
        (["smollm2", "hi", "--kv-memory=much"], 2, "kv_memory is 'much'; it must be a size as 2GB"),
        (["smollm2", "hi", "--kv-memory=1kB"], 2, "kv_memory is too small: a context of 4096 tokens needs"),
        (["smollm2", "hi", "--kv-memory=150%"], 2, "kv_memory is 1.5; it must be"),
        (["smollm2", "hi", "--sequences=0"], 2, "sequences is 0; it must be a whole number from 1 to 4096"),
        (["smollm2", "hi", "--backend=gpu"], 2, "backend is 'gpu'; it must be one of cpu, reference"),
        (["smollm2", "hi", "-o", "n", "2"], 2, "no parameter 'n'"),
    ],
)
def test_errors_are_one_line(arguments: list[str], code: int, said: str, sotol: Sotol, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))
    result = sotol("run", *(a.format(folder=tmp_path, broken=broken(tmp_path), image=image) for a in arguments))
    assert (result.exit_code, result.stdout) == (code, "")
    assert re.fullmatch(f"sotol: .*{said}.*\n", result.stderr)


@pytest.mark.parametrize("words", [(), ("Hi",)])
def test_input_that_is_not_text(words: tuple[str, ...], sotol: Sotol) -> None:
    result = sotol("run", "smollm2", *words, stdin=b"\xff\xfe")
    assert result.exit_code == 2
    assert re.fullmatch("sotol: standard input is not UTF-8 text: invalid start byte at byte 0\n", result.stderr)


def test_the_help_tells_the_defaults(sotol: Sotol) -> None:
    text = " ".join(sotol("run", "--help").stdout.split())
    told = {f"--{name.replace('_', '-')}": default for name, default in asdict(LoadOptions()).items()}
    for name in ("--sequences", "--step-tokens", "--backend", "--precision"):
        assert re.search(rf" {name} [^\]]*\[default: {told[name]}\]", text), name
    for name, default in {f: getattr(Sampling(), f) for f in Sampling.__dataclass_fields__}.items():
        if default is None or name in ("stop", "logit_bias", "ignore_eos", "n", *CONSTRAINTS):
            continue  # off unless given
        assert re.search(rf" --{name.replace('_', '-')} [^\]]*\[default: {default}\]", text), name


# ---- as a process: signals and pipes


@pytest.fixture
def start() -> Callable[..., "subprocess.Popen[bytes]"]:
    def begin(*arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        env = os.environ | environment
        return subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=env)

    return begin


def test_ctrl_c_ends_with_130(start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    with start("smollm2", "Tell a long story.", "--ignore-eos") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(8)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stdout.read().endswith(b"\n")
        assert process.stderr.read() == b""


def test_a_reader_that_leaves_ends_with_141(start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    with start("smollm2", "Tell a long story.", "--ignore-eos") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(8)
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


def test_output_that_is_not_utf8_lacks_characters_and_does_not_fail(
    start: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    with start(
        "smollm2", "é", "--raw", "-n", "1", "--json", "--logit-bias=29989=1e9", PYTHONIOENCODING="ascii"
    ) as process:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
        assert json.loads(out)["tokens"] == [29989]
        assert "?" in json.loads(out)["text"]


def test_thoughts_are_apart(sotol: Sotol, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readable in a pipe, or hidden; in JSON a field of their own."""
    model = partial(
        scripted, "<think>\nHm.\n</think>\n\nYes.", template=TEMPLATE + "{# <think> #}", shown=["<think>", "</think>"]
    )
    monkeypatch.setattr("sotol.cli.run.load", lambda _, **__: model())
    asked = ("run", "smollm2", "Is it?")
    assert sotol(*asked).stdout == "<think>\nHm.\n</think>\n\nYes.\n"
    for option in ("--hide-thinking", "--hidethinking", "--hide_thinking"):
        assert sotol(*asked, option).stdout == "Yes.\n"
    record = json.loads(sotol(*asked, "--json").stdout)
    assert (record["text"], record["reasoning"], record["tool_calls"]) == ("Yes.", "Hm.", [])
    assert record["usage"]["reasoning_tokens"] > 0
