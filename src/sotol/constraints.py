"""What constrains an answer: the options of a request, and of a conversation's turn how it must call, and may think."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from sotol.answers.grammar import calls_grammar, parameters_of
from sotol.engine.constrain import Constraint, Grammars
from sotol.engine.grammars import Thinking, literal
from sotol.engine.options import Sampling
from sotol.engine.schemas import prepared, schema_text
from sotol.errors import plain
from sotol.prompts import Turn
from sotol.tokenizers import Tokenizer

__all__ = ["constraint_of"]


def constraint_of(
    grammars: Grammars, tokenizer: Tokenizer, sampling: Sampling, turn: Turn | None = None
) -> Constraint | None:
    """What an answer must be; None: anything. An answer that must call tools does, whatever `sampling` says besides.

    ValueError names the option or tool, and the place in it, that is malformed, not supported, or too large.
    """
    if turn is None:
        return grammars.compile(sampling)
    thinking = None
    if turn.format.thinking:
        marks = [
            (tuple(tokenizer.shown(pair.open)), tuple(tokenizer.shown(pair.close))) for pair in turn.format.thinking
        ]
        thinking = Thinking(tuple(marks), turn.thinking)
    if turn.tool_choice.mode != "required":
        return grammars.compile(sampling, thinking=thinking)
    mark = partial(_mark, tokenizer)
    calls = calls_grammar(turn.format, turn.callable, parallel=turn.parallel, mark=mark, json=_json)
    try:
        return grammars.compile(sampling, thinking=thinking, calls=calls)
    except ValueError:
        for tool in turn.callable:  # whose parameters are it?
            try:
                grammars.compile(Sampling(schema=parameters_of(tool)))
            except ValueError as error:
                raise ValueError(f"tools: {plain(tool.name, 60)}: {error}") from None
        raise


def _parts(tokenizer: Tokenizer, text: str) -> tuple[str | int, ...]:
    return tuple(tokenizer.shown(text))


def _mark(tokenizer: Tokenizer, text: str) -> str:
    return literal(_parts(tokenizer, text))


def _json(schema: Mapping[str, Any]) -> str:
    """A JSON schema in Lark."""
    return f"%json {json.dumps(prepared(json.loads(schema_text(schema))))}"
