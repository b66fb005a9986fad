"""JSON schemas: what is accepted is valid whatever a model would say; what is not supported is refused, and named.

The judge is `jsonschema`, with exact decimal numbers. `make fuzz` does the same with the official test suite.
"""

import json
import random
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.fuzz.fuzz_constrain import invalid
from tests.support.api_schemas import API_SCHEMAS
from tests.support.random_answers import random_answer
from tests.support.random_model import random_model
from tests.support.scripted import scripted_model

from sotol import LLM, Sampling
from sotol.engine.constrain import Constraint, Grammars
from sotol.engine.schemas import prepared, schema_text

MODEL = scripted_model("")
GRAMMARS = Grammars(MODEL.tokenizer)


def compiled(schema: Any) -> Constraint:
    constraint = GRAMMARS.compile(Sampling(schema=schema))
    assert constraint is not None
    return constraint


def complete(schema: Any, count: int, most: int = 300) -> list[str]:
    """Random answers, those that were complete in time."""
    constraint, rng = compiled(schema), random.Random(1)
    answers = [random_answer(constraint, MODEL.tokenizer, rng, most=most) for _ in range(count)]
    return [one for one in answers if one is not None]


def some(**keywords: Any) -> dict[str, Any]:
    return {"type": "object", **keywords}


