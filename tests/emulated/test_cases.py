"""That the emulated CPUs are given every kernel, every op and every form of a layout: without compiling any."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.emulated.case import Case, Encoded, Steps, read_cases, write_cases
from tests.emulated.cases import cases
from tests.emulated.keys import keys_of
from tests.support.checkpoints import RUNNABLE
from tests.support.layouts import LAYOUTS

from sotol.backends.cpu.building.library import Key
from sotol.backends.cpu.kernels import KERNELS, NATIVE_FACTORIES, NATIVE_FUNCTIONS
from sotol.backends.cpu.layout import PLANES
from sotol.backends.cpu.running.lowerings import LOWERINGS
from sotol.backends.cpu.target import host_target
from sotol.program.fuse import fuse
from sotol.quant import ENCODINGS, FACTORS, NUMBERS


@pytest.fixture(scope="module")
def every() -> list[Case]:
    return list(cases())


@pytest.fixture(scope="module")
def keys(every: Sequence[Case]) -> list[Key]:
    return keys_of(every)


def test_names_tell_cases_apart(every: Sequence[Case]) -> None:
    assert len({case.name for case in every}) == len(every)


def test_all_native_code_runs(keys: Sequence[Key]) -> None:
    assert {key[0] for key in keys} == {*KERNELS, *NATIVE_FACTORIES, *NATIVE_FUNCTIONS}


def test_all_ops_run_also_those_of_several(every: Sequence[Case]) -> None:
    run = {node.op.name for case in every if isinstance(case, Steps) for node in fuse(case.program).nodes}
    assert run >= LOWERINGS.keys()


def test_products_with_all_encodings_and_forms_of_layouts(keys: Sequence[Key]) -> None:
    multiplied = {key[1] for key in keys if key[0] == "linear"}
    assert multiplied >= {ENCODINGS[name].kind for name in RUNNABLE}
    layouts = [*LAYOUTS.values(), *(x for name in RUNNABLE if (x := ENCODINGS[name].integer) is not None)]
    assert {layout.bits for layout in layouts} == PLANES.keys()
    assert {layout.factor for layout in layouts} == FACTORS.keys()
    assert {layout.numbers for layout in layouts if not layout.whole} == NUMBERS.keys()


def test_a_file_has_the_same_cases(every: Sequence[Case], tmp_path: Path) -> None:
    """Same kernels, and the same results of some of them."""
    some = [case for case in every if case.name in ("scale", "encode Q8_0", "op choose_experts softmax True")]
    assert len(some) == 3
    write_cases(tmp_path / "cases", some)
    again = read_cases(tmp_path / "cases")
    assert keys_of(again) == keys_of(some)
    for case, other in zip(some, again, strict=True):
        assert isinstance(case, Encoded) == isinstance(other, Encoded)
        np.testing.assert_array_equal(case.results(host_target(), 1), other.results(host_target(), 2))
