"""Text to ids and back, by the rules in a GGUF file's metadata. Knows nothing of chats: that is `chat.py`."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import NamedTuple, Protocol

from sotol.errors import ModelError
from sotol.formats.gguf import read_gguf
from sotol.tokenizers.bpe import BYTE_OF_CHARACTER, ByteBpeEncoder, SpaceBpeEncoder
from sotol.tokenizers.pretokenize import pretokenizer
from sotol.tokenizers.provenance import Marked, mask_of, unmarked
from sotol.tokenizers.special import Longest
from sotol.tokenizers.spm import SentencePieceEncoder
from sotol.tokenizers.vocabulary import BYTE_TEXTS, TokenType, Vocabulary, read_vocabulary

__all__ = ["Tokenizer"]

# Types that `decode` leaves out unless it is asked for them.
HIDDEN = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.UNUSED)

SURROGATES = re.compile("[\ud800-\udfff]")


class Encoder(Protocol):
    """What `bpe.py` and `spm.py` provide: ids of text without special tokens."""

    def encode(self, text: str) -> list[int]: ...


class Rules(NamedTuple):
    """How one kind of vocabulary works: its encoder, the bytes of an ordinary token's text, and what goes in front."""

    encoder: Encoder
    spell: Callable[[str], bytes]
    add_bos: bool
    space_prefix: bool


def _byte_bpe(vocabulary: Vocabulary) -> Rules:
    pre = pretokenizer(vocabulary.pre, vocabulary.source)
    add_bos = pre.add_bos if vocabulary.add_bos is None else vocabulary.add_bos
    return Rules(ByteBpeEncoder(vocabulary, pre), _spell_bytes, add_bos, space_prefix=False)


def _sentencepiece(vocabulary: Vocabulary) -> Rules:
    prefix = vocabulary.add_space_prefix is not False
    return Rules(SentencePieceEncoder(vocabulary), _spell_spaces, vocabulary.add_bos is not False, prefix)


def _gemma4(vocabulary: Vocabulary) -> Rules:
    # Some files say that Gemma 4 takes no bos, but it was trained with one (llama.cpp pull request 21500).
    return Rules(SpaceBpeEncoder(vocabulary), _spell_spaces, add_bos=True, space_prefix=False)


MODELS: dict[str, Callable[[Vocabulary], Rules]] = {"gpt2": _byte_bpe, "llama": _sentencepiece, "gemma4": _gemma4}


def _spell_bytes(text: str) -> bytes:
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in text])
    except KeyError:  # not written in GPT-2's alphabet, so it stands for itself
        return _spell(text)


def _spell_spaces(text: str) -> bytes:
    return _spell(text.replace("▁", " "))


