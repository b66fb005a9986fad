"""LLM, line by line of what it promises, on the default model; and on a tiny one where that has other rules."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.levels import LEVELS
from tests.support.tiny_model import TOKENS, tiny_model

from sotol import LLM, Completion, FormatError, ModelError, Sampling, SotolError

CONTEXT = 256
PROMPT = "Once upon a time"
STORY = ", the city of New Haven was a thriving metropolis, with towering skyscrapers"  # what greedy decoding gives


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., LLM]:
    """A tiny model's LLM, with changed metadata and options."""

    def load(metadata: dict[str, object] | None = None, **options: Any) -> LLM:
        return LLM(tiny_model(tmp_path, metadata), threads=1, **options)

    return load


# ---- text and ids


def test_tokenize_and_detokenize(smollm2: LLM) -> None:
    ids = smollm2.tokenize("Hello <|im_end|>")
    assert all(type(i) is int for i in ids)
    assert 2 not in ids
    assert smollm2.detokenize(ids) == "Hello <|im_end|>"
    assert smollm2.tokenize("<|im_end|>", special=True) == [2]
    assert smollm2.detokenize([2]) == ""
    assert smollm2.detokenize([2], special=True) == "<|im_end|>"


# ---- generate


def test_a_completion(smollm2: LLM) -> None:
    out = smollm2.generate(PROMPT, max_tokens=14, temperature=0)
    assert type(out) is Completion
    assert out.text == STORY
    assert smollm2.detokenize(out.tokens) == STORY
    assert (out.finish_reason, out.logprobs) == ("length", None)
    assert (out.usage.prompt_tokens, out.usage.completion_tokens) == (4, 14)
    assert out.timings.prefill > 0
    assert out.timings.decode > 0


def test_a_list_gives_a_list(smollm2: LLM) -> None:
    prompts = [PROMPT, "The capital of France is", PROMPT]
    outs = smollm2.generate(prompts, max_tokens=6, temperature=0)
    assert type(outs) is list
    assert outs[0].text == outs[2].text == STORY[: len(outs[0].text)]
    assert "Paris" in outs[1].text
    assert smollm2.generate(list[str](), max_tokens=6) == []
    assert [o.text for o in smollm2.generate((PROMPT,), max_tokens=6, temperature=0)] == [outs[0].text]


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, lambda ids: np.array(ids, np.int32), lambda ids: np.array(ids, np.uint8)]
)
def test_a_list_of_ids_is_one_prompt(smollm2: LLM, kind: Callable[[list[int]], Any]) -> None:
    ids = [1, 253, 77]
    out = smollm2.generate(kind(ids), max_tokens=4, temperature=0, ignore_eos=True)
    assert type(out) is Completion
    assert out.usage.prompt_tokens == 3
    both = smollm2.generate([kind(ids), kind(ids)], max_tokens=4, temperature=0, ignore_eos=True)
    assert [b.tokens for b in both] == [out.tokens] * 2


