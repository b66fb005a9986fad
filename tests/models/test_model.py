"""Every architecture: weights are bound by name, shape and encoding; a prompt's chunks and neighbours do not matter."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.checkpoints import OPTIONAL, full_name, random_checkpoint, with_weights
from tests.support.running import limits_for, make_step, run_text

from sotol.backends.reference import ReferenceRunner
from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import ARCHITECTURES, trace_model
from sotol.program.step import Limits
from sotol.quant import ENCODINGS

CONTEXT = 48
WINDOWED = {"gemma3": {"attention.sliding_window": 5, "attention.sliding_window_pattern": 2}}


def checkpoint_of(architecture: str, *, optional: bool = False) -> Checkpoint:
    return random_checkpoint(architecture, WINDOWED.get(architecture), optional=optional)


def required_names() -> Iterator[tuple[str, str]]:
    for architecture, module in ARCHITECTURES.items():
        for name in module.WEIGHTS:
            if name not in OPTIONAL:
                yield architecture, name.format(1)


def all_names() -> Iterator[tuple[str, str]]:
    for architecture, module in ARCHITECTURES.items():
        yield from ((architecture, name.format(1)) for name in module.WEIGHTS)


@pytest.mark.parametrize(("architecture", "name"), [pair for pair in required_names() if pair[1] != "token_embd"])
def test_a_missing_weight_is_named(architecture: str, name: str) -> None:
    with pytest.raises(ModelError, match=rf"^random\.gguf: weight {re.escape(name)} is missing$"):
        trace_model(with_weights(checkpoint_of(architecture), {full_name(name): None}), CONTEXT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_missing_embedding_is_named(architecture: str) -> None:
    with pytest.raises(ModelError, match=r"^random\.gguf: weight token_embd\.weight is missing or no matrix"):
        trace_model(with_weights(checkpoint_of(architecture), {"token_embd.weight": None}), CONTEXT)


@pytest.mark.parametrize(("architecture", "name"), [pair for pair in all_names() if pair[1] != "token_embd"])
def test_a_misshapen_weight_is_named(architecture: str, name: str) -> None:
    checkpoint = checkpoint_of(architecture, optional=True)
    shape = checkpoint.weights[full_name(name)].shape
    wrong = np.zeros((shape[0] + 16, *shape[1:]), np.float32)
    message = (
        rf"weight {re.escape(name)} has shape {re.escape(str(list(wrong.shape)))}, not {re.escape(str(list(shape)))}$"
    )
    with pytest.raises(ModelError, match=message):
        trace_model(with_weights(checkpoint, {full_name(name): wrong}), CONTEXT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["blk.2.attn_q.weight", "blk.0.attn_r.weight", "blk.0.attn_norm.bias", "surprise"])
def test_an_extra_weight_is_named(architecture: str, name: str) -> None:
    extra = with_weights(checkpoint_of(architecture), {name: np.zeros((32, 32), np.float32)})
    with pytest.raises(ModelError, match=rf"weight '{re.escape(name.removesuffix('.weight'))}' \(of 1\) is not part"):
        trace_model(extra, CONTEXT)


def test_an_encoding_that_can_not_be_decoded_is_named() -> None:
    checkpoint = random_checkpoint("llama", {"embedding_length": 256})
    unknown = next(e for e in ENCODINGS.values() if e.decode is None and 256 % e.values == 0)
    weight = checkpoint.weights["blk.1.ffn_up.weight"]
    size = weight.shape[0] * weight.shape[1] // unknown.values * unknown.size
    other = replace(weight, encoding=unknown, data=np.zeros(size, np.uint8))
    changed = Checkpoint(checkpoint.path, checkpoint.metadata, {**checkpoint.weights, other.name: other})
    with pytest.raises(ModelError, match=rf"weight blk\.1\.ffn_up is {unknown.name}, which sotol can't run yet"):
        trace_model(changed, CONTEXT)


@pytest.mark.parametrize("name", ["gpt17", None, 5])
def test_an_unknown_architecture_is_named(name: object) -> None:
    checkpoint = Checkpoint(Path("odd.gguf"), {"general.architecture": name}, {})
    with pytest.raises(
        ModelError, match=rf"odd\.gguf: architecture {name!r} is not one that sotol runs: gemma3, llama"
    ):
        trace_model(checkpoint, CONTEXT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_where_a_prompt_is_cut_does_not_matter(architecture: str, data: st.DataObject) -> None:
    program = trace_model(checkpoint_of(architecture, optional=True), CONTEXT)
    ids = data.draw(st.lists(st.integers(0, 47), min_size=17, max_size=40))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(ids) - 1), max_size=6)))
    chunks = np.diff([0, *cuts, len(ids)]).tolist()
    whole, parts = (
        run_text(ReferenceRunner(program, limits_for(CONTEXT), np.float64, np.float64), ids, sizes)
        for sizes in ([len(ids)], chunks)
    )
    np.testing.assert_allclose(parts, whole, atol=1e-11)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sequences_side_by_side_do_not_touch(architecture: str) -> None:
    program = trace_model(checkpoint_of(architecture), CONTEXT)
    rng = np.random.default_rng(5)
    texts = [rng.integers(0, 48, size).tolist() for size in (3, 20, 17)]
    alone = [
        run_text(ReferenceRunner(program, limits_for(CONTEXT), np.float64, np.float64), ids, [len(ids)])
        for ids in texts
    ]
    runner = ReferenceRunner(program, Limits(64, 3, 64, CONTEXT, 9), np.float64, np.float64)
    # two steps: the texts are cut at different places, and their blocks lie mixed
    tables, cuts = [[4], [7, 0], [2, 8]], [1, 16, 9]
    first = runner.run(make_step([t[:c] for t, c in zip(texts, cuts, strict=True)], [0, 0, 0], tables, range(26)))
    second = runner.run(make_step([t[c:] for t, c in zip(texts, cuts, strict=True)], cuts, tables, range(14)))
    split = [np.split(x, np.cumsum(sizes)[:-1]) for x, sizes in ((first, cuts), (second, [2, 4, 8]))]
    for expected, head, tail in zip(alone, *split, strict=True):
        np.testing.assert_allclose(np.concatenate([head, tail]), expected, atol=1e-11)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_untied_head_is_used_if_it_is_there(architecture: str) -> None:
    tied, untied = (trace_model(checkpoint_of(architecture, optional=o), CONTEXT) for o in (False, True))
    assert [getattr(x.nodes[-1].inputs[1], "name", "") for x in (tied, untied)] == [
        "token_embd.weight",
        "output.weight",
    ]
