"""The vocabulary that a GGUF file carries in its `tokenizer.ggml.*` metadata, checked once and then trusted.

Knows nothing of how text is cut and merged: that is `bpe.py` and `spm.py`. What has to be made of metadata that is
incomplete or wrong is told apart by field: token types and special ids in `roles.py`, the rest here.
"""

from collections.abc import Mapping
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sotol.tokenizers.fields import Fields
from sotol.tokenizers.roles import (
    BYTE_TEXTS,
    Tokens,
    TokenType,
    ends_of_generation,
    mark_special,
    read_types,
    special_ids,
)

__all__ = ["BYTE_TEXTS", "TokenType", "Vocabulary", "read_vocabulary"]


class Vocabulary(NamedTuple):
    """Tokens by id, and the ids that mean something.

    `ids` maps a token's text to its id: of equal texts to the first, and the other ids only stand for that text.
    `remarks` says what was wrong with the metadata, and how it is taken.
    """

    model: str
    pre: str
    tokens: list[str]
    types: NDArray[np.int8]  # [V] of TokenType, none UNDEFINED
    scores: NDArray[np.float64]  # [V] for SentencePiece, [0] for the others
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
        """The tokens of these types: text to id."""
        wanted = np.zeros(max(TokenType) + 1, bool)
        wanted[list(types)] = True
        chosen = wanted[self.types]
        if len(self.ids) < len(self.tokens):  # some texts come twice
            first = np.zeros(len(chosen), bool)
            first[list(self.ids.values())] = True
            chosen &= first
        elif np.count_nonzero(chosen) > len(chosen) // 2:  # to copy all and leave out the others is quicker
            rest = self.ids.copy()
            for i in np.flatnonzero(~chosen).tolist():
                del rest[self.tokens[i]]
            return rest
        ids = np.flatnonzero(chosen).tolist()
        return dict(zip(map(self.tokens.__getitem__, ids), ids, strict=True))


def read_vocabulary(metadata: Mapping[str, object], source: str = "") -> Vocabulary:
    """Read and check the `tokenizer.ggml.*` fields.

    What files often have wrong is taken as llama.cpp takes it, or as the functions here say, and remarked upon.
    FormatError names the file (`source`) and the field that nothing can be made of.
    """
    fields = Fields(metadata, source or "the model file", [])
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


def _read_tokens(fields: Fields) -> Tokens:
    """All tokens. An empty one gets the name that llama.cpp gives it."""
    texts = fields.array("tokens", str)
    if not texts:
        raise fields.broken("tokens", "is missing or empty, so the file has no vocabulary")
    ids = dict(zip(texts, range(len(texts)), strict=True))
    if "" in ids:
        texts = [text or f"[EMPTY_{i}]" for i, text in enumerate(texts)]
        ids = dict(zip(texts, range(len(texts)), strict=True))
    if len(ids) != len(texts):  # here llama.cpp ends the process
        twice = next(text for i, text in enumerate(texts) if ids[text] != i)
        fields.remark("tokens", f"has {twice!r:.60} more than once: text is encoded as the first")
        ids = dict(zip(reversed(texts), range(len(texts) - 1, -1, -1), strict=True))
    return Tokens(texts, ids)


def _read_scores(fields: Fields, count: int) -> NDArray[np.float64]:
    """[V]; a token without a number comes behind all others. llama.cpp refuses a list that is too short."""
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


def _read_merges(fields: Fields) -> list[str]:
    """Without merges, words are written in single characters. (llama.cpp refuses a file without the field.)"""
    merges = fields.array("merges", str) or []
    if not merges:
        fields.remark("merges", "is missing or empty: words are written in single characters")
    # A space that is neither the first character nor the last; `map` and `find` because there may be half a million.
    spaces = list(map(str.find, merges, repeat(" "), repeat(1), repeat(-1)))
    if -1 in spaces:
        strange = merges[spaces.index(-1)]
        fields.remark("merges", f"has {strange!r:.60}, which is not two texts and a space: such are left out")
        merges = [pair for pair, space in zip(merges, spaces, strict=True) if space != -1]
    return merges


def _read_pre(fields: Fields) -> str:
    """The name of a row in `pretokenize.py`."""
    if not (pre := fields.text("pre")):
        fields.remark("pre", "is missing: words are cut in a general way, maybe not in the model's")
    return pre or "default"
