"""How many bytes of an output are written: for bars."""

from sotol.progress import Progress

__all__ = ["ByteCount"]


class ByteCount:
    """Called with each piece's bytes, it tells a progress callback how many there are so far, and in all."""

    def __init__(self, progress: Progress | None, total: int = 0) -> None:
        self.total = total
        self._done, self._progress = 0, progress

    def __call__(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress("writing", self._done, self.total)
