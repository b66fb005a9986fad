"""Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909): over bytes, as in GPT-2, and over text, as in Gemma 4.

GPT-2's form writes each byte as one printable character (a space is `Ġ`), so vocabulary and merges are plain text;
Gemma 4's writes a space as `▁` and what has no token as byte tokens `<0x0A>`.
"""

from codecs import charmap_decode
from itertools import repeat

from sotol.errors import FormatError
from sotol.tokenizers.merge import merge
from sotol.tokenizers.pretokenize import PreTokenizer
from sotol.tokenizers.vocabulary import TokenType, Vocabulary
from sotol.tokenizers.words import WordCache, byte_fallback, byte_tokens, space_words

__all__ = ["BYTE_OF_CHARACTER", "CHARACTER_OF_BYTE", "ByteBpeEncoder", "SpaceBpeEncoder", "read_merges"]


def _byte_characters() -> str:
    """The character for each byte: itself where it prints in Latin-1, else the next one from U+0100 on (GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(spare)) for byte in range(256))


CHARACTER_OF_BYTE = _byte_characters()
BYTE_OF_CHARACTER = {character: byte for byte, character in enumerate(CHARACTER_OF_BYTE)}


class ByteBpeEncoder:
    """Text to ids for GGUF's `gpt2` vocabularies."""

    def __init__(self, vocabulary: Vocabulary, pre: PreTokenizer) -> None:
        self._pre = pre
        self._ranks = read_merges(vocabulary)
        self._ids = vocabulary.of_type(TokenType.NORMAL, TokenType.USER_DEFINED)
        self._cache = WordCache(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """The ids of plain text (nothing in it is a special token)."""
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
                # A byte without a token is left out, as in `tokenizers` and llama.cpp: the unknown token of such
                # vocabularies is often the end of the text, which no user's text may spell.
                ids += [self._ids[character] for character in symbol if character in self._ids]
        return ids


class SpaceBpeEncoder:
    """Text to ids for GGUF's `gemma4` vocabularies: merges run over whole lines, in which `▁` stands for a space."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ranks = read_merges(vocabulary)
        self._ids = vocabulary.of_type(TokenType.NORMAL, TokenType.USER_DEFINED)
        self._unknown = vocabulary.unknown
        self._byte_ids = byte_tokens(vocabulary)
        self._cache = WordCache(self._encode_word)
        glue = {pair[pair.index(" ▁", 1) - 1] for pair in self._ranks if " ▁" in pair}
        self._words = space_words(glue, apart="\n")

    def encode(self, text: str) -> list[int]:
        """The ids of plain text (nothing in it is a special token)."""
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


def read_merges(vocabulary: Vocabulary) -> dict[str, int]:
    """The merges "left right" with their ranks; FormatError where one is not of that form."""
    merges = vocabulary.merges
    if not merges:
        raise FormatError(f"{vocabulary.source}: tokenizer.ggml.merges is missing, which a BPE vocabulary needs")
    # A space that is neither the first character nor the last; `map` and `find` because there may be half a million.
    spaces = list(map(str.find, merges, repeat(" "), repeat(1), repeat(-1)))
    if -1 in spaces:
        i = spaces.index(-1)
        raise FormatError(
            f"{vocabulary.source}: tokenizer.ggml.merges[{i}] is {merges[i]!r:.60}, not two texts and a space"
        )
    return dict(zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True))  # of equal pairs the first counts
