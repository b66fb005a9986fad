"""How a model is loaded: its options, and how much memory it takes for keys and values."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.folders import tiny_folder, write_tensors
from tests.support.tiny_model import tiny_model

from sotol import LLM, LoadOptions
from sotol.backends.cpu.running import backend
from sotol.errors import FormatError, ModelError
from sotol.formats import read_model
from sotol.load_options import LoadSettings
from sotol.loading import _limits, load
from sotol.program.memory import BLOCK_TOKENS, Cache, Group, Paged, State

CONTEXT = 256
CONTEXT_BLOCKS = CONTEXT // 16
MODEL = {"llama.context_length": CONTEXT}


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Blocks that a tiny model gets where so much memory is free, beside its weights; and what one takes."""
    path = tiny_model(tmp_path, MODEL)

    def count(free: int | None, **options: Any) -> int:
        weights = path.stat().st_size
        monkeypatch.setattr(backend, "available_memory", lambda: None if free is None else free + weights)
        with load(path, LoadOptions(threads=1, **options)) as loaded:
            return loaded.runner.limits.blocks[0]

    return count


@pytest.fixture
def block_bytes(tmp_path: Path) -> int:
    with load(tiny_model(tmp_path, MODEL), LoadOptions(threads=1)) as loaded:
        return backend.block_bytes(loaded.runner.groups)[0]


@pytest.mark.parametrize("free", [None, 1 << 40])
def test_the_default_is_four_contexts(free: int | None, blocks: Callable[..., int]) -> None:
    assert blocks(free) == 4 * CONTEXT_BLOCKS


def test_the_default_is_no_more_than_half_of_what_is_free(blocks: Callable[..., int], block_bytes: int) -> None:
    assert blocks(4 * CONTEXT_BLOCKS * block_bytes) == 2 * CONTEXT_BLOCKS
    assert blocks(6 * CONTEXT_BLOCKS * block_bytes) == 3 * CONTEXT_BLOCKS


@pytest.mark.parametrize("share", [0.0, 0.5, 1.9])
def test_the_default_is_one_context_at_least(share: float, blocks: Callable[..., int], block_bytes: int) -> None:
    assert blocks(int(share * CONTEXT_BLOCKS * block_bytes)) == CONTEXT_BLOCKS


def test_memory_in_bytes(blocks: Callable[..., int], block_bytes: int) -> None:
    for free in (None, 0, 1 << 40):  # whoever says how much shall have it
        assert blocks(free, kv_memory=21 * block_bytes) == 21
        assert blocks(free, kv_memory=22 * block_bytes - 1) == 21


def test_memory_as_a_share(blocks: Callable[..., int], block_bytes: int) -> None:
    assert blocks(100 * block_bytes, kv_memory=0.25) == 25
    assert blocks(100 * block_bytes, kv_memory=1.0) == 100


@pytest.mark.parametrize(
    ("free", "memory", "message"),
    [
        (1 << 30, 1000, "kv_memory is too small: a context of 256 tokens needs"),
        (100_000, 0.001, "kv_memory is too small: a context of 256 tokens needs .* 100 are too few; give more, or"),
        (None, 0.5, "kv_memory is 0.5, a share of the free memory, which this system does not tell: give bytes"),
        (1, 0, "kv_memory is 0; it must be a whole number of bytes from 1"),
        (1, 0.0, r"kv_memory is 0.0; .* a share of the free memory \(a float above 0, up to 1.0\), or None"),
        (1, 1.5, "kv_memory is 1.5; it must be"),
        (1, float("nan"), "kv_memory is nan; it must be"),
        (1, True, "kv_memory is True; it must be"),
        (1, "2GB", "kv_memory is '2GB'; it must be"),
    ],
)
def test_memory_that_can_not_be(free: int | None, memory: Any, message: str, blocks: Callable[..., int]) -> None:
    with pytest.raises(ValueError, match=message):
        blocks(free, kv_memory=memory)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thread": 2}, "a model has no option 'thread': did you mean 'threads'?"),
        ({"kvmemory": 2}, "did you mean 'kv_memory'?"),
        ({"n_gpu_layers": 0}, "a model has no option 'n_gpu_layers': the options are threads, ctx, "),
        ({"threads": 1, "prefixcache": None}, "did you mean 'prefix_cache'?"),
    ],
)
def test_an_unknown_option(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError) as caught:
        LLM(tiny_model(tmp_path), **options)
    assert message in str(caught.value)


def test_a_loaded_model_takes_no_options(tmp_path: Path) -> None:
    with load(tiny_model(tmp_path), LoadOptions(threads=1, sequences=3)) as loaded:
        with pytest.raises(ValueError, match="the model is loaded already: ctx can't be set any more"):
            LLM(loaded, threads=None, ctx=8)
        with LLM(loaded, threads=None) as llm:
            assert llm.options == LoadOptions(threads=1, sequences=3)


def test_signatures_show_what_there_is() -> None:
    fields = {f.name: f for f in inspect.signature(LoadOptions).parameters.values()}
    assert list(get_type_hints(LoadSettings)) == list(fields)
    assert LoadOptions.__doc__ is not None
    assert LLM.__doc__ is not None
    for name in fields:
        assert f"\n    {name}: " in LoadOptions.__doc__
    assert "LoadOptions" in LLM.__doc__
    assert list(inspect.signature(LLM).parameters) == ["model", "progress", *fields]


