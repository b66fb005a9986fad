"""The CPU levels that this machine can run: kernel tests run on each."""

import pytest

from sotol.backends.cpu.target import Target, levels, target_for


@pytest.fixture(params=levels())
def target(request: pytest.FixtureRequest) -> Target:
    return target_for(request.param)
