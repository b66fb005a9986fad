"""Finding special tokens in text: one regular expression that matches the longest of many texts, in linear time.

The expression is a trie: texts with the same beginning share it, so a position costs at most the longest text, not one
try per text (vocabularies have thousands of special tokens).
"""

import re
from collections.abc import Iterable

from sotol.errors import FormatError

__all__ = ["longest_of"]

Node = dict[str, "Node"]  # the next characters; the empty string means that a text may end here


def longest_of(texts: Iterable[str], source: str) -> re.Pattern[str] | None:
    """A pattern with one group, to be used with `split`; None if there are no texts."""
    root: Node = {}
    for text in texts:
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node[""] = {}
    try:
        return re.compile(f"({_pattern(root)})") if root else None
    except RecursionError:
        raise FormatError(f"{source}: tokenizer.ggml.tokens has special tokens that are too long") from None


def _pattern(node: Node) -> str:
    chain = ""
    while len(node) == 1 and "" not in node:
        ((character, node),) = node.items()
        chain += re.escape(character)
    branches = [re.escape(character) + _pattern(rest) for character, rest in node.items() if character]
    if not branches:
        return chain
    return f"{chain}(?:{'|'.join(branches)}){'?' if '' in node else ''}"
