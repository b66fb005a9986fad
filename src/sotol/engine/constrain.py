"""Constrained output: compiled grammars, and how far a request has come in one. Knows nothing of steps.

A `Grammars` belongs to a model. It compiles what a request asks for to a `Constraint`, which it keeps for later
requests, and a constraint gives each request its own `Matcher`. A grammar says which bytes may follow, and llguidance's
trie of the vocabulary which tokens spell them (Koo, Liu and He 2024, arXiv 2407.08103, describe the idea). Tokens that
answers do not show are never allowed, unless a grammar names them; those that end one are, where the grammar may end.
"""

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sotol.arrays import Float32Array, Int64Array
from sotol.engine.options import Sampling
from sotol.errors import SotolError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from sotol.engine.grammars import Around, Asked
    from sotol.tokenizers import Tokenizer

__all__ = ["Constraint", "Grammars", "Matcher"]

KEPT = 64  # compiled grammars, whose texts together have at most KEPT_CHARACTERS
KEPT_CHARACTERS = 8 << 20
# llguidance's own limits let an expression of twenty characters take seconds and hundreds of MB. The costs of the lexer
# when a grammar is compiled, and in a step (some 14,000 take a millisecond); items of the parser in a step (20,000 do).
FUEL, STEP_FUEL, STEP_ITEMS, STATES = 200_000, 150_000, 50_000, 50_000


# Eight bits of a mask, the lowest first, as what is added to eight logits: 0, or -inf for a token that may not come.
ADDED = np.where(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0, -np.inf)
ADDED = ADDED.astype(np.float32)  # [256, 8]


