"""Character classes for regular expressions that compile and match quickly, however many characters they have."""

import re
from collections.abc import Iterable

__all__ = ["character_class"]

ASTRAL = "[\U00010000-\U0010ffff]"
FEW = 32  # characters beyond the Basic Multilingual Plane that a class lists


def character_class(characters: Iterable[str]) -> str:
    """What goes between the brackets of a class of these characters.

    Beyond the Basic Multilingual Plane, `re` compares with one character after the other. So more than 32 characters
    there become the whole range, and the class may match characters that are not among those given.
    """
    listed, astral = set[str](), set[str]()
    for character in characters:
        (listed if character < "\U00010000" else astral).add(character)
    if len(astral) > FEW:
        return "".join(map(re.escape, sorted(listed))) + ASTRAL[1:-1]
    return "".join(map(re.escape, sorted(listed | astral)))
