"""A Hub on this machine, and an empty cache, for tests of pulling."""

from pathlib import Path

import pytest
from tests.support.hub import cache, hub

from sotol.hub import transfer

__all__ = ["FOUR", "cache", "hub", "left", "quick"]

FOUR = "model.Q4_K_M.gguf"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between two tries, which are noted and not made."""
    pauses: list[float] = []
    monkeypatch.setattr(transfer, "sleep", pauses.append)
    return pauses


def left(cache: Path) -> dict[str, bytes]:
    """What a cache has by name that could be taken for a file of a repository."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.glob("**/*"))
        if path.is_file() and ".locks" not in path.parts and path.suffix != ".incomplete" and "refs" not in path.parts
    }
