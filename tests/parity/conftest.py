"""What the judges' own packages warn of while they are imported is theirs to mend, and fails no test of ours."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # transformers imports hqq where it is installed, whose torch.compile imports torch's own deprecated modules.
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.*is deprecated:DeprecationWarning")
