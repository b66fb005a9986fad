"""Sets of characters as classes of regular expressions that are quick to compile and to match, however large."""

import re
from collections.abc import Iterable

__all__ = ["character_class"]

ASTRAL = "[\U00010000-\U0010ffff]"
FEW = 32  # characters beyond the Basic Multilingual Plane that a class lists


def character_class(characters: Iterable[str]) -> str:
    """What goes between the brackets of a class of these characters.

    Beyond the Basic Multilingual Plane, where `re` compares with one character after the other, many become all: the
    caller must bear a match with a character that is not among its own.
    """
    listed, astral = set[str](), set[str]()
    for character in characters:
        (listed if character < "\U00010000" else astral).add(character)
    if len(astral) > FEW:
        return "".join(map(re.escape, sorted(listed))) + ASTRAL[1:-1]
    return "".join(map(re.escape, sorted(listed | astral)))
