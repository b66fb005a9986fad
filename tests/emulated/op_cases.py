"""A small program of every op, of the arrays of the op's row in tests/program/test_ops.py: a new op has one, too."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tests.backends.test_cpu_experts import recorded
from tests.program.test_ops import CASES
from tests.support.op_inputs import Pool, States
from tests.support.single_op import Inputs, weight

from sotol.backends.cpu.running.expert_lowerings import SCORES
from sotol.backends.cpu.running.lower import width_of
from sotol.program.activations import ACTIVATIONS, CONVOLVED, GATED
from sotol.program.memory import Cache
from sotol.program.program import OPS, Constant, Operand, Program
from sotol.program.step import Step

__all__ = ["TOKENS", "op_programs"]

TOKENS = 5
WIDTHS = (3, 20)  # as heads or experts, and as channels: no whole vectors
# Of these, kernels are others. An op that is not here has one kernel, or all its cases in cases.py.
KINDS: dict[str, Mapping[str, Sequence[Any]]] = {
    "activate": {"act": tuple(ACTIVATIONS)},
    "choose_experts": {"scores": SCORES, "normalised": (False, True)},
    "combine": {"weighted": (True, False)},
    "convolve": {"act": tuple(CONVOLVED)},
    "delta_rule": {"tiled": (False, True)},
    "glu": {"act": tuple(GATED)},
    "rope": {"style": ("halves", "middle", "pairs")},
}
# Ops without a float32 result, or that read what another one wrote: cases.py has programs of several.
ALONE = OPS.keys() - {
    "attention", "attention_with_sinks", "embed", "quantize", "remember", "remember_latent", "reshape",
}  # fmt: skip


def op_programs() -> Iterator[tuple[str, Program]]:
    """Programs of a step of TOKENS tokens, by name."""
    for name in CASES:
        if name in ALONE:
            kinds = KINDS.get(name, {})
            for values in itertools.product(*kinds.values()):
                yield " ".join((name, *map(str, values))), _program_of(name, dict(zip(kinds, values, strict=True)))


def _program_of(name: str, changed: Mapping[str, Any]) -> Program:
    given, attributes = CASES[name](TOKENS, *WIDTHS)
    inputs, rules = Inputs(), OPS[name].inputs
    by_position = any(rule.dims == ("T",) and rule.kind == "i32" for rule in rules)
    operands = [
        _operand(inputs, rule.dims, x, f"x{i}", table=by_position)
        for i, (rule, x) in enumerate(zip(rules, given, strict=True))
    ]
    results = OPS[name](*operands, **{**attributes, **changed})
    for i, result in enumerate(results if isinstance(results, tuple) else (results,)):
        if result.kind == "f32":
            inputs.program.results[f"result {i}"] = result.reshape(result.shape[0], width_of(result.shape))
    return inputs.program


def _operand(inputs: Inputs, dims: tuple[str, ...], x: Any, name: str, *, table: bool) -> Operand:
    """What a program has in the place of an array: rows of tokens, a weight or a table, an array of the step."""
    if isinstance(x, Step):
        return inputs.step
    if isinstance(x, Pool | States):
        return Cache("cache.0", x.layout)
    if x.dtype == np.int32:
        return _numbers(inputs, dims, x, name)
    if dims[0] not in ("T", "..."):
        return Constant(name, x) if table else weight(x, name=name)
    return inputs.rows(x.reshape(TOKENS, -1), name).reshape("T", *x.shape[1:])


def _numbers(inputs: Inputs, dims: tuple[str, ...], x: Any, name: str) -> Operand:
    """The same of whole numbers. Choices of experts are made by the op that makes them, of scores far apart."""
    if dims == ("R",):
        return inputs.logit_rows
    if dims == ("T",):
        return inputs.positions
    if dims[0] != "T":
        return Constant(name, x)
    scores = np.zeros((TOKENS, 2 * x.shape[1]), np.float32)
    np.put_along_axis(scores, x, np.linspace(2, 1, x.shape[1], dtype=np.float32)[None], axis=1)
    none = Constant("none", np.zeros(scores.shape[1], np.float32))
    choice, _ = recorded(inputs.rows(scores, name), none, k=x.shape[1], scores="softmax")
    return choice
