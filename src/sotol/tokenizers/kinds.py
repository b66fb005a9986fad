"""What a kind of tokenizer must say of itself, so that `Tokenizer` can do the rest: `TokenizerModel`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from sotol.tokenizers.characters import WHITE

__all__ = ["Added", "Encoder", "TokenizerModel", "file_bytes", "placed"]


class Encoder(Protocol):
    """Encodes text in which special tokens are ordinary characters; `bpe.py`, `spm.py` and `hub/` have the encoders."""

    def encode(self, text: str) -> list[int]: ...


class Added(NamedTuple):
    """How a token that is found in texts as a whole takes part of what surrounds it.

    left, right: with the white space on that side. single_word: only where no letter, digit or _ is beside it.
    """

    left: bool = False
    right: bool = False
    single_word: bool = False


def file_bytes(text: str) -> bytes:
    """The bytes of a token's text in the file. Those that are not UTF-8 were read with "surrogateescape"."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # can't come from a file
        return text.encode(errors="replace")


class TokenizerModel(NamedTuple):
    """How one kind of vocabulary (`tokenizer.ggml.model`, or a tokenizer.json) encodes and decodes.

    bytes_of: the text of an ordinary token -> the bytes that it stands for. add_bos, space_prefix: what comes before a
    text. bytes_of_added: the same of tokens that are found in texts as a whole. encode_after: for a text behind such a
    token, if that differs. around: all ids before and behind a text, where these are more than bos and eos may be.
    drops_space: whether a space that begins a decoded text goes, though the encoder adds none here. added: tokens that
    are found in another way than by their text alone.
    """

    encoder: Encoder
    bytes_of: Callable[[str], bytes]
    add_bos: bool
    space_prefix: bool
    bytes_of_added: Callable[[str], bytes] = file_bytes
    encode_after: Callable[[str], list[int]] | None = None
    around: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    drops_space: bool = False
    added: Mapping[int, Added] = MappingProxyType({})


def placed(
    text: str, found: Iterable[tuple[int, int]], ids: Mapping[str, int], added: Mapping[int, Added]
) -> Iterator[tuple[int, int, int]]:
    """Start, end and id of tokens that were found in a text as a whole, with the white space that they take with them.

    found: start and end of their own texts, from left to right. added: of tokens that take more, or are not everywhere.
    """
    end = 0
    for start, stop in found:
        token = ids[text[start:stop]]
        if (more := added.get(token)) is not None:
            if start < end or (more.single_word and _within_word(text, start, stop)):
                continue
            if more.left:
                start = end + len(text[end:start].rstrip(WHITE))
            if more.right:
                while stop < len(text) and text[stop] in WHITE:
                    stop += 1
        yield start, stop, token
        end = stop


def _within_word(text: str, start: int, stop: int) -> bool:
    """Whether a part of a text has a character of a word right before or behind it, as Unicode's \\w has them.

    These are letters and their like, marks, digits, connectors such as _, and joiners (Unicode Technical Standard 18).
    """
    from unicodedata import category  # noqa: PLC0415  (few vocabularies have such tokens)

    beside = text[max(start - 1, 0) : start] + text[stop : stop + 1]
    return any(c in "\u200c\u200d" or category(c)[0] in "LM" or category(c) in ("Nd", "Nl", "Pc") for c in beside)
