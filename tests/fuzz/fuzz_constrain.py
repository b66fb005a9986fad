"""Random answers under JSON schemas are valid, and what is not supported is refused: with the official test suite.

    python -m tests.fuzz.fuzz_constrain --seconds 60 [--cases N] [--suite FOLDER]

The suite (github.com/json-schema-org/JSON-Schema-Test-Suite) comes with the source distribution of `jsonschema`, in
`json/tests`; `make fuzz` gets that. Without it, the schemas are those of `tests/support/api_schemas.py` alone.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from time import monotonic
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from tests.support.api_schemas import API_SCHEMAS
from tests.support.random_answers import random_answer
from tests.support.scripted import scripted_model

from sotol import Sampling
from sotol.engine.constrain import Grammars

__all__ = ["invalid", "main"]

DRAFT = "draft2020-12"


def invalid(schema: Any, answer: str) -> str | None:
    """Why an answer is not what a schema describes; numbers are decimal, as they are written."""
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    validator = Draft202012Validator(exact, format_checker=Draft202012Validator.FORMAT_CHECKER)
    try:
        value = json.loads(answer, parse_float=Decimal)
    except ValueError as error:
        return f"no JSON: {error}"
    with localcontext(prec=2000, Emax=10**9, Emin=-(10**9)):  # remainders of huge numbers are exact, too
        return next((str(error.message) for error in validator.iter_errors(value)), None)


def schemas(suite: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and schemas."""
    yield from API_SCHEMAS.items()
    for path in sorted(suite.rglob(f"tests/{DRAFT}/*.json")) if suite else ():
        for case in json.loads(path.read_text(encoding="utf-8")):
            if isinstance(case["schema"], dict):
                yield f"{path.stem}: {case['description']}", case["schema"]


def main() -> int:
    """Draw answers until the time is over; 1 if one was not valid."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, help="draw so many, however long it takes")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--suite", type=Path)
    options = parser.parse_args()
    model, rng = scripted_model(""), random.Random(options.seed)
    grammars, counts, begun = Grammars(model.tokenizer), Counter[str](), monotonic()
    accepted, refused = list[tuple[str, dict[str, Any]]](), Counter[str]()
    for name, schema in schemas(options.suite):
        try:
            grammars.compile(Sampling(schema=schema))
            accepted.append((name, schema))
        except ValueError as error:
            refused[str(error).partition(": ")[2]] += 1
    while counts.total() < options.cases if options.cases else monotonic() - begun < options.seconds:
        name, schema = rng.choice(accepted)
        constraint = grammars.compile(Sampling(schema=schema))
        assert constraint is not None
        answer = random_answer(constraint, model.tokenizer, rng, most=rng.choice([30, 100, 600]))
        counts["complete" if answer is not None else "cut"] += 1
        try:
            why = None if answer is None else invalid(schema, answer)
        except SchemaError as error:
            why = f"the judge refuses the schema: {error.message}"
        if why is not None:
            print(f"seed {options.seed}: {name}: {json.dumps(schema)}\n{answer!r}\n{why}")  # noqa: T201
            return 1
    tried, rate = counts.total(), counts.total() / (monotonic() - begun)
    print(f"{len(accepted)} schemas; refused: {dict(refused)}")  # noqa: T201
    print(f"fuzz_constrain: {tried} cases, {counts['complete']} complete, 0 broken promises, {rate:.0f} cases a second")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