WHOLE, TEXT, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}
SCHEMAS: list[dict[str, Any]] = [
    {},
    some(),
    some(minProperties=1),
    some(additionalProperties=WHOLE, maxProperties=2),
    some(additionalProperties=False),
    some(properties={"a": WHOLE}, patternProperties={"^a": {"minimum": 5}}, additionalProperties=False),
    some(properties={"a": WHOLE}, patternProperties={"^.$": {"minimum": 5}}),
    some(properties={"a\nb": WHOLE, 'q"': NULL, "é": NULL, "\x7f": NULL, "\u2028": NULL}, additionalProperties=TEXT),
    some(required=["a", "b"], properties={"a": {}}, additionalProperties=WHOLE, minProperties=3),
    some(properties={"const": TEXT, "enum": WHOLE, "pattern": {"type": "boolean"}}, required=["pattern"]),
    some(properties={"a": False, "b": True}, required=["b"]),
    some(const={"a": 1}),
    {"type": "integer", "minimum": -3, "maximum": 12},
    {"type": "integer", "exclusiveMaximum": 12.5, "exclusiveMinimum": 3},
    {"type": "number", "minimum": -3.25, "maximum": 0.125},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    {"type": "number", "multipleOf": 0.25, "minimum": -1, "maximum": 3},
    {"type": "number", "multipleOf": 0.1},
    {"type": "integer", "multipleOf": 7, "minimum": 10},
    {"type": "integer", "minimum": 10**15},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "pattern": "^[a-c]{2,3}$"},
    {"type": "string", "pattern": "^\\S{1,9}$"},
    {"type": "string", "pattern": '^[^"\\\\]*$'},
    {"type": "string", "pattern": "^[\\x00-!]$"},
    {"type": "string", "pattern": "^([^ -~]|a)+$"},
    {"type": "string", "pattern": '^[^a-z"]{1,3}$'},
    {"type": "string", "pattern": "^\\/[\\\\/]$"},
    {"type": "string", "pattern": "^\\u0041\\x42.\\D$"},
    some(patternProperties={'^[^"]$': WHOLE}, additionalProperties=False),
    {"type": "array", "items": WHOLE, "minItems": 1, "maxItems": 3},
    {"type": "array", "items": True, "maxItems": 2},
    {"type": "array", "prefixItems": [WHOLE, TEXT], "items": False},
    {"prefixItems": [WHOLE], "items": NULL, "minItems": 1},
    {"enum": [1, 1.0, "a", None, {"a": [1, 2]}, [True]]},
    {"const": {"a": {"b": 1.5}, "c": []}},
    {"const": 1e10},
    {"const": '\x00\x1f\x7f\u2028\U0001f600"\\/'},
    {"type": ["string", "null", "integer"], "minimum": 3, "minLength": 1},
    {"oneOf": [WHOLE, TEXT]},
    {"anyOf": [WHOLE, {"type": "number", "minimum": 4}]},
    {"oneOf": [some(properties={"k": {"const": c}}, required=["k"]) for c in "ab"]},
    {"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 9}]},
    {"allOf": [{"type": "string", "pattern": "^ab?c?$"}, {"pattern": "c"}]},
    {"allOf": [some(properties={c: WHOLE}, required=[c]) for c in "ab"]},
    {
        "$defs": {"n": some(properties={"v": {"anyOf": [{"$ref": "#/$defs/n"}, NULL]}}, required=["v"])},
        "$ref": "#/$defs/n",
    },
    {"$ref": "#/$defs/a", "$defs": {"a": WHOLE}, "minimum": 3},
    {"definitions": {"a/b": NULL}, "$ref": "#/definitions/a~1b"},
    {"minimum": 3},
    {"minLength": 3},
    {"maxItems": 1},
    {"required": ["a"]},
    {"pattern": "^a"},
    {"format": "date"},
    {"type": "integer", "enum": [1, 2, 30], "maximum": 5},
    {"title": "t", "description": "d", "default": 1, "examples": [2]},
    *({"type": "string", "format": name} for name in ("date", "time", "date-time", "uuid", "ipv4", "ipv6", "email")),
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
def test_whatever_a_model_says_is_valid(schema: dict[str, Any]) -> None:
    answers = complete(schema, 25, most=150)
    assert answers
    for answer in answers:
        assert invalid(schema, answer) is None


@pytest.mark.parametrize("name", API_SCHEMAS)
def test_schemas_of_real_apis(name: str) -> None:
    schema = API_SCHEMAS[name]
    Draft202012Validator.check_schema(schema)
    answers = complete(schema, 6, most=900)
    assert answers
    for answer in answers:
        assert invalid(schema, answer) is None


def test_an_engine_with_many_of_them() -> None:
    """Through all of sotol: a batch of answers to each of some schemas, of which those that end are valid."""
    ended = 0
    with LLM(random_model()) as llm:
        for name in list(API_SCHEMAS)[::8]:
            answers = llm.generate("x", n=8, seed=1, max_tokens=300, temperature=1, top_k=0, min_p=0, top_p=1,
                                   schema=API_SCHEMAS[name])  # fmt: skip
            for answer in answers:
                if answer.finish_reason == "stop":
                    ended += 1
                    assert invalid(API_SCHEMAS[name], answer.text) is None
                else:
                    assert len(answer.tokens) == 300
    assert ended > 50


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"uniqueItems": True}, 'schema at #: "uniqueItems" is not supported'),
        (
            some(properties={"a/b": {"items": {"anyOf": [{}, {"not": {}}]}}}),
            'schema at #/properties/a~1b/items/anyOf/1: "not"',
        ),
        ({"if": {}, "then": {}}, 'schema at #: "if" and "then" are not supported'),
        ({"$defs": {"a": {"contains": {}}}, "properties": {"b": {"$ref": "#/$defs/a"}}}, '"contains" is not supported'),
        (some(propertyNames={"pattern": "a"}), '"propertyNames" is not supported'),
        (some(dependentRequired={"a": ["b"]}), '"dependentRequired" is not supported'),
        (some(unevaluatedProperties=False), '"unevaluatedProperties" is not supported'),
        ({"$dynamicRef": "#a"}, '"$dynamicRef" is not supported'),
        (some(minProperties=2), "schema at #: minProperties 2 is not supported: keys may repeat"),
        (some(properties={"a": some(minProperties=3, required=["a"])}), "schema at #/properties/a: minProperties 3"),
        ({"oneOf": [WHOLE, {"type": "number"}]}, "schema at #: oneOf constraints are not supported"),
        ({"type": "string", "format": "regex"}, "schema at #: Unknown format: regex"),
        ({"type": "string", "pattern": "^(?!a)"}, "schema at #: regex parse error"),
        (
            {"type": "string", "pattern": "\\p{Cc}"},
            "schema at #/pattern: a class of control characters is not supported",
        ),
        ({"type": "text"}, "schema at #: Invalid type: text"),
        ({"properties": {"a": {"type": 7}}}, "schema at #/properties/a: type must be"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "schema at #: Unsatisfiable schema"),
        ({"$ref": "#/$defs/x"}, "schema at #: Pointer '/$defs/x' does not exist"),
        ({"$ref": "http://example.org/x"}, "schema at #: Resource 'http://example.org/x'"),
        ({"x-guidance": {"lenient": True}}, "schema: x-guidance is not supported"),
        ("{", "schema is not JSON: Expecting property name"),
        ('{"minimum": NaN}', "schema is not JSON: NaN is no number of JSON"),
        ("[1]", "schema is '[1]'; it must be an object"),
        ('{"a":' * 500 + "1" + "}" * 500, "schema has more than 100 lists and objects in each other"),
        ('{"a":' * 100_000, "schema is not JSON"),
        (f'{{"a": "{"b" * (1 << 20)}"}}', "characters; it may have 1048576"),
        ({"enum": [f"{i}{i}" for i in range(70_000)]}, "schema at #: it is too large"),
        ({"minimum": float("nan")}, "schema is not JSON"),
        ({"const": {1, 2}}, "schema is not JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused_is_named(schema: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        compiled(schema)


def test_a_schema_that_contains_itself() -> None:
    schema: dict[str, Any] = {"properties": {}}
    schema["properties"]["a"] = schema
    with pytest.raises(ValueError, match="more than 100 lists and objects in each other"):
        compiled(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "minItems": 10**6, "items": WHOLE},
        some(properties={f"p{i}": {"type": "string", "pattern": "^.*a.{20}$"} for i in range(500)}),
        {"allOf": [{"anyOf": [some(properties={f"a{i}{j}": TEXT}) for j in range(4)]} for i in range(8)]},
        {
            "$defs": {
                "a0": WHOLE,
                **{f"a{i + 1}": {"allOf": [{"$ref": f"#/$defs/a{i}"}, {"$ref": f"#/$defs/a{i}"}]} for i in range(25)},
            },
            "$ref": "#/$defs/a25",
        },
        {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$", "minLength": 500, "maxLength": 1000},
        {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_bombs_do_not_go_off(schema: dict[str, Any]) -> None:
    """They are refused, or a mask can be had."""
    try:
        constraint = compiled(schema)
    except ValueError:
        return
    assert constraint.matcher().mask() is not None


def test_values_are_left_as_they_are() -> None:
    schema = some(const={"pattern": '[^"]', "minProperties": 9}, properties={"pattern": {"pattern": '[^"]'}})
    ready = prepared(json.loads(schema_text(schema)))
    assert ready["const"] == schema["const"]
    assert ready["properties"]["pattern"]["pattern"] == r'[[^"]&&[^\x00-\x1f\x7f]]'
    untouched = [r"[a-z]", r"[^/]", r"\[[^/]\]", r"\d+", r"[\s\S]", r"[^/][\x00-\x7f]"]
    for pattern in untouched:
        assert prepared({"pattern": pattern})["pattern"] == pattern


def test_white_space_has_an_end() -> None:
    assert re.fullmatch(r'\{\s{0,34}"a"\s{0,34}:\s{0,34}1\s{0,34}\}', complete(some(const={"a": 1}), 1)[0])
    matcher = compiled({"type": "array", "items": WHOLE}).matcher()
    ids = MODEL.tokenizer.encode("[" + " " * 3)
    for token in ids[:-1]:
        matcher.accept(token)
    mask = matcher.mask()
    assert mask is not None
    assert mask[ids[-1]] < 0
