"""Answers that a constraint allows, drawn at random: for tests of what may be said at all, without an engine.

The tokenizer is that of `scripted.py`: ids below 256 are bytes.
"""

import random
from collections.abc import Sequence

import numpy as np

from sotol.engine.constrain import Constraint
from sotol.tokenizers import Tokenizer

__all__ = ["random_answer"]

# Bytes that end things are drawn more often than their share, so that most answers end.
ENDING = frozenset(b'"]}<')


def random_answer(
    constraint: Constraint, tokenizer: Tokenizer, rng: random.Random, *, phrases: Sequence[str] = (), most: int = 400
) -> str | None:
    """An answer, with the tokens that answers do not show; None if it is not complete after `most` tokens.

    phrases: what is said now and then where it may be, since chance alone would hardly spell it.
    """
    matcher, ids = constraint.matcher(), list[int]()
    ends = tokenizer.end_of_generation
    spelled = [tokenizer.encode(phrase, special=True, add_special=False) for phrase in phrases]
    planned: list[int] = []
    while len(ids) < most and not matcher.over:
        mask = matcher.mask()
        if mask is None:
            break
        if not planned and spelled and rng.random() < 0.1:
            planned = list(rng.choice(spelled))
        allowed = np.flatnonzero(mask == 0).tolist()
        allowed = [i for i in allowed if i < 256 or i in ends] or allowed  # marks where only they may be, or as phrases
        likely = [i for i in allowed if i in ends or i in ENDING]
        token = rng.choice(likely if likely and rng.random() < 0.4 else allowed)
        if planned and mask[planned[0]] == 0:
            token = planned.pop(0)
        else:
            planned = []
        if token in ends:
            break
        matcher.accept(token)
        ids += [token, *matcher.forced()]
    else:
        if not matcher.over:
            return None
    return tokenizer.decode(ids, special=True, continued=True)
