"""SentencePiece's BPE (Kudo & Richardson 2018, arXiv 1808.06226), as in Llama 1 and 2, Mistral and Gemma 1 to 3.

A token's score is its merge's priority: of all neighbours that join to a token, those with the best score go first.
"""

from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from sotol.errors import FormatError
from sotol.tokenizers.merge import merge
from sotol.tokenizers.vocabulary import TokenType, Vocabulary
from sotol.tokenizers.words import WordCache, byte_fallback, byte_tokens, space_words

__all__ = ["SentencePieceEncoder"]


class SentencePieceEncoder:
    """Text to ids for GGUF's `llama` vocabularies."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        if not len(vocabulary.scores):
            raise FormatError(
                f"{vocabulary.source}: tokenizer.ggml.scores is missing, which a `llama` vocabulary needs"
            )
        self._ids = vocabulary.of_type(TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
        self._byte_ids = byte_tokens(vocabulary)
        self._unknown = vocabulary.unknown
        ranks = _ranks(vocabulary.scores[list(self._ids.values())])
        self._ranks = dict(zip(self._ids, ranks.tolist(), strict=True))
        self._words = space_words(_before_space(self._ids))
        self._cache = WordCache(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """The ids of plain text (nothing in it is a special token)."""
        return self._cache.encode(self._words.findall(text.replace(" ", "▁")))

    def _encode_word(self, word: str) -> list[int]:
        ids = []
        for symbol in merge(list(word), self._ranks, ""):
            if symbol in self._ids:
                ids.append(self._ids[symbol])
            else:
                ids += byte_fallback(symbol, self._byte_ids, self._unknown)
        return ids


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The place of each score among all that differ, best first."""
    worse = scores[1:] < scores[:-1]
    if (worse | (scores[1:] == scores[:-1])).all():  # in order already, as most files have them
        return np.concatenate([[0], np.cumsum(worse)]) if len(scores) else np.zeros(0, np.int64)
    _, ranks = np.unique(-scores, return_inverse=True)
    return ranks


def _before_space(texts: dict[str, int]) -> set[str]:
    """The characters that some token has right before a `▁`."""
    last = np.fromiter(map(str.rfind, texts, repeat("▁")), np.int64, len(texts))  # `map`: quick for 300 thousand
    names = list(texts)
    inside = (names[i] for i in np.flatnonzero(last > 0).tolist())
    parts = (text.split("▁") for text in inside if "▁" in text.lstrip("▁"))
    return {part[-1] for pieces in parts for part in pieces[:-1] if part}