def test_text_and_ids_in_one_list(smollm2: LLM) -> None:
    text, ids = smollm2.generate([PROMPT, smollm2.tokenize(PROMPT)], max_tokens=5, temperature=0)
    assert text.tokens == ids.tokens


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        ([[]], "the prompt is empty"),
        ([PROMPT, ""], "the prompt is empty"),
        ([1, 49152], "token id 49152 is not in the vocabulary of 49152"),
        ([1, -1], "token id -1 is not in the vocabulary"),
        ([1, 2.5], "a list of token ids, whole numbers: not [1, 2.5]"),
        ([1.0], "whole numbers"),
        (np.array([1.0, 2.0]), "whole numbers"),
        ([1, "a"], "whole numbers"),
        ([1, [2]], "whole numbers"),
        ([None], "whole numbers"),
        (None, "a prompt is text or a list of token ids; it may be a list of those: not None"),
        (7, "not 7"),
        (b"text", "not b'text'"),
        ([bytearray(b"text")], "not bytearray"),
        (np.array(5), "not array(5)"),
        ([2**70], "token id beyond 64 bits is not in the vocabulary"),
        ({"a": 1}, "a prompt is text"),
        ([1] * 256, "the prompt has 256 tokens, but the context holds 255 before an answer, 256 with it"),
        ([[1], [1] * 1000], "the prompt has 1000 tokens, but the context holds 255"),
    ],
)  # fmt: skip
def test_prompts_that_can_not_be(smollm2: LLM, prompt: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        smollm2.generate(prompt, max_tokens=1)


def test_a_single_prompt_for_streams(smollm2: LLM) -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        smollm2.stream([])
    with pytest.raises(ValueError, match="whole numbers"):
        smollm2.stream([PROMPT])  # type: ignore[list-item]


@pytest.mark.parametrize("length", [200, 254, 255])
def test_generation_to_the_end_of_the_context(smollm2: LLM, length: int) -> None:
    out = smollm2.generate([500] * length, temperature=0, ignore_eos=True)
    assert out.usage.completion_tokens == CONTEXT - length
    assert out.finish_reason == "length"
    assert smollm2.generate([500] * length, temperature=0, ignore_eos=True, max_tokens=10_000).tokens == out.tokens


def test_the_model_ends_by_itself(smollm2: LLM) -> None:
    messages = [{"role": "user", "content": "Say only: yes"}]
    out = smollm2.chat(messages, max_tokens=100, temperature=0)
    assert out.finish_reason == "stop"
    assert 2 not in out.tokens
    longer = smollm2.chat(messages, max_tokens=out.usage.completion_tokens + 5, temperature=0, ignore_eos=True)
    assert longer.finish_reason == "length"
    assert longer.tokens[: len(out.tokens) + 1] == (*out.tokens, 2)
    assert "<|im_end|>" not in longer.text


@pytest.mark.parametrize("stop", [["New Haven"], "w Hav", ["zzz", "e city", "ity of N"], ["lis, w", "metropolis"]])
def test_stop_strings_span_tokens(smollm2: LLM, stop: str | list[str]) -> None:
    out = smollm2.generate(PROMPT, max_tokens=14, temperature=0, stop=stop)
    strings = [stop] if isinstance(stop, str) else stop
    end = min((STORY.index(s) + len(s), STORY.index(s)) for s in strings if s in STORY)[1]
    assert (out.text, out.finish_reason) == (STORY[:end], "stop")
    assert STORY.startswith(smollm2.detokenize(out.tokens))  # tokens: those that were generated, stop string and all
    pieces = list(smollm2.stream(PROMPT, max_tokens=14, temperature=0, stop=stop))
    assert "".join(pieces) == STORY[:end]


def test_logprobs(smollm2: LLM) -> None:
    out = smollm2.generate(PROMPT, max_tokens=5, temperature=0, logprobs=3)
    rows = smollm2.logits([[*smollm2.tokenize(PROMPT), *out.tokens]])[0][3:8].astype(np.float64)
    expected = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    assert out.logprobs is not None
    assert len(out.logprobs) == 5
    for token, row, one in zip(out.tokens, expected, out.logprobs, strict=True):
        assert one.token == token == one.top[0].token
        assert one.text == smollm2.detokenize([token])
        assert one.logprob == pytest.approx(row[token], abs=1e-6)
        assert [t.token for t in one.top] == np.argsort(-row, kind="stable")[:3].tolist()
        assert [t.logprob for t in one.top] == pytest.approx(np.sort(row)[::-1][:3].tolist(), abs=1e-6)
    none = smollm2.generate(PROMPT, max_tokens=5, temperature=0, logprobs=0).logprobs
    assert none is not None
    assert [one.top for one in none] == [()] * 5


def test_a_seed_gives_the_same_text_in_any_company(smollm2: LLM) -> None:
    sampling = Sampling(temperature=1.2, top_k=0, seed=7, max_tokens=12)
    alone = smollm2.generate(PROMPT, sampling=sampling)
    assert smollm2.generate(PROMPT, sampling=sampling).tokens == alone.tokens
    company = smollm2.generate(["Roses are red", PROMPT, "x " * 100, PROMPT], sampling=sampling)
    assert company[1].tokens == company[3].tokens == alone.tokens
    assert smollm2.generate(PROMPT, sampling=sampling, seed=8).tokens != alone.tokens
    assert len({smollm2.generate(PROMPT, sampling=sampling, seed=None).tokens for _ in range(3)}) == 3


def test_more_requests_than_the_cache_holds(tiny: Callable[..., LLM]) -> None:
    """Some give way and start again, and nobody can tell."""
    with tiny() as llm:
        prompts = [[7 + i] * (3 + 2 * i) for i in range(16)]
        sampling = Sampling(temperature=1, seed=1, ignore_eos=True)
        together = llm.generate(prompts, sampling=sampling)
        assert [t.tokens for t in together] == [llm.generate(p, sampling=sampling).tokens for p in prompts]
        assert [t.usage.completion_tokens for t in together] == [64 - len(p) for p in prompts]


def test_logit_bias_forces_and_forbids(smollm2: LLM) -> None:
    assert smollm2.generate(PROMPT, max_tokens=3, logit_bias={77: 1000.0}).tokens == (77,) * 3
    first = smollm2.generate(PROMPT, max_tokens=1, temperature=0).tokens[0]
    other = smollm2.generate(PROMPT, max_tokens=1, temperature=0, logit_bias={first: -math.inf})
    assert other.tokens != (first,)
    with pytest.raises(ValueError, match="logit_bias names token 49152"):
        smollm2.generate(PROMPT, logit_bias={49152: 1.0})


def test_options(smollm2: LLM) -> None:
    for call in (smollm2.generate, smollm2.stream):
        with pytest.raises(ValueError, match="unknown sampling option 'tempreture'"):
            call(PROMPT, tempreture=1)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="top_p is 2; it must be a number from 0 to 1"):
            call(PROMPT, top_p=2)
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(ValueError, match="unknown sampling option 'top_q'"):
        smollm2.chat(messages, top_q=2)  # type: ignore[call-overload]
    base = Sampling(temperature=0, max_tokens=3)
    assert smollm2.generate(PROMPT, sampling=base, max_tokens=2).usage.completion_tokens == 2


