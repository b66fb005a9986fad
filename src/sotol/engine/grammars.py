"""What a request asks for as a grammar of llguidance, and llguidance's errors in words that name the option and place.

Keywords of a schema that say nothing about which values are valid are passed over, as its specification wants; one
that does and is not supported is an error.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from sotol.engine import schemas
from sotol.engine.options import Sampling
from sotol.errors import plain

__all__ = ["NOTHING", "Around", "Asked", "Mark", "Thinking", "asked", "grammar_of", "literal", "readable", "refusal"]

LONGEST = {"schema": schemas.LONGEST, "regex": 1 << 14, "grammar": 1 << 16, "calls": 4 << 20}  # characters
MEANINGS = {
    "NoExtension": "nothing can follow, and the answer is not complete",
    "ParserTooComplex": "it is too complex: a step would take too long",
    "LexerTooComplex": "its expressions are too complex: a step would take too long",
    "initial lexer configuration (grammar) too big": "it is too large",
}
GBNF = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)


Mark = tuple[str | int, ...]  # a fixed text; a number is a token that answers do not show


class Thinking(NamedTuple):
    """How a model writes what it thinks before it answers: between one of these pairs of marks, or not at all.

    begun: the prompt has opened a pair already. behind: what stands behind a pair.
    """

    pairs: tuple[tuple[Mark, Mark], ...]
    begun: bool = False
    behind: Mark = ()


class Around(NamedTuple):
    """What an answer to a conversation has besides what its options say it must be.

    thinking: how the model thinks before. said: marks around what it says. calls: a grammar of tool calls in Lark, and
    must: whether the answer must be such calls, or may as well be what the options say. lead: what stands before calls.
    """

    thinking: Thinking | None = None
    said: tuple[Mark, Mark] = ((), ())
    calls: str | None = None
    must: bool = False
    lead: str = ""


NOTHING = Around()


class Asked(NamedTuple):
    """What constrains an answer. kind: an option's name, or "calls". text: its value as text; of a schema, JSON."""

    kind: str
    text: str
    around: Around = NOTHING


def asked(sampling: Sampling, around: Around) -> Asked | None:
    """What a request asks for; None if its answer is free. ValueError if that is too large, or no schema."""
    if around.calls is not None and around.must:
        kind, text = "calls", around.calls
    elif sampling.regex is not None:
        kind, text = "regex", sampling.regex
    elif sampling.grammar is not None:
        kind, text = "grammar", sampling.grammar
    elif sampling.json:
        kind, text = "schema", '{"type": "object"}'
    elif sampling.schema is not None:
        kind, text = "schema", schemas.schema_text(sampling.schema)
    else:
        return None
    if len(text) > LONGEST[kind]:
        raise ValueError(f"{kind} has {len(text)} characters; it may have {LONGEST[kind]}")
    if len(around.calls or "") > LONGEST["calls"]:
        raise ValueError(
            f"tools have {len(around.calls or '')} characters as a grammar; they may have {LONGEST['calls']}"
        )
    return Asked(kind, text, around)


def grammar_of(wanted: Asked) -> str:
    """For llguidance. ValueError for what is not even one of GBNF."""
    grammars, around = [{"name": "answer", **_body(wanted)}], wanted.around
    if around.calls is not None and not around.must:
        grammars.append({"name": "calls", "lark_grammar": around.calls})
    if around != NOTHING:
        grammars.insert(0, {"lark_grammar": _around(around)})
    return json.dumps({"grammars": grammars})


def _body(wanted: Asked) -> dict[str, Any]:
    from llguidance import LLMatcher  # noqa: PLC0415  (only where an answer is constrained)

    if wanted.kind == "schema":
        return {"json_schema": schemas.prepared(json.loads(wanted.text))}
    if wanted.kind == "regex":
        whole: dict[str, Any] = json.loads(LLMatcher.grammar_from_regex(wanted.text))["grammars"][0]
        return {"lark_grammar": whole["lark_grammar"]}
    return {"lark_grammar": _lark(wanted.text) if wanted.kind == "grammar" else wanted.text}


