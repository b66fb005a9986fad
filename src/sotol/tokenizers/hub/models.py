"""Models of tokenizer.json: what makes ids of a word. BPE, Unigram, WordPiece, WordLevel.

A word never becomes a control token or a byte token by its spelling: these are no part of what is searched here. Work
per word is bounded: a token of more than `LONGEST` characters is found by merges only.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import NamedTuple

from sotol.errors import FormatError, plain
from sotol.tokenizers.hub.parts import Part, Unsupported
from sotol.tokenizers.merge import merge
from sotol.tokenizers.words import WordCache, space_words

__all__ = ["EncodeWord", "WordIds", "make_model", "merge_ranks", "read_tokens"]

EncodeWord = Callable[[str], list[int]]
LONGEST = 128  # characters of a token that Unigram and WordPiece find
MAX_ID = 1 << 22
WHOLE = 32  # characters: shorter words are not worth cutting at spaces
PENALTY = 10.0  # of an unknown character in Unigram, below the worst score: sentencepiece's kUnkPenalty


class WordIds(NamedTuple):
    """What words may become.

    ids: text -> id of the model's ordinary tokens. unknown: the id for what has no token, None where it may not be
    used, or there is none. bytes: byte -> id of its token, where the model falls back to these.
    """

    ids: Mapping[str, int]
    unknown: int | None
    bytes: Mapping[int, int]

    def fallback(self, text: str) -> list[int]:
        """The byte tokens of a text, or the unknown token, or nothing."""
        if self.bytes:
            found = [self.bytes.get(byte) for byte in text.encode(errors="replace")]
            if None not in found:
                return [i for i in found if i is not None]
        return [] if self.unknown is None else [self.unknown]


def read_tokens(part: Part) -> dict[str, int]:
    """The model's own vocabulary: text -> id. FormatError where it is no such thing."""
    given = part.value.get("vocab")
    if part.kind == "Unigram":
        if not isinstance(given, list) or not all(map(_is_scored, given)):
            part.fail("vocab", "a list of texts with their scores")
        return {text: i for i, (text, _) in reversed(list(enumerate(given)))}
    if not isinstance(given, dict):
        part.fail("vocab", "an object of texts with their ids")
    ids: dict[str, int] = given
    if (
        set(map(type, ids.values())) - {int}
        or min(ids.values(), default=0) < 0
        or max(ids.values(), default=0) > MAX_ID
    ):
        raise FormatError(f"{part.file}: {part.where}.vocab has an id that is not a whole number from 0 to {MAX_ID}")
    return ids


def _is_scored(item: object) -> bool:
    return (
        isinstance(item, list)
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], int | float)
        and not isinstance(item[1], bool)
    )


def make_model(part: Part, words: WordIds) -> EncodeWord:
    """The function that encodes words. Unsupported names what sotol lacks."""
    if part.kind not in MODELS:
        raise Unsupported(f"{part.where} {part.kind:.40}")
    return MODELS[part.kind](part, words)


# ---- byte-pair encoding


def _bpe(part: Part, words: WordIds) -> EncodeWord:
    part.expect("dropout", 0, 0.0)
    part.expect("continuing_subword_prefix", "")
    suffix, whole = part.text("end_of_word_suffix", ""), part.flag("ignore_merges", False)
    fuse = part.flag("fuse_unk", False)
    ranks, between = merge_ranks(part)
    ids = words.ids

    def encode(word: str) -> list[int]:
        if whole and word in ids:
            return [ids[word]]
        symbols = list(word)
        if suffix and symbols:
            symbols[-1] += suffix
        found = list[int]()
        for symbol in merge(symbols, ranks, between):
            if symbol in ids:
                found.append(ids[symbol])
            else:
                # Merges make tokens, so what has none is one character, or the text of a token that no text may become.
                for character in symbol if len(symbol) > 1 and not suffix else (symbol,):
                    found += [ids[character]] if character in ids else words.fallback(character)
        return _fused(found, words.unknown) if fuse else found

    return _cut_at_spaces(encode, ranks, between) if "▁" in ids and not suffix and not whole else encode


def merge_ranks(part: Part) -> tuple[dict[str, int], str]:
    """Each merge as its two texts with something between them -> its rank; and what stands between them."""
    given = part.value.get("merges")
    if not isinstance(given, list):
        part.fail("merges", "a list")
    merges: list[str] = given
    if set(map(type, given)) - {str}:
        pairs = [pair for pair in given if isinstance(pair, list) and list(map(type, pair)) == [str, str]]
        if len(pairs) < len(given):
            strange = next(pair for pair in given if not isinstance(pair, list) or list(map(type, pair)) != [str, str])
            raise FormatError(f"{part.file}: {part.where}.merges has {plain(repr(strange), 60)}, not two texts")
        for between in (" ", "\0", "\x1f"):
            merges = [f"{left}{between}{right}" for left, right in pairs]
            if all(merged.count(between) == 1 for merged in merges):
                return dict(zip(merges, range(len(merges)), strict=True)), between
        raise Unsupported(f"{part.where}.merges of texts with spaces and control characters")
    for merged in merges:
        if merged.count(" ") != 1:
            raise FormatError(
                f"{part.file}: {part.where}.merges has {plain(repr(merged), 60)}, not two texts and a space"
            )
    return dict(zip(merges, range(len(merges)), strict=True)), " "