def _spell(text: str) -> bytes:
    """The bytes that a file has for a token, also where they are not UTF-8: Python reads those as "surrogateescape"."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # no file has such a text
        return text.encode(errors="replace")


def _trusted_room(mask: bytes) -> Callable[[int], int]:
    """How far the run of 1s goes on that a place is in; to be asked from left to right."""
    end = 0

    def room(start: int) -> int:
        nonlocal end
        if end <= start:
            end = mask.find(0, start)
            end = len(mask) if end < 0 else end
        return end - start

    return room


class _TokenBytes(dict[int, bytes]):
    """Id to the bytes that the token stands for; computed on first use, as most tokens of a vocabulary never come.

    padding: how many ids follow those of the vocabulary, and stand for nothing.
    """

    def __init__(
        self, vocabulary: Vocabulary, spell: Callable[[str], bytes], hidden: tuple[TokenType, ...], padding: int
    ) -> None:
        super().__init__()
        self._vocabulary, self._spell, self._hidden, self._padding = vocabulary, spell, hidden, padding

    def __missing__(self, token: int) -> bytes:
        tokens = self._vocabulary.tokens
        if not 0 <= token < len(tokens):
            if 0 <= token < len(tokens) + self._padding:
                return b""
            raise ValueError(f"token id {token} is not in the vocabulary, which has the ids 0 to {len(tokens) - 1}")
        text, kind = tokens[token], TokenType(self._vocabulary.types[token])
        if kind in self._hidden:
            data = b""
        elif kind is TokenType.NORMAL:
            data = self._spell(text)
        elif kind is TokenType.BYTE:
            data = bytes([BYTE_TEXTS.index(text)])
        else:
            data = _spell(text)
        self[token] = data
        return data


def _whole(token: object) -> int:
    """A token id; ValueError for what is no whole number."""
    try:
        return index(token)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise ValueError(f"a token id is a whole number, not {token!r:.60}") from None


def _warn(source: str, remarks: Sequence[str]) -> None:
    import logging  # noqa: PLC0415  (most files are right, and a start should not wait for it)

    logging.getLogger("sotol.tokenizers").warning("%s: wrong metadata: %s", source, "; ".join(remarks))


class Tokenizer:
    """The tokenizer of one model; threads may share it.

    Attributes: `bos` and `eos` (ids, or None where the model has none); `end_of_generation` (the ids after which the
    model has finished); `adds_bos` and `adds_eos` (what `encode` puts around a text); `space_prefix` (whether a text is
    encoded as if a space stood before it).
    """

    def __init__(self, vocabulary: Vocabulary, padding: int = 0) -> None:
        """padding: how many ids the model has behind those of the vocabulary; they stand for nothing."""
        if vocabulary.model not in MODELS:
            raise ModelError(
                f"{vocabulary.source}: the tokenizer {vocabulary.model!r:.60} (tokenizer.ggml.model) is not supported;"
                f" these are: {', '.join(MODELS)}"
            )
        rules = MODELS[vocabulary.model](vocabulary)
        self._vocabulary = vocabulary
        self._encode_plain = rules.encoder.encode
        self._bytes = _TokenBytes(vocabulary, rules.spell, HIDDEN, padding)
        self._bytes_with_special = _TokenBytes(vocabulary, rules.spell, (), padding)
        self.bos, self.eos = vocabulary.bos, vocabulary.eos
        self.end_of_generation = vocabulary.end_of_generation
        self.adds_bos = rules.add_bos and self.bos is not None
        self.adds_eos = vocabulary.add_eos is True and self.eos is not None
        self.space_prefix = rules.space_prefix
        remarks = list(vocabulary.remarks)
        for name, wanted, adds in (("bos", rules.add_bos, self.adds_bos), ("eos", vocabulary.add_eos, self.adds_eos)):
            if wanted and not adds:
                remarks.append(f"tokenizer.ggml.{name}_token_id is missing, so texts go without {name}")
        if remarks:
            _warn(vocabulary.source, remarks)

    # What is looked for in texts: made on first use, for a vocabulary may have thousands and a program need none.

    @cached_property
    def _control(self) -> Longest:
        return Longest(self._vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN))

    @cached_property
    def _hidden(self) -> Longest:
        return Longest(self._vocabulary.of_type(*HIDDEN))

    @cached_property
    def _user_defined(self) -> Longest:
        return Longest(self._vocabulary.of_type(TokenType.USER_DEFINED))

    @classmethod
    def from_gguf(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer in a GGUF file, which may be a vocabulary without weights. Errors as for `from_metadata`."""
        return cls.from_metadata(read_gguf(path).metadata, str(path))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], source: str = "", *, logits: int = 0) -> "Tokenizer":
        """The tokenizer that the `tokenizer.ggml.*` fields describe.

        FormatError names the field that is broken; ModelError says that the kind of tokenizer is not supported, and
        which are. What is wrong with the metadata, but can be borne, is one warning in the log. `source` is what
        messages call the file; `logits`: of how many tokens the model has some. Those that the vocabulary has not are
        padding, and stand for nothing.
        """
        vocabulary = read_vocabulary(metadata, source)
        return cls(vocabulary, max(0, logits - len(vocabulary.tokens)))

    def __len__(self) -> int:
        """The size of the vocabulary."""
        return len(self._vocabulary.tokens)

    def token_text(self, token: int) -> str:
        """The token as the vocabulary writes it, for instance `Ġthe`, `▁the` or `<|im_end|>`."""
        if not 0 <= _whole(token) < len(self):
            raise ValueError(f"token id {token} is not in the vocabulary, which has the ids 0 to {len(self) - 1}")
        return _spell(self._vocabulary.tokens[token]).decode(errors="replace")

    def id_of(self, text: str) -> int | None:
        """The id of the token that the vocabulary writes as `text`, or None."""
        return self._vocabulary.ids.get(text)

    def encode(self, text: str, *, special: bool = False, add_special: bool = True) -> list[int]:
        """The ids of `text`.

        With `special`, control tokens such as `<|im_end|>` in the text become their ids; without, they are plain text,
        as they must be in what a user wrote. Of a text that knows what in it is a template's (`provenance.py`), as
        `ChatTemplate.render` gives it, only tokens that are the template's to the last character become ids.
        `add_special` puts bos and eos around it where the model wants them.
        """
        if not isinstance(text, str):
            raise ValueError(f"the text is {text!r:.60}; it must be a string")
        mask = mask_of(text) if special and isinstance(text, Marked) else None
        text = unmarked(text)
        if not text.isascii():
            text = SURROGATES.sub("\ufffd", text)  # no UTF-8 exists for half a surrogate pair
        ids = [self.bos] if add_special and self.adds_bos and self.bos is not None else []
        end = 0
        for start, stop in self._special(text, mask) if special else self._user_defined.find(text):
            ids += self._encode_between(text[end:start])
            ids.append(self._vocabulary.ids[text[start:stop]])
            end = stop
        ids += self._encode_between(text[end:])
        if add_special and self.adds_eos and self.eos is not None:
            ids.append(self.eos)
        return ids

    def _encode_between(self, text: str) -> list[int]:
        """The ids of the text between two special tokens."""
        if not text:
            return []
        return self._encode_plain(" " + text if self.space_prefix else text)

    def _special(self, text: str, mask: bytes | None) -> Iterator[tuple[int, int]]:
        """Where special tokens begin and end: the leftmost, of those the longest; control tokens where 1s are."""
        room = None if mask is None else _trusted_room(mask)
        nowhere = (len(text) + 1, 0)
        control = text_token = (-1, 0)
        at = 0
        while True:
            if control[0] < at:
                control = self._control.search(text, at, room) or nowhere
            if text_token[0] < at:
                text_token = self._user_defined.search(text, at) or nowhere
            first = min(control, text_token, key=lambda span: (span[0], -span[1]))
            if first is nowhere:
                return
            yield first
            at = first[1]

    def decode(self, ids: Sequence[int], *, special: bool = False, continued: bool = False) -> str:
        """The text of `ids`; what is not UTF-8 becomes U+FFFD. `special` shows control tokens.

        Where the model encodes a text with a space before it, that space is taken off again, unless the ids are
        `continued`: the middle of a text, whose first space is meant.
        """
        data = self.join(ids, special=special)
        if self.space_prefix and not continued:
            data = data.removeprefix(b" ")
        return data.decode(errors="replace")

    def join(self, ids: Sequence[int], *, special: bool = False) -> bytes:
        """The bytes of all `ids`, one after the other."""
        table = self._bytes_with_special if special else self._bytes
        try:
            return b"".join(map(table.__getitem__, map(index, ids)))
        except TypeError:
            raise ValueError(f"token ids are whole numbers in a list: not {ids!r:.100}") from None

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token stands for, maybe only a part of a character; empty for a control token."""
        return (self._bytes_with_special if special else self._bytes)[_whole(token)]

    def shown(self, text: str) -> list[str | int]:
        """A text as `decode` would have to show it: pieces of text and, for each token in it that is hidden, the id."""
        pieces: list[str | int] = list(self._hidden.split(text))
        pieces[1::2] = [self._vocabulary.ids[str(piece)] for piece in pieces[1::2]]
        return [piece for piece in pieces if piece != ""]