# ---- logits


def same_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> None:
    assert a.dtype == b.dtype == np.float32
    np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


def texts() -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 49152, n).tolist() for n in (40, 3, 90)]


def test_logits(smollm2: LLM) -> None:
    both = smollm2.logits(texts())
    assert [x.shape for x in both] == [(40, 49152), (3, 49152), (90, 49152)]
    for ids, beside in zip(texts(), both, strict=True):
        same_bits(smollm2.logits([ids])[0], beside)
    assert smollm2.logits([]) == []
    ids = smollm2.tokenize(PROMPT)
    assert int(smollm2.logits([ids])[0][-1].argmax()) == smollm2.generate(ids, max_tokens=1, temperature=0).tokens[0]
    same_bits(smollm2.logits([np.array(ids)])[0], smollm2.logits([ids])[0])
    assert len(smollm2.logits([[1] * CONTEXT])[0]) == CONTEXT


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([[]], "the prompt is empty"),
        ([[1], [1] * 257], "the prompt has 257 tokens, but the context holds 256: shorten"),
        ([1, 2], "a list of token ids"),
        (None, "a list of token ids"),
        (iter([[1]]), "a list of token ids"),
        (["ab"], "a list of token ids"),
        ([[1, 99999]], "token id 99999"),
    ],
)
def test_logits_of_what_can_not_be(smollm2: LLM, texts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smollm2.logits(texts)


def test_logits_on_any_number_of_threads(smollm2: LLM) -> None:
    expected = smollm2.logits(texts())
    for threads in (1, 5):
        with LLM(ctx=128, threads=threads) as llm:
            for one, other in zip(expected, llm.logits(texts()), strict=True):
                same_bits(one, other)


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_logits_on_lesser_cpus(smollm2: LLM, level: str, tmp_path: Path) -> None:
    program = (
        "import sys, json, numpy\nfrom sotol import LLM\n"
        "with LLM(ctx=128) as llm: numpy.save(sys.argv[1], llm.logits(json.loads(sys.argv[2]))[0])"
    )
    text, file = texts()[1] * 3, tmp_path / "logits.npy"
    command = [sys.executable, "-c", program, str(file), json.dumps([text])]
    subprocess.run(command, env=os.environ | {"SOTOL_CPU": level}, check=True)
    same_bits(np.load(file), smollm2.logits([text])[0])


def test_precision(smollm2: LLM) -> None:
    with LLM(ctx=64, precision="f32") as llm:
        ids = llm.tokenize(PROMPT)
        exact, quantized = llm.logits([ids])[0], smollm2.logits([ids])[0]
        assert 0 < np.abs(exact - quantized).max() < 2


# ---- loading


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads is 0; it must be a whole number from 1 to 1024, or None"),
        ({"threads": 2**31 - 1}, "threads is 2147483647; it must be a whole number from 1 to 1024"),
        ({"threads": 2**40}, "threads is 1099511627776"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"threads": True}, "threads is True"),
        ({"ctx": 0}, "ctx is 0"),
        ({"ctx": "1k"}, "ctx is '1k'"),
        ({"ctx": 2**31 - 1}, "ctx is 2147483647; it must be a whole number from 1 to 4194304, or None"),
        ({"ctx": 2**40}, "ctx is 1099511627776"),
        ({"ctx": 10**6}, "ctx is 1000000, but the model was made for contexts of at most 8192 tokens"),
        ({"precision": "f16"}, "precision is 'f16'; it must be one of int8, f32"),
    ],
)  # fmt: skip
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LLM(**options)


