"""What goes to standard error: lines, and sotol's log. Closed and full streams: tests/surroundings/test_streams.py."""

import errno
import io
import logging
import os
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest
from tests.cli.conftest import FakeTerminal

from sotol.cli.streams import listen, refused, say

LOG = logging.getLogger("sotol")


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """The log as it was, afterwards."""
    handlers, level = list(LOG.handlers), LOG.level
    yield
    LOG.handlers = handlers
    LOG.setLevel(level)


@pytest.mark.parametrize(
    ("stream", "quiet", "shown"),
    [
        (io.StringIO(), False, "sotol: compiling 3 kernels\nsotol: a ]0;b\n"),
        (FakeTerminal(), False, "sotol: a ]0;b\n"),  # a bar shows the other
        (io.StringIO(), True, ""),
    ],
)
def test_the_log(stream: io.StringIO, quiet: bool, shown: str) -> None:
    with redirect_stderr(stream):
        for _ in range(2):  # which changes nothing
            listen(quiet=quiet)
        LOG.info("compiling %d kernels", 3)
        logging.getLogger("sotol.tokenizers").warning("a\n\x1b]0;b")
        LOG.debug("details")
    assert stream.getvalue() == shown


def test_a_line_that_cannot_be_written_is_not_an_error() -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with redirect_stderr(Full()):
        say("anything")


def test_what_is_raised_for_output_that_is_refused() -> None:
    pipe = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    assert refused(pipe) is pipe
    assert str(refused(OSError(errno.EIO, "Input/output error"))) == "the output can't be written: input/output error"
