"""White space, and character classes for regular expressions that are quick, however many characters they have."""

import re
from collections.abc import Iterable

__all__ = ["WHITE", "character_class"]

# White space as Unicode and Rust have it; Python's own has the separators U+001C to U+001F besides.
WHITE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

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
