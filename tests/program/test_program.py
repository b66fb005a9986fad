"""Recording: errors name what does not fit a rule, and programs have a readable text form."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from sotol.arrays import Array
from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint, Weight
from sotol.models.binding.bind import Name
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Model, StepSymbols, trace
from sotol.program import ops
from sotol.program.memory import Cache, Paged, State
from sotol.program.program import OPS, Constant, Node, Program, Shape, StepInput, Tensor, op


def weight(name: str, *shape: int) -> Weight:
    return Weight.from_values(name, np.ones(shape, np.float32), "F32")


def start(width: int = 32) -> tuple[Program, Tensor]:
    """A program that has embedded tokens: [T, width]."""
    program = Program()
    return program, ops.embed(weight("token_embd", 8, width), StepInput(program, "tokens", ("T",)))


def test_a_program_prints_an_op_a_line() -> None:
    program, x = start()
    h = ops.rms_norm(x, weight("norm", 32), eps=0.5)
    q = ops.linear(h, weight("q", 64, 32)).reshape("T", 4, 16)
    cache, step = Cache("kv.3", Paged(4, 16, 16, window=7)), StepInput(program, "step")
    ops.remember(q, q, cache, step)
    ops.attention(q, cache, step, scale=0.25)
    assert str(program).splitlines() == [
        "%0 = embed(token_embd, tokens) ['T', 32]",
        "%1 = rms_norm(%0, norm, eps=0.5) ['T', 32]",
        "%2 = linear(%1, q) ['T', 64]",
        "%3 = reshape(%2, shape=('T', 4, 16)) ['T', 4, 16]",
        "%4 = remember(%3, %3, cache kv.3, step)",
        "%5 = attention(%3, cache kv.3, step, scale=0.25, cap=0.0) ['T', 4, 16]",
    ]


def test_caches_are_listed_once_and_in_order() -> None:
    program, x = start()
    step, heads = StepInput(program, "step"), x.reshape("T", 2, 16)
    caches = [Cache(f"kv.{layer}", Paged(2, 16, 16)) for layer in (1, 0, 1)]
    for cache in caches:
        ops.remember(heads, heads, cache, step)
    for cache in caches:
        ops.attention(heads, cache, step, scale=1.0)
    assert program.caches() == caches[:2]


def test_ops_on_arrays_compute_and_record_nothing() -> None:
    np.testing.assert_array_equal(ops.add(np.ones(3), np.ones(3)), np.full(3, 2.0))


def test_plus_is_add() -> None:
    program, x = start()
    assert (x + x).shape == ("T", 32)
    assert program.nodes[-1].op is ops.add


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda _, x: ops.linear(x, weight("blk.0.up", 16, 48)),
            "linear: blk.0.up has shape [16, 48], which is not [M, N] with T = T, N = 32",
        ),
        (
            lambda _, x: ops.linear(x.reshape("T", 4, 8), weight("w", 8, 8)),
            "linear: the result of reshape has shape ['T', 4, 8], which is not [T, N]",
        ),
        (lambda _, x: ops.rms_norm(x, weight("norm", 16), eps=1.0), "rms_norm: norm has shape [16]"),
        (lambda _, x: ops.add(x, ops.linear(x, weight("w", 8, 32))), "add: the result of linear has shape ['T', 8]"),
        (lambda _, x: ops.add_bias(x, weight("bias", 8)), "add_bias: bias has shape [8]"),
        (lambda _, x: ops.soft_cap(x, cup=5.0), "soft_cap has no attribute 'cup'; it has ['cap']"),
        (lambda _, x: ops.glu(x, x.reshape("T", 8, 4), act="silu"), "glu: the result of reshape has shape"),
        (
            lambda p, _: ops.embed(weight("vector", 8), StepInput(p, "tokens", ("T",))),
            "embed: vector has shape [8], which is not [V, N]",
        ),
        (
            lambda p, x: ops.rows(x.reshape(), StepInput(p, "logit_rows", ("R",))),
            "rows: the result of reshape has shape []",
        ),
        (
            lambda p, x: ops.rope(
                x.reshape("T", 2, 16),
                StepInput(p, "positions", ("T",)),
                Constant("table", np.zeros((9, 3, 8))),
                style="halves",
            ),
            "rope: table has shape [9, 3, 8], which is not [C, 2, r]",
        ),
        (
            lambda p, x: ops.attention(
                x.reshape("T", 2, 16), Cache("kv.0", Paged(1, 32, 32)), StepInput(p, "step"), scale=1.0
            ),
            "attention: cache kv.0 has shape [1, 32, 32], which is not [K, d, e] with T = T, H = 2, d = 16",
        ),
        (
            lambda p, x: ops.remember(
                x.reshape("T", 2, 16), x.reshape("T", 4, 8), Cache("kv.0", Paged(2, 16, 8)), StepInput(p, "step")
            ),
            "remember: the result of reshape has shape ['T', 4, 8], which is not [T, K, e] with T = T, K = 2, d = 16",
        ),
        (
            lambda p, x: ops.remember_latent(x.reshape("T", 2, 16), x, StepInput(p, "step")),
            "remember_latent can't take the result of embed there",
        ),
        (
            lambda p, x: ops.moving_average(x, weight("decay", 32), Cache("s", State((16,))), StepInput(p, "step")),
            "moving_average: cache s has shape [16], which is not [N] with T = T, N = 32",
        ),
        (
            lambda p, x: ops.moving_average(x, weight("d", 32), Cache("s", State((32,))), StepInput(p, "tokens")),
            "moving_average needs the step, not tokens",
        ),
        (lambda _, x: ops.linear(x, Cache("kv.0", Paged(1, 8, 8))), "linear can't take cache kv.0 there"),
        (lambda _, x: ops.add(ops.quantize(x), x), "add can't read int8: it reads f32"),
        (lambda _, x: ops.rows(x, x), "rows can't read f32: it reads i32"),
        (lambda p, x: ops.add(x, StepInput(p, "tokens", ("T",))), "add can't read i32: it reads f32"),
        (lambda _, x: ops.add(x, start()[1]), "add reads a result of another program"),
        (lambda _, x: ops.soft_cap(x), "soft_cap needs the attribute 'cap'"),
        (lambda _, x: ops.linear(x), "linear takes 2 inputs, not 1"),
        (lambda _, x: ops.add(x, x, x), "add takes 2 inputs, not 3"),
    ],
)
def test_what_does_not_fit_is_named(build: Any, message: str) -> None:
    program, x = start()
    with pytest.raises(ModelError, match=re.escape(message)):
        build(program, x)


@pytest.mark.parametrize("shape", [(32,), ("T", 32), ("T", 4, 32)])
def test_leading_dimensions_pass_through(shape: Shape) -> None:
    x = Tensor(start()[0], 0, shape)
    assert ops.rms_norm(x, weight("norm", 32), eps=1.0).shape == shape
    assert ops.soft_cap(x, cap=2.0).shape == shape


def test_names_of_steps_dimensions_do_not_mix() -> None:
    program, x = start()
    picked = ops.rows(x, StepInput(program, "logit_rows", ("R",)))
    assert picked.shape == ("R", 32)
    with pytest.raises(ModelError, match="add: the result of embed has shape"):
        ops.add(picked, x)


# ---- rules of ops that are not in the vocabulary


@op("T N, N E -> T k:i32, T k, T rest", register=False)
def route(x: Array, gates: Array, *, k: int, rest: int = 3, style: str = "softmax") -> tuple[Array, ...]:
    scores = x @ gates
    order = np.argsort(-scores, axis=-1, kind="stable")
    assert style
    return order[:, :k].astype(np.int32), scores[:, :k], scores[:, :rest]


@op("T k:i32, [2 N], [M]!, step ->", register=False)
def note(ids: Array, read: Any, written: Any, step: Any) -> None:
    written.write(step, read.read(step)[ids])


def several(results: Any) -> tuple[Tensor, ...]:
    assert isinstance(results, tuple)
    return results


def test_a_rule_gives_several_results_of_several_kinds() -> None:
    program, x = start()
    ids, scores, rest = several(route(x, weight("gates", 32, 8), k=2))
    assert [(t.shape, t.kind, t.output) for t in (ids, scores, rest)] == [
        (("T", 2), "i32", 0),
        (("T", 2), "f32", 1),
        (("T", 3), "f32", 2),
    ]
    assert ids.index == scores.index == rest.index == 1
    assert program.nodes[1].attributes == {"k": 2, "rest": 3, "style": "softmax"}
    assert program.nodes[1].shape == ("T", 2)
    ops.add(scores, scores)
    assert str(program).splitlines()[1:] == [
        "%1 = route(%0, gates, k=2, rest=3, style=softmax) ['T', 2], ['T', 2], ['T', 3]",
        "%2 = add(%1.1, %1.1) ['T', 2]",
    ]


def test_the_meaning_of_several_results_is_a_tuple() -> None:
    ids, scores, rest = route(np.array([[1.0, 2.0]], np.float32), np.eye(2, 4, dtype=np.float32), k=1, rest=2)
    assert (ids.tolist(), scores.tolist(), rest.tolist()) == ([[1]], [[1.0]], [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"k": 2, "styel": "x"}, "route has no attribute 'styel'; it has ['k', 'rest', 'style']"),
        ({"rest": 2}, "route needs the attribute 'k'"),
        ({}, "route needs the attribute 'k'"),
    ],
)
def test_attributes_are_those_of_the_signature(attributes: dict[str, Any], message: str) -> None:
    _, x = start()
    with pytest.raises(ModelError, match=re.escape(message)):
        route(x, weight("gates", 32, 8), **attributes)


def test_a_letter_of_an_operand_is_not_the_attribute_of_that_name() -> None:
    """Attributes name dimensions that no operand has."""

    @op("T N -> T N, T w", register=False)
    def widen(x: Array, *, w: int, N: int = 5) -> tuple[Array, Array]:
        return x, np.zeros((len(x), w + N))

    _, x = start()
    assert [t.shape for t in several(widen(x, w=7))] == [("T", 32), ("T", 7)]


def test_caches_are_read_or_written_as_the_rule_says() -> None:
    program, x = start()
    step, read, written = StepInput(program, "step"), Cache("a", State((2, 8))), Cache("b", State((5,)))
    ids, *_ = several(route(x, weight("gates", 32, 8), k=2))
    assert note(ids, read, written, step) is None
    node = program.nodes[-1]
    assert node.results == ()
    assert (node.caches(written=False), node.caches(written=True)) == ([read], [written])
    with pytest.raises(ModelError, match=re.escape("note: cache b has shape [5], which is not [2, N]")):
        note(ids, written, read, step)
    with pytest.raises(ModelError, match="note can't read f32: it reads i32"):
        note(x, read, written, step)


def test_a_fused_node_has_the_caches_of_its_parts() -> None:
    program, x = start()
    step, cache = StepInput(program, "step"), Cache("kv.0", Paged(1, 32, 32))
    heads = x.reshape("T", 1, 32)
    ops.remember(heads, heads, cache, step)
    ops.attention(heads, cache, step, scale=1.0)
    remember, attention = program.nodes[-2:]
    both = Node(ops.add, (), {}, (), parts=(remember, attention))
    assert (both.caches(written=True), both.caches(written=False)) == ([cache], [cache])


def test_ops_of_tests_are_not_in_the_vocabulary() -> None:
    assert {"route", "note", "widen"}.isdisjoint(OPS)


# ---- tracing a model


class Config(NamedTuple):
    """Two layers of a model that is a sum."""

    sizes: Sizes = Sizes(2, 16, 8, (1, 1), (1, 1), 16, (16, 16))

    @classmethod
    def read(cls, _fields: object, _checkpoint: object) -> "Config":
        return cls()


def traced(forward: Any) -> Program:
    def asks_for_all(m: Model, c: Config, step: StepSymbols) -> Any:
        given = forward(m, c, step)
        for name in shapes:  # what is without use would be an error
            m.w(name)
        return given

    module = ModuleType("sum")
    module.Config, module.forward, module.KEYS = Config, asks_for_all, {}  # type: ignore[attr-defined]
    module.WEIGHTS = {"token_embd": Name("", "V D"), "blk.{}.up": Name("", "D D")}  # type: ignore[attr-defined]
    shapes = {"token_embd": (8, 16), "blk.0.up": (16, 16), "blk.1.up": (16, 16)}
    weights = {f"{name}.weight": weight(f"{name}.weight", *shape) for name, shape in shapes.items()}
    return trace(module, "sum", Checkpoint(Path("sum.gguf"), {"general.architecture": "sum"}, weights), 16)


def layers_in(m: Model, x: Tensor, loop: str) -> Tensor:
    """The layers of the model, iterated in several ways."""
    if loop == "for":
        for w in m.layers():
            x = ops.linear(x, w("up"))
    elif loop == "zip":  # zip stops without asking for another layer
        for factor, w in zip((2.0, 3.0), m.layers(), strict=False):
            x = ops.scale(ops.linear(x, w("up")), factor=factor)
    else:
        for w in m.layers():
            x = ops.linear(x, w("up"))
            if w.index == 0:
                break
    return x


@pytest.mark.parametrize(
    ("loop", "layers"),
    [("for", [None, 0, 1, None, None]), ("zip", [None, 0, 0, 1, 1, None, None]), ("break", [None, 0, None, None])],
)
def test_nodes_know_their_layer(loop: str, layers: list[int | None]) -> None:
    def forward(m: Model, _config: Config, step: StepSymbols) -> Tensor:
        x = layers_in(m, ops.embed(m.w("token_embd"), step.tokens), loop)
        return ops.linear(ops.rows(x, step.logit_rows), m.w("token_embd"))

    assert [node.layer for node in traced(forward).nodes] == layers


def test_a_forward_may_give_several_results_by_name() -> None:
    def forward(m: Model, _config: Config, step: StepSymbols) -> dict[str, Tensor]:
        hidden = ops.rows(ops.embed(m.w("token_embd"), step.tokens), step.logit_rows)
        return {"logits": ops.linear(hidden, m.w("token_embd")), "hidden": hidden}

    results = traced(forward).results
    assert {name: (x.index, x.shape) for name, x in results.items()} == {
        "logits": (2, ("R", 8)),
        "hidden": (1, ("R", 16)),
    }


def test_the_only_result_of_a_forward_is_its_logits() -> None:
    def forward(m: Model, _config: Config, step: StepSymbols) -> Tensor:
        return ops.rows(ops.embed(m.w("token_embd"), step.tokens), step.logit_rows)

    assert {name: x.shape for name, x in traced(forward).results.items()} == {"logits": ("R", 16)}


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda x, _rows: x, "sum: forward gives logits as f32 ['T', 16], not rows of float32"),
        (lambda x, rows: {"hidden": ops.quantize(ops.rows(x, rows))}, "sum: forward gives hidden as int8 ['R', 16]"),
    ],
)
def test_results_are_float32_of_the_rows_that_were_asked_for(end: Any, message: str) -> None:
    def forward(m: Model, _config: Config, step: StepSymbols) -> Any:
        return end(ops.embed(m.w("token_embd"), step.tokens), step.logit_rows)

    with pytest.raises(ModelError, match=re.escape(message)):
        traced(forward)


def test_layers_that_name_the_same_cache_share_it() -> None:
    seen: list[Cache] = []

    def forward(m: Model, _config: Config, step: StepSymbols) -> Tensor:
        seen.extend(w.cache(Paged(1, 16, 16), of=0) for w in m.layers())
        assert m.cache("kv.0", Paged(1, 16, 16)) == seen[0]
        with pytest.raises(ModelError, match=r"sum\.gguf: the cache kv\.0 has two layouts"):
            m.cache("kv.0", Paged(1, 16, 16, window=8))
        return ops.rows(ops.embed(m.w("token_embd"), step.tokens), step.logit_rows)

    traced(forward)
    assert seen == [Cache("kv.0", Paged(1, 16, 16))] * 2