class Matcher:
    """One request's place in a grammar. Not for two threads at a time."""

    def __init__(self, state: "LLMatcher", vocabulary: int, ends: Int64Array, *, insist: bool) -> None:
        """vocabulary: tokens have ids below it. ends: those that end an answer. insist: only where nothing else may."""
        self._state, self._vocabulary, self._insist = state, vocabulary, insist
        self._bits = np.zeros(4 * (vocabulary // 32 + 1), np.uint8)  # for one token more, see `_Vocabulary`
        self._others = np.full(len(self._bits), 255, np.uint8)  # tokens that end no answer
        np.bitwise_and.at(self._others, ends // 8, ~(1 << ends % 8).astype(np.uint8))
        self._others[vocabulary // 8] &= (1 << vocabulary % 8) - 1
        self._others[vocabulary // 8 + 1 :] = 0

    @property
    def over(self) -> bool:
        """Whether the answer is complete, and nothing may follow it."""
        return bool(self._state.is_stopped() and self._state.is_accepting())

    def mask(self) -> Float32Array | None:
        """What to add to logits [V]: 0 for tokens that may come next, -inf for others; None: the answer is complete,
        and nothing may follow it.

        Other threads run meanwhile. SotolError if llguidance gives up, or no token spells what must follow.
        """
        self._state.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        others = self._bits & self._others
        if not others.any():
            if self._state.is_accepting():
                return None
            raise SotolError("no token of the vocabulary can continue the answer as its grammar demands")
        return ADDED.take(others if self._insist else self._bits, axis=0).reshape(-1)[: self._vocabulary]

    def accept(self, token: int) -> None:
        """Go on by a token that was allowed; SotolError if it was not, or llguidance gives up."""
        self._state.consume_token(token)
        self._check()

    def forced(self) -> list[int]:
        """Go on by the tokens of which there is no choice, as the model's tokenizer writes what must follow."""
        tokens: list[int] = self._state.compute_ff_tokens()
        if tokens:
            self._state.consume_tokens(tokens)
        self._check()
        return tokens

    def _check(self) -> None:
        if self._state.is_error():
            from sotol.engine.grammars import readable  # noqa: PLC0415  (as below)

            raise SotolError(f"the answer can't go on within its grammar: {readable(self._state.get_error())}")


class Constraint(NamedTuple):
    """A compiled grammar. Any number of requests and threads may share it."""

    state: "LLMatcher"  # at its beginning; only copied
    vocabulary: int
    ends: Int64Array

    def matcher(self, *, insist: bool = False) -> Matcher:
        """For a request. insist: its answer ends only where nothing else may follow."""
        return Matcher(self.state.deep_copy(), self.vocabulary, self.ends, insist=insist)


class Grammars:
    """The grammars of a model's requests; threads may share it."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._kept: OrderedDict[Asked, Constraint] = OrderedDict()
        self._trie: LLTokenizer | None = None

    def compile(self, sampling: Sampling, around: "Around | None" = None) -> Constraint | None:
        """What constrains an answer; None: nothing does. It may take a tenth of a second, and is kept for later.

        around: what the answer has besides what `sampling` says; calls that must be count more than that. ValueError
        names the option, and the place in it, that is malformed, not supported, or too large.
        """
        if not sampling.constrained and (around is None or not around.must):
            return None
        from sotol.engine.grammars import NOTHING, asked  # noqa: PLC0415  (a start is quicker without)

        wanted = asked(sampling, around or NOTHING)
        if wanted is None:
            return None
        with self._lock:
            if (known := self._kept.get(wanted)) is not None:
                self._kept.move_to_end(wanted)
                return known
        made = self._compile(wanted)
        with self._lock:
            self._kept[wanted] = made
            while len(self._kept) > 1 and (len(self._kept) > KEPT or self._characters() > KEPT_CHARACTERS):
                self._kept.popitem(last=False)
        return made

    def _characters(self) -> int:
        return sum(len(wanted.text) + len(wanted.around.calls or "") for wanted in self._kept)

    def _compile(self, wanted: "Asked") -> Constraint:
        from sotol.engine.grammars import grammar_of, refusal  # noqa: PLC0415  (as above)

        grammar, trie = grammar_of(wanted), self._tokens()
        state = _matcher(trie, grammar)
        ends = np.array(sorted(self._tokenizer.end_of_generation), np.int64)
        constraint = Constraint(state, len(self._tokenizer), ends)
        # The first mask is the dearest, and finds what can have no answer at all. Copies begin with what it learns.
        begun = Matcher(state, *constraint[1:], insist=False)
        try:
            empty = state.is_error() or begun.mask() is None
        except SotolError:
            empty = True
        if empty:
            error = (
                state.get_error() if state.is_error() else "it allows no answer that begins with a token of the model"
            )
            raise refusal(wanted, error, lambda part: _matcher(trie, part).get_error())
        return constraint

    def _tokens(self) -> "LLTokenizer":
        """The vocabulary as llguidance's trie."""
        with self._lock:
            if self._trie is None:
                self._trie = _trie(self._tokenizer)
            return self._trie


class _Vocabulary:
    """A tokenizer as llguidance wants one: these names are its own."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        ids = range(len(tokenizer))
        self.special_token_ids = [i for i in ids if not tokenizer.token_bytes(i)]
        self.tokens = [tokenizer.token_bytes(i) or tokenizer.token_bytes(i, special=True) for i in ids]
        self.tokens.append(b"<end>")  # beyond the vocabulary, for one that has no token to end an answer
        self.special_token_ids.append(len(ids))
        self.bos_token_id = tokenizer.bos
        self.eos_token_id = len(ids)

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False, continued=True)


def _trie(tokenizer: "Tokenizer") -> "LLTokenizer":
    from llguidance import LLTokenizer  # noqa: PLC0415  (only where an answer is constrained)

    vocabulary = _Vocabulary(tokenizer)
    ends = sorted(tokenizer.end_of_generation) or [vocabulary.eos_token_id]
    return LLTokenizer(vocabulary, n_vocab=len(vocabulary.tokens), eos_token=ends)  # type: ignore[arg-type]  # as it is


def _matcher(trie: "LLTokenizer", grammar: str) -> "LLMatcher":
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415  (as above)

    limits = LLParserLimits(
        initial_lexer_fuel=FUEL,
        step_lexer_fuel=STEP_FUEL,
        step_max_items=STEP_ITEMS,
        max_lexer_states=STATES,
        verbose_errors=False,
    )
    return LLMatcher(trie, grammar, log_level=0, limits=limits)
