"""The errors that a user of sotol can meet; each message is one sentence that says what is wrong and what to do."""

import re

__all__ = ["FormatError", "ModelError", "SotolError", "TemplateError", "plain"]

# What a terminal obeys, or what shows other text than there is: control characters (C0, DEL, C1), line and paragraph
# separators, marks and overrides of the writing direction (Unicode Standard Annex 9), tags, halves of surrogate pairs.
# A pattern that is compiled with the first error, not at each start.
UNSHOWN = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]+"


class SotolError(Exception):
    """Base of every error that sotol raises about files, models and machines (bad arguments raise ValueError)."""


class FormatError(SotolError):
    """A file that is not what it claims to be: names the file, the field and the offset."""


class ModelError(SotolError):
    """A well-formed model that can't be run: an unknown architecture, a missing weight, a wrong shape or encoding."""


class TemplateError(SotolError):
    """A chat template that fails, or a conversation that the model's template refuses."""


def plain(text: object, limit: int = 200) -> str:
    """What comes from outside (a file, a message, another library), as a sentence may quote it: one line, short.

    Runs of white space, control characters and direction marks become one space; what is longer than `limit`
    characters ends in "…". Looks only at the first 4 * `limit` characters.
    """
    whole = str(text)
    seen = whole[: 4 * limit]
    shown = " ".join(re.sub(UNSHOWN, " ", seen).split())
    return shown if len(shown) <= limit and len(seen) == len(whole) else shown[: limit - 1] + "…"