def test_contexts(tiny: Callable[..., LLM]) -> None:
    with tiny() as llm:
        assert llm.context == 64
    with tiny({"llama.context_length": 100_000}) as llm:
        assert llm.context == 4096
    with tiny(ctx=1) as llm:
        assert llm.logits([[5]])[0].shape == (1, len(TOKENS))
        with pytest.raises(ValueError, match="has 1 tokens, but the context holds 0 before an answer"):
            llm.generate([5])


def test_files_that_are_not_models(tmp_path: Path, tiny: Callable[..., LLM]) -> None:
    missing, broken, short = tmp_path / "none.gguf", tmp_path / "broken.gguf", tmp_path / "short.gguf"
    with pytest.raises(SotolError, match=r"no model '.*none.gguf'.*smollm2"):
        LLM(missing)
    with pytest.raises(SotolError, match=f"{tmp_path} is a folder"):
        LLM(tmp_path)
    broken.write_bytes(b"not a model at all" * 10)
    with pytest.raises(FormatError, match=r"broken\.gguf"):
        LLM(broken)
    short.write_bytes(tiny_model(tmp_path).read_bytes()[:-1000])
    with pytest.raises(FormatError, match=r"short\.gguf"):
        LLM(str(short))
    with pytest.raises(ModelError, match="logits for 48 tokens, but its tokenizer has 49"):
        tiny({"tokenizer.ggml.tokens": [*TOKENS, "more"]})
    with pytest.raises(ModelError, match="mamba"):
        tiny({"general.architecture": "mamba"})


def test_progress_is_told(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    with LLM(tiny_model(tmp_path), threads=1, progress=lambda *a: said.append(a)):
        pass
    loading = [(done, total) for what, done, total in said if what == "loading weights"]
    assert loading == [(i + 1, len(loading)) for i in range(len(loading))]
    assert loading


# ---- results


def test_results_are_records_that_become_json(smollm2: LLM) -> None:
    out = smollm2.generate(PROMPT, max_tokens=2, logprobs=2, temperature=0)
    back = json.loads(json.dumps(asdict(out), allow_nan=False))
    assert back["tokens"] == list(out.tokens)
    names = {
        "text",
        "tokens",
        "finish_reason",
        "logprobs",
        "usage",
        "timings",
        "seed",
        "reasoning",
        "tool_calls",
        "stopped_by",
        "parsed",
    }
    assert set(back) == names
    assert str(out) == out.text
    assert out.usage.total_tokens == out.usage.prompt_tokens + 2
    assert repr(out).startswith("Completion(text=")
    assert "seed=" in repr(out)
    assert out.logprobs is not None
    parts: Sequence[Any] = (out, out.usage, out.timings, out.logprobs[0], out.logprobs[0].top[0])
    for part in parts:
        assert is_dataclass(part)
        with pytest.raises(FrozenInstanceError):
            setattr(part, fields(part)[0].name, None)
        assert hash(part) == hash(part)
