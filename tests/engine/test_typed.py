"""Python types as JSON schemas, and answers as their objects."""

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NotRequired, Optional, TypedDict

import pytest
from jsonschema import Draft202012Validator

from sotol.engine.typed import object_of, schema_of


class Colour(Enum):
    """An enumeration."""

    RED = "red"
    BLUE = 2


class Size(TypedDict):
    """A typed dictionary."""

    width: int
    depth: NotRequired[float]


@dataclass
class Part:
    """A class within others, and itself."""

    name: str
    size: Size | None = None
    parts: list["Part"] = field(default_factory=list)


@dataclass(frozen=True)
class Thing:
    """All kinds of fields."""

    label: str
    count: int
    weight: float
    ready: bool
    kind: Literal["a", "b", 3]
    colour: Colour
    root: Part
    either: int | str
    maybe: Optional[str]  # noqa: UP045  (both ways to say so)
    names: list[str]
    sizes: dict[str, Size]
    anything: Any
    nothing: None = None
    hidden: int = field(default=7, init=False)


VALUE = {
    "label": "x", "count": 3, "weight": 2, "ready": True, "kind": 3, "colour": "red", "either": "5", "maybe": None,
    "root": {"name": "r", "size": {"width": 1}, "parts": [{"name": "p"}]}, "names": ["a"],
    "sizes": {"s": {"width": 2, "depth": 0.5}}, "anything": [1, {"a": None}],
}  # fmt: skip


def test_a_schema_says_what_a_class_says() -> None:
    schema = schema_of(Thing)
    Draft202012Validator.check_schema(schema)
    judge = Draft202012Validator(schema)
    judge.validate(VALUE)
    assert schema["required"] == [name for name in schema["properties"] if name != "nothing"]
    assert "hidden" not in schema["properties"]
    for name, wrong in [
        ("label", 1), ("count", 1.5), ("ready", 1), ("kind", "c"), ("colour", "green"), ("either", 1.5), ("maybe", 1),
        ("root", {}), ("root", {"name": "a", "size": {"depth": 1.0}}), ("names", [1]), ("sizes", {"s": {}}),
        ("nothing", 0), ("more", 1),
    ]:  # fmt: skip
        assert not judge.is_valid({**VALUE, name: wrong}), name


def test_an_answer_is_an_object() -> None:
    thing = object_of(Thing, json.dumps(VALUE))
    part = Part("r", {"width": 1}, [Part("p")])
    assert thing == Thing(
        "x", 3, 2.0, True, 3, Colour.RED, part, "5", None, ["a"], {"s": {"width": 2, "depth": 0.5}}, [1, {"a": None}]
    )
    assert type(thing.weight) is float
    assert object_of(Size, '{"width": 3.0}') == {"width": 3}
    assert type(object_of(Size, '{"width": 3.0}')["width"]) is int


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": "3"}, "Thing.count is '3', not int"),
        ({"ready": 1}, "Thing.ready is 1, not bool"),
        ({"kind": True}, "Thing.kind is True, none of"),
        ({"root": {}}, "Thing.root has not its field name"),
        ({"root": 1}, "Thing.root is 1, not an object"),
        ({"names": "a"}, "Thing.names is 'a', not a list"),
        ({"either": 1.5}, "Thing.either is 1.5, which fits none of its types"),
        ({"colour": "green"}, "'green' is not a valid Colour"),
        ({"more": 1}, "Thing has no field 'more'"),
    ],
)
def test_what_is_no_such_object(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        object_of(Thing, json.dumps({**VALUE, **changed}))


def test_types_without_a_schema() -> None:
    @dataclass
    class Odd:
        when: complex

    @dataclass
    class Keys:
        of: dict[int, str]

    with pytest.raises(ValueError, match=r"schema: Odd\.when is <class 'complex'>, which has no JSON schema here"):
        schema_of(Odd)
    with pytest.raises(ValueError, match=r"schema: Keys\.of is"):
        schema_of(Keys)
    with pytest.raises(ValueError, match="schema is int; a class must be a Pydantic model, a dataclass or a TypedDict"):
        schema_of(int)


def test_two_classes_of_one_name() -> None:
    def other() -> type:
        @dataclass
        class Part:
            n: int

        return Part

    holder: Any = dataclass(type("Holder", (), {"__annotations__": {"a": Part, "b": other()}}))
    with pytest.raises(ValueError, match=r"schema: Holder\.b has a second class of the name Part"):
        schema_of(holder)
