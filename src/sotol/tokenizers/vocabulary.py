"""The vocabulary of a GGUF file, read from its `tokenizer.ggml.*` metadata and checked once.

Knows nothing of how text is split and merged: that is in `bpe.py` and `spm.py`. Incomplete or wrong metadata is
corrected where it is read: token types and special ids in `roles.py`, other fields here.
"""

from collections.abc import Mapping
from itertools import repeat
from typing import NamedTuple

import numpy as np

from sotol.arrays import Float64Array, Int8Array
from sotol.tokenizers.fields import TokenizerFields
from sotol.tokenizers.roles import (
    BYTE_TEXTS,
    TokenTexts,
    TokenType,
    ends_of_generation,
    mark_special,
    read_types,
    special_ids,
)

__all__ = ["BYTE_TEXTS", "TokenType", "Vocabulary", "read_vocabulary"]


class Vocabulary(NamedTuple):
    """All tokens by id, and the special ones.

    ids: a token's text -> its id. If several tokens have one text, it is the first id; the others are decoded only.
    remarks: what was wrong with the metadata, and how it is interpreted.
    """

    model: str
    pre: str
    tokens: list[str]
    types: Int8Array  # [V] of TokenType, none UNDEFINED
    scores: Float64Array  # [V] for SentencePiece, [0] for other models
    merges: list[str]  # for BPE: "left right", the best first
    ids: dict[str, int]
    bos: int | None
    eos: int | None
    unknown: int | None
    end_of_generation: frozenset[int]
    add_bos: bool | None
    add_eos: bool | None
    add_space_prefix: bool | None
    source: str
    remarks: tuple[str, ...]

    def of_type(self, *types: TokenType) -> dict[str, int]:
        """The tokens of these types: text -> id."""
        wanted = np.zeros(max(TokenType) + 1, bool)
        wanted[list(types)] = True
        chosen = wanted[self.types]
        if len(self.ids) < len(self.tokens):  # some tokens have the same text
            first = np.zeros(len(chosen), bool)
            first[list(self.ids.values())] = True
            chosen &= first
        elif np.count_nonzero(chosen) > len(chosen) // 2:  # then copying all and deleting the others is faster
            rest = self.ids.copy()
            for i in np.flatnonzero(~chosen).tolist():
                del rest[self.tokens[i]]
            return rest
        ids = np.flatnonzero(chosen).tolist()
        return dict(zip(map(self.tokens.__getitem__, ids), ids, strict=True))


def read_vocabulary(metadata: Mapping[str, object], source: str = "") -> Vocabulary:
    """Read and check the `tokenizer.ggml.*` fields.

    Common faults of files are corrected as in llama.cpp, or as the functions here say, and recorded as remarks.
    FormatError names the file (`source`) and the field that can't be used.
    """
    fields = TokenizerFields(metadata, source or "the model file", [])
    model, tokens = fields.text("model"), _read_tokens(fields)
    types = read_types(fields, tokens, model)
    named = special_ids(fields, tokens, model)
    mark_special(fields, tokens, types, named)
    return Vocabulary(
        model=model,
        pre=_read_pre(fields) if model == "gpt2" else "",
        tokens=tokens.texts,
        types=types,
        scores=_read_scores(fields, len(types)) if model == "llama" else np.empty(0),
        merges=_read_merges(fields) if model != "llama" else [],
        ids=tokens.ids,
        bos=named["bos"],
        eos=named["eos"],
        unknown=named["unknown"],
        end_of_generation=ends_of_generation(tokens, types, named),
        add_bos=fields.flag("add_bos_token"),
        add_eos=fields.flag("add_eos_token"),
        add_space_prefix=fields.flag("add_space_prefix"),
        source=fields.source,
        remarks=tuple(fields.remarks),
    )


def _read_tokens(fields: TokenizerFields) -> TokenTexts:
    """All tokens. An empty one gets the text that llama.cpp gives it."""
    texts = fields.array("tokens", str)
    if not texts:
        raise fields.broken("tokens", "is missing or empty, so the file has no vocabulary")
    ids = dict(zip(texts, range(len(texts)), strict=True))
    if "" in ids:
        texts = [text or f"[EMPTY_{i}]" for i, text in enumerate(texts)]
        ids = dict(zip(texts, range(len(texts)), strict=True))
    if len(ids) != len(texts):  # llama.cpp aborts the process here
        twice = next(text for i, text in enumerate(texts) if ids[text] != i)
        fields.remark("tokens", f"has {twice!r:.60} more than once: text is encoded as the first")
        ids = dict(zip(reversed(texts), range(len(texts) - 1, -1, -1), strict=True))
    return TokenTexts(texts, ids)


def _read_scores(fields: TokenizerFields, count: int) -> Float64Array:
    """[V]; a token without a score ranks last. llama.cpp refuses a list that is too short."""
    given = fields.array("scores", float)
    if given is None:
        fields.remark("scores", "is missing: all tokens count the same")
        return np.zeros(count)
    scores = np.array(given, np.float64)[:count]
    scores = np.concatenate([scores, np.full(count - len(scores), np.nan)])
    if missing := np.count_nonzero(nothing := np.isnan(scores)):
        fields.remark("scores", f"has no number for {missing} of {count} tokens: they come behind all others")
        scores[nothing] = -np.inf
    return scores


def _read_merges(fields: TokenizerFields) -> list[str]:
    """The merges; without any, words are encoded as single characters. (llama.cpp refuses a file without the field.)"""
    merges = fields.array("merges", str) or []
    if not merges:
        fields.remark("merges", "is missing or empty: words are written in single characters")
    # Find a space that is neither the first character nor the last; by `map`, as there may be half a million merges.
    if -1 in map(str.find, merges, repeat(" "), repeat(1), repeat(-1)):
        strange = next(pair for pair in merges if " " not in pair[1:-1])
        fields.remark("merges", f"has {strange!r:.60}, which is not two texts and a space: such are left out")
        merges = [pair for pair in merges if " " in pair[1:-1]]
    return merges


def _read_pre(fields: TokenizerFields) -> str:
    """The name of a row in `pretokenize.py`."""
    if not (pre := fields.text("pre")):
        fields.remark("pre", "is missing: words are cut in a general way, maybe not in the model's")
    return pre or "default"
