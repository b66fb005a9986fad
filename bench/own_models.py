"""Everything that can be compared with others, over one's own model files: `make parity MODELS=FOLDER`.

    python -m bench.own_models FOLDER-OR-FILE … [--tokens 256] [--exact-below GB] [--cache FOLDER] [--json]

For each GGUF file, and each folder with a config.json: how far logits are from exact ones (NumPy in float64), and how
far llama.cpp is, of which sotol may be 1.05 times; greedy text beside llama.cpp's; ids of a corpus; prompts of the
chat template beside those of `transformers`; and a call of a tool that must be. It prints a line for each, and what
differs; the exit code is 1 if something does that should not. A model that is too large for float64 is compared with
llama.cpp alone. Each model runs in a process of its own, so that one that crashes ends alone.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench.accuracy import TEXT, exact_logits, llama_cpp_logits, mean_kl, sotol_logits, text_ids

from sotol import LLM
from sotol.formats import read_model
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.chat import ChatTemplate
from sotol.tokenizers.provenance import unmarked

__all__ = ["Result", "compare", "main", "models_in"]

ALLOWED = 1.05  # times llama.cpp's distance from exact logits
LEAST = 1e-6  # a distance that is rounding
NEAR = 1e-2  # a distance from llama.cpp, in nats, that is arithmetic's and no mistake's
TIE = 0.5  # of logits: two tokens that are so near may change places, since llama.cpp is as far from exact ones itself
GREEDY = 48  # tokens
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALLED = {"name": "get_weather", "arguments": {"city": "Oslo"}}
CALL = {"id": "abcdef123", "type": "function", "function": CALLED}
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "plain": ([{"role": "user", "content": "Hi"}], {}),
    "system": ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi "}], {}),
    "turns": (
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
        {},
    ),
    "tools": ([{"role": "user", "content": "Weather?"}], {"tools": [TOOL]}),
    "calls": (
        [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": "Rain."},
        ],
        {"tools": [TOOL]},
    ),
}


class Result(NamedTuple):
    """Of one comparison. fine: None if it could not be made. said: what was found, on a line."""

    name: str
    fine: bool | None
    said: str


def models_in(paths: Sequence[Path]) -> list[Path]:
    """All model files and folders, of split files the first part. ValueError where there is none."""
    found: list[Path] = []
    for path in paths:
        if path.is_file() or _is_folder(path):
            found.append(path)
            continue
        inside = [one for one in sorted(path.rglob("*.gguf")) if "-of-" not in one.stem or "-00001-of-" in one.stem]
        found += [*inside, *(one for one in sorted(path.rglob("*")) if _is_folder(one))]
    if not found:
        raise ValueError(f"no GGUF file and no folder with a config.json in {', '.join(map(str, paths))}")
    return found


def compare(model: Path, tokens: int, exact_below: float, cache: Path) -> Iterator[Result]:
    """All comparisons of a model; one that fails says why, and the others go on."""
    steps: list[tuple[str, Callable[[], Result]]] = [
        ("logits", lambda: _logits(model, tokens, exact_below, cache)),
        ("greedy", lambda: _greedy(model)),
        ("ids", lambda: _ids(model)),
        ("template", lambda: _template(model)),
        ("tool call", lambda: _tool_call(model)),
    ]
    for name, step in steps:
        try:
            yield step()
        except ImportError as error:
            yield Result(name, None, f"not compared: {error}")
        except Exception as error:  # noqa: BLE001  (whatever it is, it is what differs)
            yield Result(name, False, f"{type(error).__name__}: {error}".replace("\n", " ")[:300])


# ---- one after the other


def _logits(model: Path, tokens: int, exact_below: float, cache: Path) -> Result:
    ids = text_ids(model, TEXT.read_text(encoding="utf-8"), tokens)
    ours = sotol_logits(model, ids)
    peers = [] if _is_folder(model) else [llama_cpp_logits(model, ids, flash=flash) for flash in (False, True)]
    if _bytes(model) > exact_below * 1e9:
        if not peers:
            return Result("logits", None, "too large for float64, and llama.cpp does not read folders")
        distance = min(mean_kl(peer, ours) for peer in peers)
        return Result("logits", distance < NEAR, f"KL {distance:.2e} from llama.cpp; too large for float64")
    exact = exact_logits(model, ids, cache)
    own, best = mean_kl(exact, ours), float(np.mean(exact.argmax(axis=1) == ours.argmax(axis=1)))
    said = f"KL {own:.2e} from exact, the same best token in {best:.1%}"
    if not peers:
        return Result("logits", own < NEAR, said)
    theirs = min(mean_kl(exact, peer) for peer in peers)
    return Result(
        "logits", own <= max(ALLOWED * theirs, LEAST), f"{said}; llama.cpp's {theirs:.2e}: {own / theirs:.2f}x"
    )


def _greedy(model: Path) -> Result:
    """sotol's text, and where llama.cpp would have said something else after the same tokens."""
    prompt = text_ids(model, TEXT.read_text(encoding="utf-8"), 32)
    with LLM(model) as llm:
        said = llm.generate(prompt, temperature=0, max_tokens=min(GREEDY, llm.context - len(prompt)))
    if _is_folder(model):
        return Result("greedy", None, f"{len(said.tokens)} tokens; llama.cpp does not read folders")
    rows = llama_cpp_logits(model, [*prompt, *said.tokens])[len(prompt) - 1 : -1]  # those that chose each token
    gaps = [float(row.max() - row[token]) for row, token in zip(rows, said.tokens, strict=True)]
    parted = [i for i, gap in enumerate(gaps) if gap > 0]
    if not parted:
        return Result("greedy", True, f"the same {len(gaps)} tokens")
    worst = max(gaps)
    return Result(
        "greedy", worst < TIE, f"parts at token {parted[0] + 1} of {len(gaps)}; at most {worst:.3f} less likely"
    )


