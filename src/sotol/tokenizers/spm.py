"""SentencePiece's BPE (Kudo & Richardson 2018, arXiv 1808.06226), as in Llama 1 and 2, Mistral and Gemma 1 to 3.

A token's score is the priority of its merge: of all neighbours that form a token, those with the best score go first.
"""

from itertools import repeat

import numpy as np

from sotol.arrays import Float64Array
from sotol.tokenizers.merge import merge
from sotol.tokenizers.vocabulary import TokenType, Vocabulary
from sotol.tokenizers.words import WordCache, byte_fallback, byte_tokens, space_words, unknown_token

__all__ = ["SentencePieceEncoder"]


class SentencePieceEncoder:
    """Text to ids for GGUF's `llama` vocabularies."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.of_type(TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
        self._byte_ids = byte_tokens(vocabulary)
        self._unknown = unknown_token(vocabulary)
        self._ranks = _ranks(self._ids, vocabulary.scores)
        self._words = space_words(_before_space(self._ids))
        self._cache = WordCache(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """The ids of plain text: special tokens in it are ordinary characters."""
        return self._cache.encode(self._words.findall(text.replace(" ", "▁")))

    def _encode_word(self, word: str) -> list[int]:
        ids = []
        for symbol in merge(list(word), self._ranks, ""):
            if symbol in self._ids:
                ids.append(self._ids[symbol])
            else:
                ids += byte_fallback(symbol, self._byte_ids, self._unknown)
        return ids


def _ranks(ids: dict[str, int], scores: Float64Array) -> dict[str, int]:
    """A rank for each token: lower for a better score, equal for equal scores.

    ids: text -> id, ascending. scores: [V] by id.
    """
    of_tokens = np.fromiter(ids.values(), np.int64, len(ids))
    worseness = -scores[of_tokens]
    # In most files, scores fall from token to token, except for a few special ones that share a score with another.
    # Then the ids themselves are valid ranks, and copying their dictionary is many times faster than making a new one.
    edges = np.concatenate([[0], np.flatnonzero(worseness[1:] <= worseness[:-1]) + 1, [len(ids)]])
    longest = np.argmax(np.diff(edges))
    run = slice(edges[longest], edges[longest + 1])
    rest = np.delete(np.arange(len(ids)), run)
    place = np.searchsorted(worseness[run], worseness[rest])
    if len(rest) < len(ids) // 2 and np.isin(worseness[rest], worseness[run]).all():
        ranks, names = ids.copy(), list(ids)
        equals = of_tokens[run][place].tolist()
        ranks.update((names[i], equal) for i, equal in zip(rest.tolist(), equals, strict=True))
        return ranks
    _, places = np.unique(worseness, return_inverse=True)
    return dict(zip(ids, places.tolist(), strict=True))


def _before_space(texts: dict[str, int]) -> set[str]:
    """The characters that directly precede a `▁` in some token."""
    last = np.fromiter(map(str.rfind, texts, repeat("▁")), np.int64, len(texts))  # `map`: fast for 300 thousand tokens
    names = list(texts)
    inside = (names[i] for i in np.flatnonzero(last > 0).tolist())
    parts = (text.split("▁") for text in inside if "▁" in text.lstrip("▁"))
    return {part[-1] for pieces in parts for part in pieces[:-1] if part}
