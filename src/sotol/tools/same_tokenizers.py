"""Whether two tokenizers are one: the same ids of a text in which all known ways differ, the same bytes for each id."""

from sotol.tokenizers.tokenizer import Tokenizer
from sotol.tools.pretokenizer_names import PROBE

__all__ = ["UNKNOWN_TOKENS", "known_part", "tokenizer_difference"]

UNKNOWN_TOKENS = "a run of characters without tokens is one unknown token in tokenizer.json, one for each byte in GGUF"
SHORT = (" ", "a", " a", "\n\n")  # texts that begin or end in another way


def tokenizer_difference(one: Tokenizer, other: Tokenizer, text: str = PROBE) -> str:
    """How the other differs, as a part of a sentence; "" if it does not. What comes around texts is not looked at."""
    for part in (text, *(short for short in SHORT if set(short) <= set(text))):
        ours, theirs = (each.encode(part, add_special=False) for each in (one, other))
        if ours != theirs:
            same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))
            return f"{one.decode(ours[max(0, same - 2) : same + 3])!r:.60} would have other ids"
    for token in range(min(len(one), len(other))):
        data, others = one.token_bytes(token), other.token_bytes(token)
        if data != others:
            return f"token {token} would be {others!r:.60}, not {data!r:.60}"
    return ""


def known_part(tokenizer: Tokenizer, text: str = PROBE) -> str:
    """The characters of a text that have tokens of their own: others differ where a vocabulary has none for bytes."""
    return "".join(character for character in text if character == " " or tokenizer.id_of(character) is not None)
