"""Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909): over bytes, as in GPT-2, and over text, as in Gemma 4.

GPT-2's form writes each byte as one printable character (a space is `Ġ`), so vocabulary and merges are plain text;
Gemma 4's writes a space as `▁`, and characters without a token as byte tokens such as `<0x0A>`.
"""

from codecs import charmap_decode

from sotol.tokenizers.merge import merge
from sotol.tokenizers.pretokenize import PreTokenizer
from sotol.tokenizers.vocabulary import TokenType, Vocabulary
from sotol.tokenizers.words import WordCache, byte_fallback, byte_tokens, space_words, unknown_token

__all__ = ["BYTE_OF_CHARACTER", "CHARACTER_OF_BYTE", "ByteBpeEncoder", "SpaceBpeEncoder"]


def _byte_characters() -> str:
    """The character for each byte: itself if it is printable in Latin-1, else the next one from U+0100 on (GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(spare)) for byte in range(256))


CHARACTER_OF_BYTE = _byte_characters()
BYTE_OF_CHARACTER = {character: byte for byte, character in enumerate(CHARACTER_OF_BYTE)}


class ByteBpeEncoder:
    """Text to ids for GGUF's `gpt2` vocabularies."""

    def __init__(self, vocabulary: Vocabulary, pre: PreTokenizer) -> None:
        self._pre = pre
        self._ranks = _ranks(vocabulary.merges)
        self._ids = vocabulary.of_type(TokenType.NORMAL, TokenType.USER_DEFINED)
        self._cache = WordCache(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """The ids of plain text: special tokens in it are ordinary characters."""
        return self._cache.encode(self._pre.split(text))

    def _encode_word(self, word: str) -> list[int]:
        spelled, _ = charmap_decode(word.encode(), "strict", CHARACTER_OF_BYTE)
        if self._pre.whole_words and spelled in self._ids:
            return [self._ids[spelled]]
        ids = []
        for symbol in merge(list(spelled), self._ranks, " "):
            if symbol in self._ids:
                ids.append(self._ids[symbol])
            else:
                # A byte without a token is dropped, as in `tokenizers` and llama.cpp. The unknown token is no
                # substitute: in such vocabularies it is often the end-of-text token, which users must not produce.
                ids += [self._ids[character] for character in symbol if character in self._ids]
        return ids


class SpaceBpeEncoder:
    """Text to ids for GGUF's `gemma4` vocabularies: merges may span a whole line, in which `▁` stands for a space."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ranks = _ranks(vocabulary.merges)
        self._ids = vocabulary.of_type(TokenType.NORMAL, TokenType.USER_DEFINED)
        self._unknown = unknown_token(vocabulary)
        self._byte_ids = byte_tokens(vocabulary)
        self._cache = WordCache(self._encode_word)
        glue = {pair[at - 1] for pair in self._ranks if (at := pair.find(" ▁", 1)) > 0}
        self._words = space_words(glue, apart="\n")

    def encode(self, text: str) -> list[int]:
        """The ids of plain text: special tokens in it are ordinary characters."""
        return self._cache.encode(self._words.findall(text.replace(" ", "▁")))

    def _encode_word(self, word: str) -> list[int]:
        if word.startswith("\n") and word in self._ids:
            return [self._ids[word]]
        ids = []
        for symbol in merge(list(word), self._ranks, " "):
            if symbol in self._ids:
                ids.append(self._ids[symbol])
            else:
                ids += byte_fallback(symbol, self._byte_ids, self._unknown)
        return ids


def _ranks(merges: list[str]) -> dict[str, int]:
    """Each merge "left right" with its rank; if one is listed twice, the first rank counts."""
    return dict(zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True))