def _ids(model: Path) -> Result:
    """Of the corpus, line by line and whole."""
    text = TEXT.read_text(encoding="utf-8")
    parts = [text, *text.splitlines(), " leading", "trailing ", "\n\n\tindented\n", "<s>[INST]<|im_start|>", "😀é漢字"]
    ours = _tokenizer(model)
    with _judge(model) as judge:
        wrong = [part for part in parts if ours.encode(part, add_special=False) != judge(part)]
    if not wrong:
        return Result("ids", True, f"the same for {len(parts)} texts of {len(text)} characters")
    return Result("ids", False, f"{len(wrong)} of {len(parts)} texts differ, as {wrong[0][:60]!r}")


def _template(model: Path) -> Result:
    metadata = read_model(model).metadata
    source = metadata.get("tokenizer.chat_template")
    tokenizer = _tokenizer(model)
    bos, eos = ("" if i is None else tokenizer.token_text(i) for i in (tokenizer.bos, tokenizer.eos))
    if not isinstance(source, str):
        preset = ChatTemplate.from_metadata(
            metadata, bos=bos, eos=eos, architecture=str(metadata.get("general.architecture")),
            tokens=lambda text: tokenizer.id_of(text) is not None,
        ).source  # fmt: skip
        return Result("template", None, f"the file has none: {preset} is used")
    ours, wrong, refused = ChatTemplate({"default": source}, bos=bos, eos=eos, seconds=60), list[str](), list[str]()
    for name, (messages, options) in CONVERSATIONS.items():
        theirs = _transformers(source, messages, bos, eos, **options)
        if theirs is None or (name == "calls" and "Oslo" not in theirs):
            refused.append(name)
        elif unmarked(ours.render(messages, **options)) != theirs:
            wrong.append(name)
    beside = f"; transformers refuses {', '.join(refused)}" if refused else ""
    return Result(
        "template", not wrong, (f"differs for {', '.join(wrong)}" if wrong else "as transformers writes it") + beside
    )


def _tool_call(model: Path) -> Result:
    asked = [{"role": "user", "content": "How is the weather in Oslo?"}]
    with LLM(model) as llm:
        format_ = llm.turn(asked, tools=None).format.name
        try:
            turn = llm.turn(asked, tools=[TOOL], tool_choice="required")
        except Exception as error:  # noqa: BLE001  (the template's, or a preset's)
            return Result("tool call", None, f"no tools: {error}"[:200])
        answer = llm.generate(turn, max_tokens=512, temperature=0)
    if answer.finish_reason == "length":
        return Result(
            "tool call", None, f"{format_}: it thinks longer than 512 tokens" if answer.reasoning else f"{format_}: cut"
        )
    called = [(call.name, json.loads(call.arguments)) for call in answer.tool_calls]
    valid = bool(called) and all(name == "get_weather" and isinstance(given.get("city"), str) for name, given in called)
    return Result("tool call", valid, f"{format_}: {called}"[:200])


