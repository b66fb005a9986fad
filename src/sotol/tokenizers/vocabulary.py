"""The vocabulary that a GGUF file carries in its `tokenizer.ggml.*` metadata, checked once and then trusted.

Knows nothing of how text is cut and merged: that is `bpe.py` and `spm.py`. Field names and token types are those of
the GGUF specification (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "Tokenizer").
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sotol.errors import FormatError

__all__ = ["BYTE_TEXTS", "TokenType", "Vocabulary", "read_vocabulary"]

PREFIX = "tokenizer.ggml."

BYTE_TEXTS = tuple(f"<0x{byte:02X}>" for byte in range(256))

# Texts of tokens that end a turn whatever the metadata says, after llama.cpp's `special_eog_ids` (src/llama-vocab.cpp).
END_TEXTS = frozenset({
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>",
    "<end_of_turn>", "<turn|>", "<|tool_response>", "<|endoftext|>", "<|end_of_text|>", "<end_of_utterance>", "</s>",
    "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~[", "<\uff5cend▁of▁sentence\uff5c>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
})  # fmt: skip

# Harmony (gpt-oss) and Solar end a *message* with `<|end|>` and go on; these tokens tell such a vocabulary.
MESSAGE_ENDS = ({"<|return|>", "<|call|>"}, {"<|calls|>", "<|flush|>"})

END_FIELDS = (
    "eos_token_id",
    "eot_token_id",
    "eom_token_id",
    "fim_pad_token_id",
    "fim_rep_token_id",
    "fim_sep_token_id",
)


class TokenType(IntEnum):
    """What a token is for (GGUF's `tokenizer.ggml.token_type`)."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Vocabulary(NamedTuple):
    """Tokens by id, and the ids that mean something. `ids` maps a token's text to its id; texts are unique."""

    model: str
    pre: str
    tokens: list[str]
    types: NDArray[np.int8]  # [V] of TokenType
    scores: NDArray[np.float64]  # [V], or [0] where the file has none
    merges: list[str]
    ids: dict[str, int]
    bos: int | None
    eos: int | None
    unknown: int | None
    end_of_generation: frozenset[int]
    add_bos: bool | None
    add_eos: bool | None
    add_space_prefix: bool | None
    source: str

    def of_type(self, *types: TokenType) -> dict[str, int]:
        """The tokens of these types: text to id."""
        wanted = np.zeros(max(TokenType) + 1, bool)
        wanted[list(types)] = True
        chosen = wanted[self.types]
        if np.count_nonzero(chosen) > len(chosen) // 2:  # to copy all and leave out the others is quicker
            rest = self.ids.copy()
            for i in np.flatnonzero(~chosen).tolist():
                del rest[self.tokens[i]]
            return rest
        ids = np.flatnonzero(chosen).tolist()
        return dict(zip(map(self.tokens.__getitem__, ids), ids, strict=True))


def read_vocabulary(metadata: Mapping[str, object], source: str = "") -> Vocabulary:
    """Read and check the `tokenizer.ggml.*` fields; FormatError names the file (`source`) and the field at fault."""
    fields = _Fields(metadata, source or "the model file")
    tokens = fields.array("tokens", str)
    if tokens is None or not tokens:
        raise fields.broken("tokens", "is missing or empty, so the file has no vocabulary")
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if "" in ids:
        tokens = [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]
        ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) != len(tokens):
        twice = next(text for i, text in enumerate(tokens) if ids[text] != i)
        raise fields.broken("tokens", f"holds {twice!r:.60} more than once")
    types = _types(fields, tokens, ids)
    scores = np.array(fields.array("scores", float) or [], np.float64)
    if len(scores) and (len(scores) < len(tokens) or np.isnan(scores).any()):
        raise fields.broken("scores", f"has {len(scores)} numbers (or a NaN) for {len(tokens)} tokens")
    return Vocabulary(
        model=fields.text("model"),
        pre=fields.text("pre"),
        tokens=tokens,
        types=types,
        scores=scores[: len(tokens)],
        merges=fields.array("merges", str) or [],
        ids=ids,
        bos=fields.token_id("bos_token_id", len(tokens)),
        eos=fields.token_id("eos_token_id", len(tokens)),
        unknown=fields.token_id("unknown_token_id", len(tokens)),
        end_of_generation=_ends(fields, ids, types),
        add_bos=fields.flag("add_bos_token"),
        add_eos=fields.flag("add_eos_token"),
        add_space_prefix=fields.flag("add_space_prefix"),
        source=fields.source,
    )


