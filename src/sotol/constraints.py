"""What constrains an answer: the options of a request, and of a conversation's turn how it must call, and may think."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from sotol.answers.grammar import calls_grammar, parameters_of
from sotol.engine.constrain import Constraint, Grammars
from sotol.engine.grammars import Around, Mark, Thinking, literal
from sotol.engine.options import Sampling
from sotol.engine.schemas import prepared, schema_text
from sotol.errors import plain
from sotol.prompts import Turn
from sotol.tokenizers import Tokenizer

__all__ = ["constraint_of"]


def constraint_of(
    grammars: Grammars, tokenizer: Tokenizer, sampling: Sampling, turn: Turn | None = None
) -> Constraint | None:
    """What an answer must be; None: anything. One that must call tools does, whatever `sampling` says besides; one that
    may is what `sampling` says, or calls.

    ValueError names the option or tool, and the place in it, that is malformed, not supported, or too large.
    """
    if turn is None:
        return grammars.compile(sampling)
    must = turn.tool_choice.mode == "required"
    if not (must or sampling.constrained):
        return None
    around = _around(tokenizer, turn)
    may = turn.tool_choice.mode == "auto" and bool(turn.callable and turn.format.calls)
    if not (must or may):
        return grammars.compile(sampling, around)
    mark = partial(_mark, tokenizer)
    calls = calls_grammar(turn.format, turn.callable, parallel=turn.parallel, mark=mark, json=_json)
    try:
        return grammars.compile(sampling, around._replace(calls=calls, must=must))
    except ValueError:
        for tool in turn.callable:  # whose parameters are it?
            try:
                grammars.compile(Sampling(schema=parameters_of(tool)))
            except ValueError as error:
                raise ValueError(f"tools: {plain(tool.name, 60)}: {error}") from None
        if not must:
            grammars.compile(sampling, around)  # or the options?
        raise


def _around(tokenizer: Tokenizer, turn: Turn) -> Around:
    """Thoughts, and marks."""
    said, lead = _framed(tokenizer, turn)
    return Around(_thinking(tokenizer, turn), said, lead=lead)


def _thinking(tokenizer: Tokenizer, turn: Turn) -> Thinking | None:
    """How the model thinks before."""
    pairs = tuple((_parts(tokenizer, pair.open), _parts(tokenizer, pair.close)) for pair in turn.format.thinking)
    return Thinking(pairs, turn.thinking, _parts(tokenizer, turn.format.between)) if pairs else None


def _framed(tokenizer: Tokenizer, turn: Turn) -> tuple[tuple[Mark, Mark], str]:
    """The marks around what is said, of which the prompt may have begun one, and what they are before calls: nothing is
    said there, but some models say so.
    """
    before, after = turn.format.said
    marks = _parts(tokenizer, before.removeprefix(turn.format.begun)), _open(tokenizer, after)
    lead = literal(marks[1])
    return marks, f"({literal(marks[0])} {lead})?" if lead and before else lead


def _parts(tokenizer: Tokenizer, text: str) -> Mark:
    return tuple(tokenizer.shown(text))


def _open(tokenizer: Tokenizer, text: str) -> Mark:
    """The same without tokens that end the answer: they may follow wherever it is complete."""
    ends = tokenizer.end_of_generation
    return tuple(part for part in _parts(tokenizer, text) if part not in ends)


def _mark(tokenizer: Tokenizer, text: str) -> str:
    return literal(_open(tokenizer, text))


def _json(schema: Mapping[str, Any]) -> str:
    """A JSON schema in Lark."""
    return f"%json {json.dumps(prepared(json.loads(schema_text(schema))))}"
