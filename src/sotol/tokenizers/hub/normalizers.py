"""Normalizers of tokenizer.json: functions from text to text. Their meaning is that of the library `tokenizers`."""

import unicodedata
from collections.abc import Callable

from sotol.tokenizers.bpe import CHARACTER_OF_BYTE
from sotol.tokenizers.characters import WHITE
from sotol.tokenizers.hub.charsmap import read_charsmap
from sotol.tokenizers.hub.parts import Part, Unsupported, check_growth, in_time

__all__ = ["Normalize", "lowered", "read_normalizer"]

Normalize = Callable[[str], str]

# Han as BERT's tokenizer has it: the ranges of CJK ideographs.
IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def read_normalizer(given: Part | None) -> Normalize | None:
    """All normalizers of a part as one function; None if it changes nothing. Unsupported names what sotol lacks."""
    parts = [] if given is None else given.all_of("normalizers")
    steps = [_step(part) for part in parts]
    check_growth(parts)
    if len(steps) <= 1:
        return steps[0] if steps else None

    def normalize(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return normalize


def _step(part: Part) -> Normalize:
    make = STEPS.get(part.kind)
    if make is None:
        raise Unsupported(f"{part.where} {part.kind:.40}")
    return make(part)


def lowered(text: str) -> str:
    """Each character in lower case by itself: `str.lower` knows that a sigma ends a word."""
    return text.lower() if "\u03a3" not in text else "".join(character.lower() for character in text)


def without_marks(text: str) -> str:
    """The text without marks that take no room (category Mn), such as accents of a decomposed text."""
    return text if text.isascii() else "".join(c for c in text if unicodedata.category(c) != "Mn")


def spelled(text: str) -> str:
    """The bytes of the text, each as its character of GPT-2's alphabet."""
    return "".join(map(CHARACTER_OF_BYTE.__getitem__, text.encode(errors="replace")))


def _unicode(form: str) -> Callable[[Part], Normalize]:
    def normalize(text: str) -> str:
        return text if text.isascii() else unicodedata.normalize(form, text)  # type: ignore[arg-type]

    return lambda _: normalize


def _replace(part: Part) -> Normalize:
    (literal, pattern), content = part.pattern(), part.text("content")
    if literal is not None:
        return lambda text: text.replace(literal, content)
    return lambda text: str(in_time(len(text), lambda left: pattern.sub(lambda _: content, text, timeout=left)))


def _prepend(part: Part) -> Normalize:
    before = part.text("prepend")
    return lambda text: before + text if text else text


def _strip(part: Part) -> Normalize:
    left, right = part.flag("strip_left", True), part.flag("strip_right", True)

    def strip(text: str) -> str:
        text = text.lstrip(WHITE) if left else text
        return text.rstrip(WHITE) if right else text

    return strip


def _bert(part: Part) -> Normalize:
    lower = part.flag("lowercase", True)
    clean, spaced, bare = (
        part.flag("clean_text", True),
        part.flag("handle_chinese_chars", True),
        part.flag("strip_accents", lower),
    )

    def normalize(text: str) -> str:
        if clean:
            text = "".join(" " if c in WHITE else c for c in text if c in "\t\n\r" or not _is_control(c))
        if spaced and not text.isascii():
            text = "".join(f" {c} " if _is_ideograph(c) else c for c in text)
        if bare and not text.isascii():
            text = without_marks(unicodedata.normalize("NFD", text))
        return lowered(text) if lower else text

    return normalize


def _is_control(character: str) -> bool:
    return character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs")


def _is_ideograph(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in IDEOGRAPHS)


STEPS: dict[str, Callable[[Part], Normalize]] = {
    **{form: _unicode(form) for form in ("NFC", "NFD", "NFKC", "NFKD")},
    "Lowercase": lambda _: lowered,
    "StripAccents": lambda _: without_marks,
    "ByteLevel": lambda _: spelled,
    "Replace": _replace,
    "Prepend": _prepend,
    "Strip": _strip,
    "BertNormalizer": _bert,
    "Precompiled": read_charsmap,
}
