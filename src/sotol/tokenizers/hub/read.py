"""Reads the tokenizer of a folder: tokenizer.json, and what tokenizer_config.json and its like say of special tokens.

The format: https://github.com/huggingface/tokenizers (its JSON is what the library's own parts write); what the other
files mean is from transformers' tokenization_utils_tokenizers.py. Files are not trusted: see `formats/folder.py`,
and a vocabulary may not claim more ids than it has tokens for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from sotol.errors import FormatError, ModelError, plain
from sotol.formats.folder import Folder
from sotol.tokenizers.fields import TokenizerFields
from sotol.tokenizers.hub.decoders import NOTHING, Around, Decoding, read_around, read_decoder
from sotol.tokenizers.hub.encoder import HubEncoder
from sotol.tokenizers.hub.models import EncodeWord, WordIds, make_model, read_tokens
from sotol.tokenizers.hub.normalizers import Normalize, read_normalizer
from sotol.tokenizers.hub.parts import Part, Unsupported
from sotol.tokenizers.hub.sentencepiece import read_sentencepiece
from sotol.tokenizers.hub.splitters import Split, read_splitter
from sotol.tokenizers.hub.tekken import read_tekken
from sotol.tokenizers.kinds import Added, TokenizerModel, file_bytes
from sotol.tokenizers.roles import FILL_ENDS, TokenTexts, TokenType, ends_of_generation, mark_special
from sotol.tokenizers.vocabulary import BYTE_TEXTS, Vocabulary, read_vocabulary

__all__ = ["Pieces", "parts_of", "read_added", "read_hub_tokenizer", "read_model_file", "read_settings"]

MAX_ADDED = 1 << 16
HOLES = 1024  # ids without a token that a vocabulary may have, and as many again as it has tokens

Made = TypeVar("Made")


class AddedToken(NamedTuple):
    """A token that is found in a text as a whole. normalized: in the normalized text."""

    token: int
    text: str
    special: bool
    normalized: bool
    around: Added


class Settings(NamedTuple):
    """The files beside tokenizer.json, as far as they are there."""

    tokenizer: Mapping[str, object]
    special: Mapping[str, object]
    generation: Mapping[str, object]
    model: Mapping[str, object]

    def text_of(self, name: str) -> str | None:
        """The special token of this name, as "bos_token": a text, or an object with a content."""
        for settings in (self.tokenizer, self.special):
            value = settings.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) and value:
                return value
        return None

    def ids_of(self, name: str) -> list[int]:
        """The ids that generation_config.json and config.json give under this name, as "eos_token_id"."""
        text = self.model.get("text_config")
        found = list[int]()
        for settings in (self.generation, self.model, text if isinstance(text, dict) else {}):
            value = settings.get(name)
            items = value if isinstance(value, list) else [value]
            found += [i for i in items if isinstance(i, int) and not isinstance(i, bool) and i not in found]
        return found

    def flag(self, name: str) -> bool | None:
        """A truth value of tokenizer_config.json."""
        value = self.tokenizer.get(name)
        return value if isinstance(value, bool) else None


def read_hub_tokenizer(folder: Folder, logits: int = 0) -> tuple[Vocabulary, TokenizerModel]:
    """The tokenizer of a folder. FormatError names the file and field that is wrong, ModelError what sotol lacks.

    logits: how many the model has, 0 where that is not known: added tokens beyond them are left out. Gemma 3's text
    models have one, of their sisters that see.
    """
    file = str(folder.path / "tokenizer.json")
    given = folder.json("tokenizer.json")
    if given is not None:
        return build(given, read_settings(folder), file, logits)
    if (given := folder.json("tekken.json")) is not None:
        return read_tekken(given, str(folder.path / "tekken.json"))
    raise FormatError(f"{file}: is missing, so the model has no tokenizer")


def read_settings(folder: Folder) -> Settings:
    """The files beside tokenizer.json."""
    names = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json")
    return Settings(*(folder.json(name) or {} for name in names))


def read_model_file(folder: Folder, logits: int = 0) -> Vocabulary | None:
    """The vocabulary of tokenizer.model, where there is one and no JSON; its encoder is GGUF's for "llama".

    Tokens that only tokenizer_config.json has come behind it. logits: as of `read_hub_tokenizer`.
    """
    first = any(folder.find(name) is not None for name in ("tokenizer.json", "tekken.json"))
    if first or (data := folder.data("tokenizer.model")) is None:
        return None
    file, settings = str(folder.path / "tokenizer.model"), read_settings(folder)
    metadata = read_sentencepiece(data, file)
    tokens: Any = metadata["tokenizer.ggml.tokens"]
    added = {t.token: t for t in read_added({}, settings, file)}
    while (more := added.get(len(tokens))) is not None and not (logits and len(tokens) >= logits):
        tokens.append(more.text)
        metadata["tokenizer.ggml.token_type"].append(3 if more.special else 4)  # type: ignore[attr-defined]
        metadata["tokenizer.ggml.scores"].append(0.0)  # type: ignore[attr-defined]
    for name in ("bos", "eos"):
        if (text := settings.text_of(f"{name}_token")) in tokens:
            metadata[f"tokenizer.ggml.{name}_token_id"] = tokens.index(text)
        if (wanted := settings.flag(f"add_{name}_token")) is not None:
            metadata[f"tokenizer.ggml.add_{name}_token"] = wanted
    vocabulary = read_vocabulary(metadata, file)
    ends = {i for i in settings.ids_of("eos_token_id") if 0 <= i < len(tokens)}
    return vocabulary._replace(end_of_generation=vocabulary.end_of_generation | ends)


class Pieces(NamedTuple):
    """The parts of a tokenizer.json; None where the file has null."""

    model: Part
    normalizer: Part | None
    splitter: Part | None
    decoder: Part | None
    processor: Part | None


def build(
    given: Mapping[str, object], settings: Settings, file: str, logits: int = 0
) -> tuple[Vocabulary, TokenizerModel]:
    """The tokenizer of a parsed tokenizer.json. logits: as of `read_hub_tokenizer`."""
    pieces = parts_of(given, file)
    own, lacking = read_tokens(pieces.model), list[str]()

    def tried(make: Callable[[], Made], otherwise: Made) -> Made:
        """What `make` gives; where it is unsupported, that is noted, and the rest is looked at too."""
        try:
            return make()
        except Unsupported as missing:
            lacking.append(str(missing))
            return otherwise

    normalize: Normalize | None = tried(lambda: read_normalizer(pieces.normalizer), None)
    split: Split | None = tried(lambda: read_splitter(pieces.splitter), None)
    decoding = tried(lambda: read_decoder(pieces.decoder), Decoding())
    # A token of the model's keeps the id that it has there, whatever added_tokens says, as in the library.
    added = [t._replace(token=own.get(t.text, t.token)) for t in read_added(given, settings, file, logits)]
    tokens = _tokens(own, added, file)
    byte_tokens = decoding.byte_tokens or pieces.model.flag("byte_fallback", False)
    types = _types(tokens, added, byte_tokens=byte_tokens, changes=normalize is not None)
    around: Around = tried(lambda: read_around(pieces.processor, tokens.ids.get), NOTHING)
    vocabulary = _vocabulary(pieces.model, tokens, types, settings, file)
    words = _words(pieces.model, own, vocabulary)
    encode_word = tried(lambda: make_model(pieces.model, words), cast(EncodeWord, words.fallback))
    if lacking:
        raise ModelError(f"{file}: sotol does not support {plain('; '.join(lacking), 400)}")
    if strange := [i for side in around for i in side if not 0 <= i < len(tokens.texts)]:
        raise FormatError(f"{file}: post_processor has the id {strange[0]}, which is not in the vocabulary")
    in_normalized = {t.text: t.token for t in added if normalize is not None and _in_normalized(t, types)}
    around_added = {t.token: t.around for t in added if any(t.around)}
    encoder = HubEncoder(normalize, split, encode_word, in_normalized, around_added)
    return vocabulary, TokenizerModel(
        encoder,
        decoding.bytes_of,
        add_bos=False,
        space_prefix=False,
        bytes_of_added=file_bytes if decoding.byte_level else decoding.bytes_of,
        encode_after=encoder.encode_after,
        around=_surrounded(around, settings, vocabulary),
        drops_space=decoding.drops_space,
        added=around_added,
    )


def parts_of(given: Mapping[str, object], file: str) -> Pieces:
    """The parts of a parsed tokenizer.json."""

    def part(key: str) -> Part | None:
        return None if given.get(key) is None else Part.of(given[key], file, key)

    model = Part.of(given.get("model"), file, "model")
    if "type" not in model.value:  # as old files have it
        kind = "Unigram" if isinstance(model.value.get("vocab"), list) else "BPE"
        model = model._replace(value={**model.value, "type": kind if "merges" in model.value else "WordPiece"})
    return Pieces(model, part("normalizer"), part("pre_tokenizer"), part("decoder"), part("post_processor"))


def read_added(given: Mapping[str, object], settings: Settings, file: str, logits: int = 0) -> list[AddedToken]:
    """The added tokens of tokenizer.json, and those that only tokenizer_config.json has.

    logits: as of `read_hub_tokenizer`.
    """
    items = given.get("added_tokens") or []
    more = settings.tokenizer.get("added_tokens_decoder") or {}
    if not isinstance(items, list) or not isinstance(more, dict):
        raise FormatError(
            f"{file}: added_tokens is not a list, or tokenizer_config.json's added_tokens_decoder no object"
        )
    if len(items) + len(more) > 2 * MAX_ADDED:
        raise FormatError(f"{file}: has {len(items) + len(more)} added tokens, more than sotol accepts")
    found = dict[int, AddedToken]()
    for i, item in enumerate(items):
        part = Part.of(item, file, f"added_tokens[{i}]")
        if part.value.get("id") is None:
            part.fail("id", "a whole number")
        token = _added(part, part.whole("id", 0))
        if found.setdefault(token.token, token).text != token.text:
            part.fail("id", f"the id of one token: {plain(repr(found[token.token].text), 40)} has it, too")
    texts = {token.text for token in found.values()}
    for key, item in more.items():
        part = Part.of(item, file, f"added_tokens_decoder of tokenizer_config.json: {plain(repr(key), 20)}")
        if not key.isascii() or not key.isdecimal() or len(key) > 9:
            part.fail("id", f"known: {plain(repr(key), 20)} is no id")
        token = _added(part, int(key))
        if token.token not in found and token.text not in texts:
            found[token.token] = token
    return [token for token in found.values() if not logits or token.token < logits]


def _added(part: Part, token: int) -> AddedToken:
    text, special = part.text("content"), part.flag("special", False)
    if not text:
        part.fail("content", "a text of one or more characters")
    around = Added(part.flag("lstrip", False), part.flag("rstrip", False), part.flag("single_word", False))
    return AddedToken(token, text, special, part.flag("normalized", not special), around)


def _tokens(own: Mapping[str, int], added: Sequence[AddedToken], file: str) -> TokenTexts:
    """All tokens by id; ids without a token get a text that says so."""
    if not own and not added:
        raise FormatError(f"{file}: has no tokens")
    count = 1 + max(max(own.values(), default=0), max((t.token for t in added), default=0))
    if count > 2 * (len(own) + len(added)) + HOLES:
        raise FormatError(f"{file}: has the id {count - 1}, but only {len(own) + len(added)} tokens")
    texts = [""] * count
    for text, token in own.items():
        texts[token] = text or f"[EMPTY_{token}]"
    for extra in added:
        if texts[extra.token] not in ("", extra.text):
            raise FormatError(
                f"{file}: the id {extra.token} is {plain(repr(texts[extra.token]), 40)} in the model's vocabulary, and "
                f"{plain(repr(extra.text), 40)} in added_tokens"
            )
        texts[extra.token] = extra.text
    if "" in texts:
        texts = [text or f"[EMPTY_{i}]" for i, text in enumerate(texts)]
    return TokenTexts(texts, dict(zip(reversed(texts), range(count - 1, -1, -1), strict=True)))


def _types(
    tokens: TokenTexts, added: Sequence[AddedToken], *, byte_tokens: bool, changes: bool
) -> "np.ndarray[tuple[int], np.dtype[np.int8]]":
    """[V] of TokenType. changes: whether there is a normalizer, so that normalized tokens are found by the encoder."""
    types = np.full(len(tokens.texts), TokenType.NORMAL, np.int8)
    if byte_tokens:
        types[tokens.places(frozenset(BYTE_TEXTS))] = TokenType.BYTE
    for t in added:
        found_whole = TokenType.NORMAL if changes and t.normalized else TokenType.USER_DEFINED
        types[t.token] = TokenType.CONTROL if t.special else found_whole
    return types


def _in_normalized(t: AddedToken, types: "np.ndarray[tuple[int], np.dtype[np.int8]]") -> bool:
    """Whether the encoder finds this added token."""
    return t.normalized and types[t.token] == TokenType.NORMAL


def _vocabulary(
    model: Part, tokens: TokenTexts, types: "np.ndarray[tuple[int], np.dtype[np.int8]]", settings: Settings, file: str
) -> Vocabulary:
    """The vocabulary with its special tokens. Those that begin or end a turn are control tokens: see `roles.py`."""
    count, remarks = len(tokens.texts), list[str]()
    named: dict[str, int | None] = dict.fromkeys(("eot", "eom", *FILL_ENDS))
    ends = settings.ids_of("eos_token_id")
    if strange := [i for i in ends if not 0 <= i < count]:
        remarks.append(f"eos_token_id has {strange[0]}, which is not in the vocabulary")
    for name in ("bos", "eos"):
        text = settings.text_of(f"{name}_token")
        ids = [i for i in settings.ids_of(f"{name}_token_id") if 0 <= i < count]
        named[name] = tokens.ids.get(text) if text is not None else None
        if text is not None and named[name] is None:
            remarks.append(f"{name}_token is {text!r:.60}, which is not in the vocabulary")
        if named[name] is None and ids:
            named[name] = ids[0]
    named["unknown"] = _unknown(model, tokens.ids)
    # What files leave out is no fault here, as it is in GGUF: added_tokens has no types.
    mark_special(TokenizerFields({"tokenizer.ggml.token_type": True}, file, []), tokens, types, named)
    return Vocabulary(
        model=model.kind,
        pre="",
        tokens=tokens.texts,
        types=types,
        scores=np.empty(0),
        merges=[],
        ids=tokens.ids,
        bos=named["bos"],
        eos=named["eos"],
        unknown=named["unknown"],
        end_of_generation=ends_of_generation(tokens, types, named) | {i for i in ends if 0 <= i < count},
        add_bos=None,
        add_eos=None,
        add_space_prefix=None,
        source=file,
        remarks=tuple(remarks),
    )


def _unknown(model: Part, ids: Mapping[str, int]) -> int | None:
    """The model's unknown token."""
    if model.kind == "Unigram":
        given = model.value.get("unk_id")
        return None if given is None or model.whole("unk_id", 0) >= len(ids) else model.whole("unk_id", 0)
    text = model.text("unk_token", "[UNK]" if model.kind == "WordPiece" else "")
    return ids.get(text) if text else None


