"""CPU levels: kernel tests run on each of `LEVELS`."""

import pytest
from tests.support.levels import LEVELS

from sotol.backends.cpu.target import Target, target_for


@pytest.fixture(params=LEVELS)
def target(request: pytest.FixtureRequest) -> Target:
    return target_for(request.param)
