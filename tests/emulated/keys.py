"""Which kernels cases need, without making one: to compile them all at once, or for another machine."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import NoReturn
from unittest import mock

from tests.emulated.case import Case
from tests.emulated.models import Model

from sotol.backends.cpu.building.library import Key
from sotol.backends.cpu.running import fitting, runner
from sotol.backends.cpu.target import host_target

__all__ = ["keys_of"]


class _Asked(Exception):
    """A runner or an encoder has said what it needs."""


class _Library:
    """Stands where `library.library_for` gives the process's kernels, and notes what is asked for."""

    def __init__(self) -> None:
        self.keys: dict[Key, None] = {}

    def load(self, keys: Sequence[Key], *_: object) -> NoReturn:
        self.keys |= dict.fromkeys(keys)
        raise _Asked


def keys_of(cases: Iterable[Case | Model]) -> list[Key]:
    """The keys of the kernels that the cases need, each once."""
    library = _Library()
    with ExitStack() as patches:
        for user in (runner, fitting):
            patches.enter_context(mock.patch.object(user, "library_for", return_value=library))
        for case in cases:
            with suppress(_Asked):
                case.results(host_target(), 1)
    return list(library.keys)
