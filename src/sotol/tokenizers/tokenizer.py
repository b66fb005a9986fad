"""Text to ids and back, by the rules of a GGUF file's metadata or a tokenizer.json. Knows no chats: `chat.py` does."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import index
from pathlib import Path

from sotol.errors import ModelError
from sotol.formats.files import is_hub_model
from sotol.formats.gguf import read_gguf
from sotol.tokenizers.bpe import BYTE_OF_CHARACTER, ByteBpeEncoder, SpaceBpeEncoder
from sotol.tokenizers.kinds import TokenizerModel, file_bytes, placed
from sotol.tokenizers.pretokenize import pretokenizer
from sotol.tokenizers.provenance import Marked, mask_of, unmarked
from sotol.tokenizers.special import LongestMatcher
from sotol.tokenizers.spm import SentencePieceEncoder
from sotol.tokenizers.vocabulary import BYTE_TEXTS, TokenType, Vocabulary, read_vocabulary

__all__ = ["Tokenizer"]

# Types of tokens that `decode` does not show by default.
HIDDEN = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.UNUSED)

SURROGATES = re.compile("[\ud800-\udfff]")


def _byte_bpe(vocabulary: Vocabulary) -> TokenizerModel:
    pre = pretokenizer(vocabulary.pre, vocabulary.source)
    add_bos = pre.add_bos if vocabulary.add_bos is None else vocabulary.add_bos
    return TokenizerModel(ByteBpeEncoder(vocabulary, pre), _bytes_of_gpt2, add_bos, space_prefix=False)


def _sentencepiece(vocabulary: Vocabulary) -> TokenizerModel:
    prefix = vocabulary.add_space_prefix is not False
    encoder, add_bos = SentencePieceEncoder(vocabulary), vocabulary.add_bos is not False
    return TokenizerModel(encoder, _bytes_of_sentencepiece, add_bos, prefix)


def _gemma4(vocabulary: Vocabulary) -> TokenizerModel:
    # Some files say that Gemma 4 takes no bos, but it was trained with one (llama.cpp pull request 21500).
    return TokenizerModel(SpaceBpeEncoder(vocabulary), _bytes_of_sentencepiece, add_bos=True, space_prefix=False)


MODELS: dict[str, Callable[[Vocabulary], TokenizerModel]] = {
    "gpt2": _byte_bpe,
    "llama": _sentencepiece,
    "gemma4": _gemma4,
}


def _bytes_of_gpt2(text: str) -> bytes:
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in text])
    except KeyError:  # not in GPT-2's alphabet, so the token is plain text
        return file_bytes(text)


def _bytes_of_sentencepiece(text: str) -> bytes:
    return file_bytes(text.replace("▁", " "))


def _trusted_room(mask: bytes) -> Callable[[int], int]:
    """room(start): the length of the run of trusted characters at `start`. Call it from left to right."""
    end = 0

    def room(start: int) -> int:
        nonlocal end
        if end <= start:
            end = mask.find(0, start)
            end = len(mask) if end < 0 else end
        return end - start

    return room


class _TokenBytes(dict[int, bytes]):
    """Id -> the bytes that the token stands for, computed on demand: most tokens of a vocabulary never occur.

    padding: how many ids follow those of the vocabulary; they stand for nothing.
    """

    def __init__(
        self, vocabulary: Vocabulary, model: TokenizerModel, hidden: tuple[TokenType, ...], padding: int
    ) -> None:
        super().__init__()
        self._vocabulary, self._model, self._hidden, self._padding = vocabulary, model, hidden, padding

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
            data = self._model.bytes_of(text)
        elif kind is TokenType.BYTE:
            data = bytes([BYTE_TEXTS.index(text)])
        else:
            data = self._model.bytes_of_added(text)
        self[token] = data
        return data


def _whole(token: object) -> int:
    """A token id; ValueError unless it is an integer."""
    try:
        return index(token)  # type: ignore[arg-type]  # the except clause handles other types
    except TypeError:
        raise ValueError(f"a token id is a whole number, not {token!r:.60}") from None


def _warn(source: str, remarks: Sequence[str]) -> None:
    import logging  # noqa: PLC0415  (takes time at start, and most files have no faults)

    logging.getLogger("sotol.tokenizers").warning("%s: wrong metadata: %s", source, "; ".join(remarks))


class Tokenizer:
    """The tokenizer of one model; threads may share it.

    Attributes: `bos` and `eos` (ids, or None if the model has none); `end_of_generation` (the ids that end an answer);
    `adds_bos` and `adds_eos` (what `encode` puts around a text); `space_prefix` (whether a text is encoded with a space
    before it, which `decode` takes away again); `kind` (of the vocabulary, as its file calls it).
    """

    def __init__(self, vocabulary: Vocabulary, model: TokenizerModel, padding: int = 0) -> None:
        """padding: how many ids the model has after those of the vocabulary; they stand for nothing."""
        self._vocabulary, self._added = vocabulary, model.added
        self._encode_plain: Callable[[str], list[int]] = model.encoder.encode
        self._encode_after = model.encode_after or model.encoder.encode
        self._bytes = _TokenBytes(vocabulary, model, HIDDEN, padding)
        self._bytes_with_special = _TokenBytes(vocabulary, model, (), padding)
        self.kind = vocabulary.model
        self.bos, self.eos = vocabulary.bos, vocabulary.eos
        self.end_of_generation = vocabulary.end_of_generation
        self._before, self._behind = model.around or (
            (self.bos,) if model.add_bos and self.bos is not None else (),
            (self.eos,) if vocabulary.add_eos and self.eos is not None else (),
        )
        self.adds_bos = self.bos is not None and self._before[:1] == (self.bos,)
        self.adds_eos = self.eos is not None and self._behind[-1:] == (self.eos,)
        self._leading = " " if model.space_prefix else ""
        self.space_prefix = model.space_prefix or model.drops_space
        remarks = list(vocabulary.remarks)
        for name, wanted, adds in (("bos", model.add_bos, self.adds_bos), ("eos", vocabulary.add_eos, self.adds_eos)):
            if wanted and not adds:
                remarks.append(f"tokenizer.ggml.{name}_token_id is missing, so texts go without {name}")
        if remarks:
            _warn(vocabulary.source, remarks)

    # Matchers of special tokens, made on demand: a vocabulary may have thousands, and a program may need none.

    @cached_property
    def _control(self) -> LongestMatcher:
        return LongestMatcher(self._vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN))

    @cached_property
    def _hidden(self) -> LongestMatcher:
        return LongestMatcher(self._vocabulary.of_type(*HIDDEN))

    @cached_property
    def _user_defined(self) -> LongestMatcher:
        return LongestMatcher(self._vocabulary.of_type(TokenType.USER_DEFINED))

    @classmethod
    def from_gguf(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer in a GGUF file, which may be a vocabulary without weights. Errors as for `from_metadata`."""
        return cls.from_metadata(read_gguf(path).metadata, str(path))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], source: str = "", *, logits: int = 0) -> "Tokenizer":
        """The tokenizer that the `tokenizer.ggml.*` fields describe.

        source: the name of the file in messages. logits: how many logits the model has; ids beyond the vocabulary are
        padding and stand for nothing. FormatError names a field that can't be used; ModelError lists the supported
        kinds of tokenizers. Lesser faults of the metadata are one warning in the log.
        """
        return cls.of_vocabulary(read_vocabulary(metadata, source), logits)

    @classmethod
    def of_vocabulary(cls, vocabulary: Vocabulary, logits: int = 0) -> "Tokenizer":
        """The tokenizer of a vocabulary of GGUF's kinds; ModelError for others. logits: as of `from_metadata`."""
        if vocabulary.model not in MODELS:
            raise ModelError(
                f"{vocabulary.source}: the tokenizer {vocabulary.model!r:.60} (tokenizer.ggml.model) is not supported;"
                f" these are: {', '.join(MODELS)}"
            )
        return cls(vocabulary, MODELS[vocabulary.model](vocabulary), max(0, logits - len(vocabulary.tokens)))

    @classmethod
    def from_folder(cls, path: str | Path, *, logits: int = 0) -> "Tokenizer":
        """The tokenizer of a folder with a tokenizer.json, or a tokenizer.model, or of the folder of this file.

        logits: as above, and added tokens beyond them are left out. FormatError names the file and the field that is
        wrong; ModelError all parts that sotol does not have.
        """
        from sotol.formats.folder import Folder  # noqa: PLC0415  (these take 10 ms: GGUF files do without)
        from sotol.tokenizers.hub import read_hub_tokenizer, read_model_file  # noqa: PLC0415

        path = Path(path)
        folder = Folder(path if path.is_dir() else path.parent)
        if (of_pieces := read_model_file(folder, logits)) is not None:
            return cls.of_vocabulary(of_pieces, logits)
        vocabulary, model = read_hub_tokenizer(folder, logits)
        return cls(vocabulary, model, max(0, logits - len(vocabulary.tokens)))

    @classmethod
    def from_path(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer of what lies at a path: `from_folder`, or `from_gguf`."""
        return cls.from_folder(path) if is_hub_model(Path(path)) else cls.from_gguf(path)

    def __len__(self) -> int:
        """The size of the vocabulary."""
        return len(self._vocabulary.tokens)

    def token_text(self, token: int) -> str:
        """The token as the vocabulary writes it, for instance `Ġthe`, `▁the` or `<|im_end|>`."""
        if not 0 <= _whole(token) < len(self):
            raise ValueError(f"token id {token} is not in the vocabulary, which has the ids 0 to {len(self) - 1}")
        return file_bytes(self._vocabulary.tokens[token]).decode(errors="replace")

    def id_of(self, text: str) -> int | None:
        """The id of the token that the vocabulary writes as `text`, or None."""
        return self._vocabulary.ids.get(text)

    def encode(
        self, text: str, *, special: bool = False, add_special: bool = True, continued: bool = False
    ) -> list[int]:
        """The ids of `text`.

        With `special`, control tokens such as `<|im_end|>` in the text become their ids; without, they are plain text,
        as a user's text must be. In a text that `ChatTemplate.render` made, which knows the origin of its characters
        (`provenance.py`), only control tokens that the template wrote in full become ids. `add_special` adds bos and
        eos if the model uses them. continued: the text is from the middle of another, so no space comes before it.
        """
        if not isinstance(text, str):
            raise ValueError(f"the text is {text!r:.60}; it must be a string")
        mask = mask_of(text) if special and isinstance(text, Marked) else None
        text = unmarked(text)
        if not text.isascii():
            text = SURROGATES.sub("\ufffd", text)  # half a surrogate pair can't be encoded as UTF-8
        ids = list(self._before) if add_special else []
        leading = "" if continued else self._leading
        end, encode = 0, self._encode_plain  # of the text up to the first token that is found as a whole
        found = self._special(text, mask) if special else self._user_defined.find(text)
        for start, stop, token in placed(text, found, self._vocabulary.ids, self._added):
            if start > end:
                ids += encode(leading + text[end:start])
            ids.append(token)
            end, encode = stop, self._encode_after
        if end < len(text):
            ids += encode(leading + text[end:])
        return [*ids, *self._behind] if add_special else ids

    def _special(self, text: str, mask: bytes | None) -> Iterator[tuple[int, int]]:
        """Start and end of special tokens: leftmost first, of those the longest; control tokens only if trusted."""
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
        """The text of `ids`; invalid UTF-8 becomes U+FFFD. special: show control tokens.

        If the model encodes texts with a space before them, that space is removed again. continued: not so, since the
        ids are from the middle of a text.
        """
        data = self.join(ids, special=special)
        if self.space_prefix and not continued:
            data = data.removeprefix(b" ")
        return data.decode(errors="replace")

    def join(self, ids: Sequence[int], *, special: bool = False) -> bytes:
        """The bytes of all `ids`, concatenated."""
        table = self._bytes_with_special if special else self._bytes
        try:
            return b"".join(map(table.__getitem__, map(index, ids)))
        except TypeError:
            raise ValueError(f"token ids are whole numbers in a list: not {ids!r:.100}") from None

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token stands for, perhaps only part of a character; empty for a control token."""
        return (self._bytes_with_special if special else self._bytes)[_whole(token)]

    def shown(self, text: str) -> list[str | int]:
        """The parts of a text as `decode` would show them: text, and the ids of tokens in it that `decode` hides."""
        pieces: list[str | int] = list(self._hidden.split(text))
        pieces[1::2] = [self._vocabulary.ids[str(piece)] for piece in pieces[1::2]]
        return [piece for piece in pieces if piece != ""]
