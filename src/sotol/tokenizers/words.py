"""Shared by the encoders: a cache of encoded words, splitting text at spaces, and byte-fallback tokens."""

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import chain

from sotol.tokenizers.characters import character_class
from sotol.tokenizers.vocabulary import BYTE_TEXTS, TokenType, Vocabulary

__all__ = ["WordCache", "byte_fallback", "byte_tokens", "space_words", "unknown_token"]

CACHE_WORDS = 100_000
CACHE_LENGTH = 64  # characters; longer words hardly ever repeat


class WordCache(dict[str, tuple[int, ...]]):
    """A cache of word -> ids, filled on demand and cleared when it is full."""

    __slots__ = ("_encode_word",)

    def __init__(self, encode_word: Callable[[str], Iterable[int]]) -> None:
        super().__init__()
        self._encode_word = encode_word

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._encode_word(word))
        if len(word) <= CACHE_LENGTH:
            if len(self) >= CACHE_WORDS:
                self.clear()
            self[word] = ids
        return ids

    def encode(self, words: Iterable[str]) -> list[int]:
        """The ids of all words, in order."""
        return list(chain.from_iterable(map(self.__getitem__, words)))


def space_words(glue: Iterable[str], apart: str = "") -> re.Pattern[str]:
    """A pattern that splits text, with `▁` for spaces, into words that no merge can cross.

    A word begins at a run of `▁`, except after a character of `glue`: those that precede a `▁` in some token. Since
    merges only join neighbours, encoding such words one by one gives the same ids as encoding the whole text. Longer
    words do, too, so a class that matches more characters than `glue` has is harmless. Runs of the character `apart`
    are words of their own.
    """
    body, joints = f"[^▁{re.escape(apart)}]", character_class(glue)
    tail = f"(?:(?<=[{joints}])▁+{body}*)*" if joints else ""
    alone = f"|{re.escape(apart)}+" if apart else ""
    return re.compile(f"(?:▁+{body}*|{body}+){tail}{alone}")


def byte_tokens(vocabulary: Vocabulary) -> dict[int, int]:
    """Byte -> id of its token `<0x00>` to `<0xFF>`, as far as the vocabulary has them."""
    texts = vocabulary.of_type(TokenType.BYTE)
    return {byte: texts[text] for byte, text in enumerate(BYTE_TEXTS) if text in texts}


def unknown_token(vocabulary: Vocabulary) -> int | None:
    """The id for text without a token; None if that token would end a generation, which no text may do."""
    return None if vocabulary.unknown in vocabulary.end_of_generation else vocabulary.unknown


def byte_fallback(text: str, byte_ids: Mapping[int, int], unknown: int | None) -> list[int]:
    """The byte tokens of `text` in UTF-8; a byte without a token becomes `unknown`, or is dropped if that is None."""
    ids = (byte_ids.get(byte, unknown) for byte in text.encode())
    return [i for i in ids if i is not None]