# ---- judges


@contextmanager
def _judge(model: Path) -> Iterator[Callable[[str], list[int]]]:
    """What makes ids of a text, without bos: llama.cpp, or of a folder `transformers`."""
    if _is_folder(model):
        from transformers import AutoTokenizer  # noqa: PLC0415  (not everyone has it)

        theirs = AutoTokenizer.from_pretrained(str(model))
        yield lambda text: list(theirs.encode(text, add_special_tokens=False, split_special_tokens=True))
        return
    import llama_cpp.llama_cpp as lib  # noqa: PLC0415  (as above)

    lib.llama_log_set(silent := lib.llama_log_callback(lambda *_: None), ctypes.c_void_p(0))
    settings = lib.llama_model_default_params()
    settings.vocab_only = True
    loaded = lib.llama_model_load_from_file(str(model).encode(), settings)
    if not loaded:
        raise RuntimeError("llama.cpp does not load it")
    vocabulary = lib.llama_model_get_vocab(loaded)

    def ids(text: str) -> list[int]:
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 16))()
        count = lib.llama_tokenize(vocabulary, data, len(data), room, len(room), False, False)
        return list(room[:count])

    try:
        yield ids
    finally:
        lib.llama_model_free(loaded)
        lib.llama_log_set(lib.llama_log_callback(), ctypes.c_void_p(0))
        del silent


def _transformers(source: str, messages: list[dict[str, Any]], bos: str, eos: str, **options: Any) -> str | None:
    """What `transformers` writes; None where it fails, as a template can in any way."""
    from transformers.utils import chat_template_utils as hf  # noqa: PLC0415  (not everyone has it)

    try:
        rendered = hf.render_jinja_template(
            [messages], chat_template=source, bos_token=bos, eos_token=eos, add_generation_prompt=True, **options
        )
    except Exception:  # noqa: BLE001
        return None
    return str(rendered[0][0])


def _is_folder(path: Path) -> bool:
    """A model of Hugging Face's kind."""
    return (path / "config.json").is_file()


def _tokenizer(model: Path) -> Tokenizer:
    return Tokenizer.from_folder(model) if _is_folder(model) else Tokenizer.from_gguf(model)


def _bytes(model: Path) -> int:
    parts = read_model(model).parts or (model,)
    return sum(part.stat().st_size for part in parts)


# ---- many of them


def main() -> int:
    """Compare, print, and say by the exit code whether all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, default=256, help="of the text whose logits are compared")
    parser.add_argument("--exact-below", type=float, default=1.0, metavar="GB", help="of files that float64 is for")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("SOTOL_PARITY", ".")) / "logits")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # this process is to do it
    options = parser.parse_args()
    if options.one:
        for result in compare(options.models[0], options.tokens, options.exact_below, options.cache):
            print(json.dumps(result._asdict()), flush=True)
        return 0
    failed = False
    for model in models_in(options.models):
        results = _apart(model, options)
        failed |= any(result.fine is False for result in results)
        if options.json:
            print(json.dumps({"model": str(model), "results": [result._asdict() for result in results]}), flush=True)
            continue
        print(model)
        for result in results:
            mark = {True: "same", False: "DIFFERS", None: "-"}[result.fine]
            print(f"  {result.name:10} {mark:8} {result.said}", flush=True)
    return int(failed)


def _apart(model: Path, options: argparse.Namespace) -> list[Result]:
    """The results of a process of its own; what it did not come to has failed."""
    command = [sys.executable, "-m", "bench.own_models", str(model), "--one", "--tokens", str(options.tokens)]
    command += ["--exact-below", str(options.exact_below), "--cache", str(options.cache)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    results = [Result(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        results.append(Result("process", False, f"ended with {done.returncode} after {len(results)} comparisons"))
    return results


if __name__ == "__main__":
    sys.exit(main())
