"""Decoders and post-processors of tokenizer.json: what bytes a token stands for, and what ids surround a text.

sotol decodes token by token, so a decoder becomes a function of one token's text. What it does at the beginning of a
whole text is to take away a space: `Decoding.drops_space`.
"""

from collections.abc import Callable
from typing import NamedTuple

from sotol.errors import plain
from sotol.tokenizers.bpe import BYTE_OF_CHARACTER
from sotol.tokenizers.hub.parts import Part, Unsupported, check_growth

__all__ = ["NOTHING", "Around", "Decoding", "read_around", "read_decoder"]

Around = tuple[tuple[int, ...], tuple[int, ...]]  # the ids before and behind a text
NOTHING: Around = ((), ())

# What BERT's decoder joins to the word before, as `tokenizers` has it.
CLEANED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class Decoding(NamedTuple):
    """What an ordinary token's text becomes.

    steps: functions from text to text, in order. byte_level: characters stand for bytes instead. byte_tokens: whether
    `<0x0A>` is a byte. drops_space: whether a space that begins the whole text goes. fused: whether steps see the whole
    text from here on, which they may do as well token by token.
    """

    steps: tuple[Callable[[str], str], ...] = ()
    byte_level: bool = False
    byte_tokens: bool = False
    drops_space: bool = False
    fused: bool = False

    def bytes_of(self, text: str) -> bytes:
        """The bytes of a token."""
        if self.byte_level:
            try:
                return bytes([BYTE_OF_CHARACTER[character] for character in text])
            except KeyError:  # not in the alphabet: the token is plain text
                return text.encode(errors="replace")
        for step in self.steps:
            text = step(text)
        return text.encode(errors="replace")

    def then(self, step: Callable[[str], str], *, drops_space: bool = False) -> "Decoding":
        """With one step more."""
        return self._replace(steps=(*self.steps, step), drops_space=self.drops_space or drops_space)


def read_decoder(given: Part | None) -> Decoding:
    """A decoder, which may be a sequence. Unsupported names what sotol lacks."""
    if given is None:
        return Decoding().then(lambda text: f" {text}", drops_space=True)
    found, parts = Decoding(), given.all_of("decoders")
    for part in parts:
        if part.kind not in STEPS:
            raise Unsupported(f"{part.where} {part.kind:.40}")
        found = STEPS[part.kind](part, found)
    check_growth([part for part in parts if part.kind == "Replace"])
    if found.byte_level and found.steps:
        raise Unsupported(f"{given.where} ByteLevel with other decoders")
    return found


def _strip(part: Part, found: Decoding) -> Decoding:
    part.expect("content", " ")
    part.expect("start", 0, 1)
    part.expect("stop", 0)
    if not found.fused:
        raise Unsupported(f"{part.where} Strip before Fuse")
    return found._replace(drops_space=part.whole("start", 0) == 1)


def _metaspace(part: Part, found: Decoding) -> Decoding:
    scheme = part.text("prepend_scheme", "always" if part.flag("add_prefix_space", True) else "never")
    return found.then(_replaced(part.text("replacement", "▁"), " "), drops_space=scheme != "never")


def _replace(part: Part, found: Decoding) -> Decoding:
    literal, _ = part.pattern()
    if literal is None:
        raise Unsupported(f"{part.where} Replace of an expression")
    return found.then(_replaced(literal, part.text("content")))


def _replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new) if old else text


STEPS: dict[str, Callable[[Part, Decoding], Decoding]] = {
    "ByteLevel": lambda _, found: found._replace(byte_level=True),
    "ByteFallback": lambda _, found: found._replace(byte_tokens=True),
    "Fuse": lambda _, found: found._replace(fused=True),
    "Strip": _strip,
    "Metaspace": _metaspace,
    "Replace": _replace,
    "WordPiece": lambda part, found: found.then(_word_piece(part), drops_space=True),
    "BPEDecoder": lambda part, found: found.then(_replaced(part.text("suffix", "</w>"), " ")),
}


def _word_piece(part: Part) -> Callable[[str], str]:
    prefix, cleanup = part.text("prefix", "##"), part.flag("cleanup", True)

    def text_of(text: str) -> str:
        text = text.removeprefix(prefix) if text.startswith(prefix) else f" {text}"
        for old, new in CLEANED if cleanup else ():
            text = text.replace(old, new)
        return text

    return text_of


def read_around(given: Part | None, ids: Callable[[str], int | None]) -> Around:
    """The ids that a post-processor puts before and behind a text. ids: a token's text -> its id."""
    before, after = NOTHING
    for part in [] if given is None else given.all_of("processors"):
        if part.kind == "TemplateProcessing":
            before, after = _template(part)
        elif part.kind in ("BertProcessing", "RobertaProcessing"):
            before, after = (_named(part, "cls", ids),), (_named(part, "sep", ids),)
        elif part.kind != "ByteLevel":  # which only moves offsets
            raise Unsupported(f"{part.where} {part.kind:.40}")
    return before, after


def _named(part: Part, key: str, ids: Callable[[str], int | None]) -> int:
    """The id of a token that is given as its text and its id."""
    pair = part.value.get(key)
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str) or ids(pair[0]) != pair[1]:
        part.fail(key, "a token of the vocabulary with its id")
    return int(pair[1])


def _template(part: Part) -> Around:
    """A template's ids before and behind its sequence A, for a single text."""
    table = Part.of(part.value.get("special_tokens"), part.file, f"{part.where}.special_tokens")
    around: list[list[int]] = [[]]
    single = part.value.get("single")
    if not isinstance(single, list):
        part.fail("single", "a list")
    for i, item in enumerate(single):
        piece = Part.of(item, part.file, f"{part.where}.single[{i}]")
        if "Sequence" in piece.value:
            if Part.of(piece.value["Sequence"], part.file, piece.where).text("id") != "A" or len(around) > 1:
                raise Unsupported(f"{piece.where} of another sequence than A")
            around.append([])
            continue
        name = Part.of(piece.value.get("SpecialToken"), part.file, f"{piece.where}.SpecialToken").text("id")
        described = Part.of(table.value.get(name), part.file, f"{table.where}.{plain(name, 40)}")
        ids = described.value.get("ids")
        if not isinstance(ids, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            described.fail("ids", "a list of ids")
        around[-1] += ids
    if len(around) != 2:
        part.fail("single", "a template with the sequence A")
    return tuple(around[0]), tuple(around[1])