def _lark(text: str) -> str:
    """A grammar of either kind as one of Lark."""
    if not GBNF.search(text):
        return text
    from llguidance.gbnf_to_lark import gbnf_to_lark  # noqa: PLC0415  (as above)

    try:
        return gbnf_to_lark(text)
    except RecursionError:
        raise ValueError("grammar: its parentheses are nested too deeply") from None
    except Exception as error:  # noqa: BLE001  (it raises all kinds)
        raise ValueError(f"grammar: {plain(error)}") from None


def literal(mark: Mark) -> str:
    """A fixed text in Lark; "" is nothing."""
    return " ".join(f"<[{part}]>" if isinstance(part, int) else json.dumps(part, ensure_ascii=False) for part in mark)


def _around(around: Around) -> str:
    """Thoughts, if the model has any, and then the answer, or calls."""
    before, after = map(literal, around.said)
    if around.must:
        body = f"{around.lead} @answer"
    elif around.calls is None:
        body = f"{before} @answer {after}"
    else:
        body = f"({before} @answer {after} | {around.lead} @calls)"
    if (thinking := around.thinking) is None:
        return f"start: {body}"
    rules, thoughts = list[str](), list[str]()
    for i, (begin, end) in enumerate(thinking.pairs):
        thoughts.append(f"thought_{i}" if thinking.begun else f"SPACE {literal(begin)} thought_{i}")
        if len(end) == 1 and isinstance(end[0], str):
            rules.append(f"thought_{i}[suffix={literal(end)}]: /(?s:.*)/")
        else:
            rules.append(f"thought_{i}: /(?s:.*)/ {literal(end)}")
    thought = f"({' | '.join(thoughts)}) {literal(thinking.behind)} BREAKS"
    start = f"start: {thought if thinking.begun else f'({thought})?'} {body}"
    return "\n".join([start, *rules, r"SPACE: /[ \t\r\n]{0,8}/", r"BREAKS: /[\r\n]{0,8}/"])


# ---- errors


def readable(error: str) -> str:
    """An error of llguidance in one line, without the state of its parser."""
    said = plain(error.partition("\n<")[0])
    return next((meaning for name, meaning in MEANINGS.items() if said.startswith(name)), said)


def refusal(wanted: Asked, error: str, error_of: Callable[[str], str]) -> ValueError:
    """Why a grammar is not accepted. error: what llguidance says. error_of: what it says of another grammar, or ""."""
    if wanted.kind == "schema":
        path, error = schemas.place_of_error(
            json.loads(wanted.text), error, lambda part: error_of(grammar_of(Asked("schema", json.dumps(part))))
        )
        return ValueError(f"schema at {plain(path)}: {_keywords(readable(error))}")
    if found := re.search(r"regex parse error:\n    (.*)\n    ( *)\^+(?:.*\n)+?error: (.*)", error):
        return ValueError(f"{wanted.kind}: {plain(found[3])}, at character {len(found[2]) + 1} of {plain(found[1])}")
    if found := re.search(r"lookarounds not supported yet; (\w+) in regex", error):
        return ValueError(f"{wanted.kind}: it looks around ({found[1]}): that is not supported within an expression")
    first = error.splitlines()[0] if error else error
    if wanted.kind == "grammar" and (found := re.match(r"(?:at )?(\d+)\((\d+)\): (.*)", first)):
        form = " of its Lark form" if GBNF.search(wanted.text) else ""
        return ValueError(f"grammar: {plain(found[3])}, at line {found[1]}, column {found[2]}{form}")
    return ValueError(f"{wanted.kind}: {readable(error)}")


def _keywords(error: str) -> str:
    if found := re.fullmatch(r"Unimplemented keys: \[(.*)\]", error):
        names = found[1].split(", ")
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not supported"
    return error