FULL = Group((Cache("kv.0", Paged(2, 8, 8)), Cache("kv.2", Paged(1, 8, 16))))
STATES = Group((Cache("state.3", State((8,))),), state=True)


def groups_of(window: int) -> tuple[Group, ...]:
    return FULL, Group((Cache("kv.1", Paged(2, 8, 8, window=window)),), window), STATES


def bytes_of(groups: tuple[Group, ...], blocks: tuple[int, ...]) -> int:
    return sum(n * size for n, size in zip(blocks, backend.block_bytes(groups), strict=True))


@given(st.integers(1, 300), st.integers(1, 4096), st.integers(1, 200), st.integers(1, 100))
@example(window=1, context=4096, step_tokens=1, sequences=100)
def test_the_least_memory_has_room_for_a_sequence_alone(
    window: int, context: int, step_tokens: int, sequences: int
) -> None:
    """For any step that the limits allow: also where more sequences than step_tokens may run."""
    groups = groups_of(window)
    options = LoadOptions(step_tokens=step_tokens, sequences=sequences)
    least = LoadOptions(step_tokens=step_tokens, sequences=sequences, kv_memory=1)
    with pytest.raises(ValueError, match=f"kv_memory is too small: a context of {context} tokens needs") as caught:
        _limits(backend, groups, context, 0, least)
    needed = int(str(caught.value).split(" needs ")[1].split()[0])
    limits = _limits(
        backend,
        groups,
        context,
        0,
        LoadOptions(step_tokens=step_tokens, sequences=sequences, kv_memory=needed),
    )
    assert bytes_of(groups, limits.blocks) <= needed
    assert limits.tokens >= max(step_tokens, sequences)
    assert limits.blocks[0] == -(-context // BLOCK_TOKENS)
    for begin in {0, 1, 15, context // 2, context - 1}:
        last = min(context, begin + limits.tokens) - 1
        oldest = max(0, begin - window + 1)
        assert last // BLOCK_TOKENS - oldest // BLOCK_TOKENS < limits.blocks[1]
    assert 2 <= limits.blocks[2] <= 2 * sequences
    default = _limits(backend, groups, context, 0, options)
    assert default.blocks[0] == -(-4 * context // BLOCK_TOKENS)
    assert default.blocks[2] == 2 * sequences


# ---- folders of Hugging Face's kind


def test_a_folder_answers(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", config={"eos_token_id": [2, 7]})
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}{{ pad_token }}")
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<|0|>"}')
    ids = []
    for path in (folder, folder / "model.safetensors"):
        with LLM(path, threads=1) as llm:
            assert repr(llm).startswith(f"<LLM {path.name}: no name, llama, context 64")
            assert llm.tokenizer.end_of_generation == {2, 7}
            assert llm.chat_prompt([{"role": "user", "content": "ab</s>"}])[:3] == [1, 3, 4]
            assert llm.chat_prompt([{"role": "user", "content": "a"}])[-1] == llm.tokenizer.id_of("<|0|>")
            answer = llm.generate("hello", max_tokens=5, seed=1, ignore_eos=True)
            assert answer.text == llm.detokenize(answer.tokens)
            ids.append(answer.tokens)
    assert ids[0] == ids[1]


def test_doubles_run_as_floats(tmp_path: Path) -> None:
    """On the CPU, where they are packed as they are converted: the same bits."""
    folder = tiny_folder(tmp_path / "model")
    answers = []
    for dtype in (np.float32, np.float64):
        tensors = {name: weight.decode().astype(dtype) for name, weight in read_model(folder).weights.items()}
        write_tensors(folder / "new.safetensors", tensors)
        with LLM(folder / "new.safetensors", threads=1) as llm:
            answers.append(llm.logits([[1, 3, 4, 5]])[0])
    np.testing.assert_array_equal(answers[0].view(np.int32), answers[1].view(np.int32))


def test_a_folder_with_more_logits_than_tokens(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:3]
    tokenizer["model"]["vocab"] = {text: i for text, i in tokenizer["model"]["vocab"].items() if i < 40}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with LLM(folder, threads=1) as llm:
        assert (len(llm.tokenizer), llm.vocabulary) == (40, 48)
        assert llm.generate("a", max_tokens=3, ignore_eos=True).finish_reason == "length"


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FormatError, match=r"tokenizer\.json: is missing, so the model has no tokenizer"):
        LLM(folder, threads=1)


def test_the_context_of_config_json(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    with pytest.raises(ValueError, match="ctx is 65, but the model was made for contexts of at most 64 tokens"):
        LLM(folder, threads=1, ctx=65)


def test_added_tokens_beyond_a_folders_logits(tmp_path: Path) -> None:
    """As Gemma 3 1B and 270M have one; more ordinary tokens than logits are an error."""
    folder = tiny_folder(tmp_path / "model")
    given = json.loads((folder / "tokenizer.json").read_text())
    more = {"id": 48, "content": "<image>", "special": True}
    (folder / "tokenizer.json").write_text(json.dumps({**given, "added_tokens": [*given["added_tokens"], more]}))
    with load(folder, LoadOptions(threads=1, ctx=32)) as loaded:
        assert (loaded.vocabulary, len(loaded.tokenizer)) == (48, 48)
    given["model"]["vocab"]["ordinary"] = 48
    (folder / "tokenizer.json").write_text(json.dumps(given))
    with pytest.raises(ModelError, match="the model has logits for 48 tokens, but its tokenizer has 49"):
        load(folder, LoadOptions(threads=1, ctx=32))