def _types(fields: "_Fields", tokens: list[str], ids: dict[str, int]) -> NDArray[np.int8]:
    numbers = fields.array("token_type", int)
    if numbers is None:
        numbers = [TokenType.NORMAL] * len(tokens)
    if len(numbers) < len(tokens):
        raise fields.broken("token_type", f"has {len(numbers)} entries for {len(tokens)} tokens")
    numbers = numbers[: len(tokens)]
    try:
        types = np.frombuffer(bytearray(numbers), np.int8)  # which Python checks quicker than a loop would
    except ValueError:
        types = np.frombuffer(bytearray(n if 0 <= n < 256 else 0 for n in numbers), np.int8)
    types[(types < 0) | (types > max(TokenType))] = TokenType.UNDEFINED
    known = frozenset(BYTE_TEXTS)
    for i in np.flatnonzero(types == TokenType.BYTE).tolist():
        if tokens[i] not in known:
            raise fields.broken("token_type", f"says that {tokens[i]!r:.60} is a byte, but bytes are <0x00> to <0xFF>")
    # Some converters mark a chat format's end token as text; then a user's text could end a turn.
    for text in END_TEXTS & ids.keys():
        if text.startswith("<|") and types[ids[text]] in (TokenType.NORMAL, TokenType.USER_DEFINED):
            types[ids[text]] = TokenType.CONTROL
    return types


def _ends(fields: "_Fields", ids: dict[str, int], types: NDArray[np.int8]) -> frozenset[int]:
    """Every token that ends a generation: named by the metadata, or a control token with a known text."""
    named = {fields.token_id(field, len(ids)) for field in END_FIELDS}
    texts = {text for text in END_TEXTS & ids.keys() if types[ids[text]] == TokenType.CONTROL}
    if any(pair <= texts for pair in MESSAGE_ENDS):
        texts.discard("<|end|>")
    return frozenset({ids[text] for text in texts} | {i for i in named if i is not None})


Item = TypeVar("Item", str, int, float)


class _Fields(NamedTuple):
    """Typed reading of one file's `tokenizer.ggml.*` fields."""

    metadata: Mapping[str, object]
    source: str

    def broken(self, field: str, why: str) -> FormatError:
        return FormatError(f"{self.source}: {PREFIX}{field} {why}")

    def array(self, field: str, kind: type[Item]) -> list[Item] | None:
        value = self.metadata.get(PREFIX + field)
        if value is None:
            return None
        items = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(items, Sequence) and not isinstance(items, str | bytes):
            accepted = {float, int} if kind is float else {kind}
            if set(map(type, items)) <= accepted:
                return items if isinstance(items, list) else list(items)
        raise self.broken(field, f"is not an array of {kind.__name__}")

    def text(self, field: str) -> str:
        value = self.metadata.get(PREFIX + field, "")
        if not isinstance(value, str):
            raise self.broken(field, f"is {value!r:.60}, not a text")
        return value

    def flag(self, field: str) -> bool | None:
        value = self.metadata.get(PREFIX + field)
        if value is not None and not isinstance(value, bool):
            raise self.broken(field, f"is {value!r:.60}, not true or false")
        return value

    def token_id(self, field: str, count: int) -> int | None:
        value = self.metadata.get(PREFIX + field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
            raise self.broken(field, f"is {value!r:.60}, but the vocabulary has the ids 0 to {count - 1}")
        return value
