"""Whatever a file holds, messages about it are one short line."""

import re

import pytest
from tests.support.checkpoints import random_checkpoint

from sotol.errors import SotolError
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.chat import ChatTemplate

LONG, LINES = "x" * 100_000, "a\nb"


@pytest.mark.parametrize("value", [LONG, LINES])
@pytest.mark.parametrize("key", ["general.architecture", "llama.rope.scaling.type", "llama.block_count"])
def test_metadata(key: str, value: str) -> None:
    made = random_checkpoint("llama")
    with pytest.raises(SotolError) as caught:
        trace_model(Checkpoint(made.path, {**made.metadata, key: value}, made.weights), 8)
    check(caught.value)


def test_the_file_is_named_where_a_field_alone_is_wrong() -> None:
    made = random_checkpoint("qwen3moe")
    fields = {**made.metadata, "qwen3moe.expert_used_count": 1000}
    with pytest.raises(SotolError, match=f"^{re.escape(str(made.path))}: .*expert_used_count is 1000"):
        trace_model(Checkpoint(made.path, fields, made.weights), 8)


@pytest.mark.parametrize("name", [LONG, LINES])
def test_names_of_weights(name: str) -> None:
    made = random_checkpoint("llama")
    weights = {**made.weights, name: made.weights["output_norm.weight"]}
    with pytest.raises(SotolError) as caught:
        trace_model(Checkpoint(made.path, made.metadata, weights), 8)
    check(caught.value)


VOCABULARY: dict[str, object] = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab"], "merges": ["a b"]}


def read(fields: dict[str, object]) -> None:
    Tokenizer.from_metadata({f"tokenizer.ggml.{name}": field for name, field in fields.items()}, "m.gguf")


@pytest.mark.parametrize("value", [LONG, LINES])
@pytest.mark.parametrize("key", ["model", "pre", "bos_token_id", "add_bos_token"])
def test_vocabularies(key: str, value: str) -> None:
    with pytest.raises(SotolError) as caught:
        read(VOCABULARY | {key: value})
    check(caught.value)


@pytest.mark.parametrize("value", [LONG, LINES])
@pytest.mark.parametrize("key", ["merges", "twice", "byte"])
def test_warnings_about_vocabularies(key: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    changes: dict[str, dict[str, object]] = {
        "merges": {"merges": [value]},
        "twice": {"tokens": [value, value]},
        "byte": {"tokens": [value], "token_type": [6]},
    }
    read(VOCABULARY | changes[key])
    (record,) = caplog.records
    check(record.getMessage())


def test_texts_where_texts_belong() -> None:
    with pytest.raises(SotolError) as caught:
        Tokenizer.from_metadata({"tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.pre": [0] * 100_000}, "m.gguf")
    check(caught.value)


@pytest.mark.parametrize("name", [LONG, LINES])
def test_chat_templates(name: str) -> None:
    def template(value: object) -> ChatTemplate:
        metadata = {f"tokenizer.chat_template.{name}": value, "tokenizer.chat_template.b": ""}
        return ChatTemplate.from_metadata(metadata, bos="", eos="", architecture=name, tokens=lambda _: False)

    for failing in (
        lambda: template(3),
        lambda: template("").render([]),
        lambda: ChatTemplate({"a": "{{ " + name}).render([]),
    ):
        with pytest.raises(SotolError) as caught:
            failing()
        check(caught.value)


def check(error: Exception | str) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 1200  # lists of what is supported are the most of it
