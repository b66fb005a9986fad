"""A model that says what a test tells it to say: for tests of what is made of answers, at the speed of a fake runner.

Its vocabulary is the 256 bytes, so that a text comes a byte at a time, and the special tokens that a test wants. Its
chat template is ChatML, unless a test gives another one whose answers begin behind `<|assistant|>`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tests.support.fake_runner import FakeRunner

from sotol import LLM
from sotol.loading import Loaded, LoadOptions
from sotol.program.step import Limits
from sotol.quant import Float32Array
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.bpe import CHARACTER_OF_BYTE

__all__ = ["TEMPLATE", "scripted", "scripted_model"]

SPECIAL = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
TEMPLATE = (
    "{% for t in tools or [] %}<|system|>{{ t | tojson }}<|end|>{% endfor %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
SURE = 50.0  # the logit of what the script says: nothing else is ever drawn


def scripted_model(
    answer: str | Callable[[str], str],
    *,
    template: str | None = TEMPLATE,
    special: Sequence[str] = (),
    shown: Sequence[str] = (),
    context: int = 4096,
    sequences: int = 32,
    metadata: Mapping[str, object] | None = None,
    end: str = "<|end|>",
) -> Loaded:
    """A loaded model whose answers are `answer`, or answer(prompt): the prompt as text, with its special tokens.

    special: further control tokens, which text does not show. shown: further tokens that it shows, as `<think>` often
    is one. An answer is what follows the last `<|assistant|>`, so it begins with what the template writes after that.
    After the answer comes the token `end`; where a mask forbids the next token of the script, the allowed ones are all
    alike.
    """
    tokens = [*CHARACTER_OF_BYTE, end, *SPECIAL, *special, *shown]
    types = [NORMAL] * 256 + [CONTROL] * (1 + len(SPECIAL) + len(special)) + [USER_DEFINED] * len(shown)
    fields: dict[str, object] = {
        "general.architecture": "llama",
        "general.name": "Scripted",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 256,
        **({} if template is None else {"tokenizer.chat_template": template}),
        **(metadata or {}),
    }
    tokenizer = Tokenizer.from_metadata(fields, "scripted", logits=len(tokens))
    assistant = tokens.index("<|assistant|>")
    scripts: dict[str, list[int]] = {}

    def script(prompt: list[int]) -> list[int]:
        text = answer if isinstance(answer, str) else answer(tokenizer.decode(prompt, special=True))
        if text not in scripts:
            scripts[text] = [*tokenizer.encode(text, special=True, add_special=False), 256]
        return scripts[text]

    def logits(seen: Sequence[Sequence[int]]) -> Float32Array:
        ids = list(seen[0])
        begin = len(ids) - ids[::-1].index(assistant) if assistant in ids else len(ids)
        said, row = script(ids[:begin]), np.zeros(len(tokens), np.float32)
        row[said[min(len(ids) - begin, len(said) - 1)]] = SURE
        return row

    limits = Limits(512, sequences, sequences, context, (sequences * (context // 16 + 2),))
    runner = FakeRunner(limits, logits=logits, vocabulary=len(tokens))
    return Loaded(Path("scripted.gguf"), fields, LoadOptions(), context, len(tokens), runner, tokenizer)


def scripted(answer: str | Callable[[str], str], **options: object) -> LLM:
    """The same as an `LLM`."""
    return LLM(scripted_model(answer, **options))  # type: ignore[arg-type]