def _words(model: Part, own: Mapping[str, int], vocabulary: Vocabulary) -> WordIds:
    """What words may become: the model's own tokens, but for control tokens and bytes."""
    ids, types = dict(own), vocabulary.types
    for token in np.flatnonzero((types != TokenType.NORMAL) & (types != TokenType.USER_DEFINED)).tolist():
        ids.pop(vocabulary.tokens[token], None)
    ids.pop("", None)
    unknown = None if vocabulary.unknown in vocabulary.end_of_generation else vocabulary.unknown
    falls = model.flag("byte_fallback", False)
    of_bytes = {byte: own[text] for byte, text in enumerate(BYTE_TEXTS) if text in own} if falls else {}
    return WordIds(ids, unknown, of_bytes)


def _surrounded(around: Around, settings: Settings, vocabulary: Vocabulary) -> Around:
    """The ids before and behind a text: the post-processor's, changed where tokenizer_config.json says otherwise.

    So have it llama.cpp's conversion and transformers 4's classes for Llama and Gemma; transformers 5 leaves out what
    the config says wherever there is a post-processor, and then DeepSeek-V3 goes without its bos.
    """
    sides = list(around)
    for side, (name, token) in enumerate((("add_bos_token", vocabulary.bos), ("add_eos_token", vocabulary.eos))):
        wanted = settings.flag(name)
        if token is None or wanted is None:
            continue
        if wanted and token not in sides[side]:
            sides[side] = (token, *sides[side]) if side == 0 else (*sides[side], token)
        elif not wanted:
            sides[side] = tuple(i for i in sides[side] if i != token)
    return sides[0], sides[1]