def _cut_at_spaces(encode: EncodeWord, ranks: Mapping[str, int], between: str) -> EncodeWord:
    """The same, for long words by way of shorter ones that no merge can cross: `words.space_words`."""
    joint = between + "▁"
    glue = {pair[at - 1] for pair in ranks if (at := pair.find(joint, 1)) > 0}
    parts, cache = space_words(glue), WordCache(encode)
    return lambda word: cache.encode(parts.findall(word)) if len(word) > WHOLE else encode(word)


def _fused(ids: list[int], unknown: int | None) -> list[int]:
    """Runs of the unknown token as one."""
    if unknown not in ids:
        return ids
    return [i for token, run in groupby(ids) for i in ((token,) if token == unknown else run)]


# ---- the others


def _lengths(tokens: Iterable[str]) -> dict[str, list[int]]:
    """By first character, the lengths of all tokens that begin so, the longest first."""
    found = dict[str, set[int]]()
    for text in tokens:
        if 0 < len(text) <= LONGEST:
            found.setdefault(text[0], set()).add(len(text))
    return {first: sorted(sizes, reverse=True) for first, sizes in found.items()}


def _unigram(part: Part, words: WordIds) -> EncodeWord:
    """The most probable division of a word (Kudo 2018, arXiv 1804.10959), by Viterbi's algorithm."""
    vocab: list[tuple[str, float]] = part.value["vocab"]  # type: ignore[assignment]  # `read_tokens` has checked it
    scores = {text: score for text, score in vocab if text in words.ids}
    unknown_score = min((score for _, score in vocab), default=0.0) - PENALTY
    lengths, ids, fuse = _lengths(scores), words.ids, part.flag("fuse_unk", True)

    def encode(word: str) -> list[int]:
        count = len(word)
        best: list[float | None] = [0.0, *[None] * count]  # of a division of so many characters
        began = [0] * (count + 1)  # where its last part begins
        for at, first in enumerate(word):
            here, single = best[at] or 0.0, False
            for size in lengths.get(first, ()):
                if at + size <= count and (score := scores.get(word[at : at + size])) is not None:
                    before = best[at + size]
                    if before is None or here + score > before:
                        best[at + size], began[at + size] = here + score, at
                    single = single or size == 1
            if not single and ((before := best[at + 1]) is None or here + unknown_score > before):
                best[at + 1], began[at + 1] = here + unknown_score, at
        found, end, in_run = list[tuple[int, int]](), count, False
        while end:
            begin = began[end]
            unknown = word[begin:end] not in ids
            if fuse and unknown and in_run:
                found[-1] = begin, found[-1][1]
            else:
                found.append((begin, end))
            end, in_run = begin, unknown
        pieces = (word[begin:end] for begin, end in reversed(found))
        return [i for piece in pieces for i in ([ids[piece]] if piece in ids else words.fallback(piece))]

    return encode


def _word_piece(part: Part, words: WordIds) -> EncodeWord:
    """The longest token first, from left to right (Schuster & Nakajima 2012; as in BERT, arXiv 1810.04805)."""
    prefix, most = part.text("continuing_subword_prefix", "##"), part.whole("max_input_chars_per_word", 100)
    ids = words.ids
    begins = _lengths(ids)
    goes_on = _lengths(text[len(prefix) :] for text in ids if text.startswith(prefix))

    def encode(word: str) -> list[int]:
        if len(word) > most:
            return words.fallback(word)
        found, at = list[int](), 0
        while at < len(word):
            before, lengths = (prefix, goes_on) if at else ("", begins)
            for size in lengths.get(word[at], ()):
                if at + size <= len(word) and (token := ids.get(before + word[at : at + size])) is not None:
                    found.append(token)
                    at += size
                    break
            else:
                return words.fallback(word)
        return found

    return encode


def _word_level(part: Part, words: WordIds) -> EncodeWord:
    del part
    return lambda word: [words.ids[word]] if word in words.ids else words.fallback(word)


MODELS: dict[str, Callable[[Part, WordIds], EncodeWord]] = {
    "BPE": _bpe,
    "Unigram": _unigram,
    "WordPiece": _word_piece,
    "WordLevel": _word_level,
}
