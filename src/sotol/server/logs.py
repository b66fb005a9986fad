"""The log of a server, on standard error: lines for people, or a JSON object a line for machines."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

from sotol.errors import plain
from sotol.server.settings import Settings

__all__ = ["JsonFormat", "TextFormat", "begin_log"]

LOGS = ("sotol", "uvicorn.error", "asyncio")
LONGEST = 2000  # characters of a value in a line of text


class JsonFormat(logging.Formatter):
    """An object with time, level, logger, message, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info is not None and record.exc_info[0] is not None:
            entry["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(entry, default=str)


class TextFormat(logging.Formatter):
    """Time, level, message, and the fields as name=value; a traceback follows in lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        fields = (f"{name}={_shown(value)}" for name, value in getattr(record, "fields", {}).items())
        said = plain(record.getMessage(), LONGEST)
        line = " ".join((_time(record), f"{record.levelname.lower():7}", said, *fields))
        if record.exc_info is not None and record.exc_info[0] is not None:
            line += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return line


class _Lines(logging.Handler):
    """Writes to standard error; where nobody reads that, the server goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # there is no reader any more, or it is closed
            pass


def begin_log(settings: Settings) -> None:
    """Write what sotol, uvicorn and asyncio log, from now on, as the settings say."""
    lines = _Lines()
    lines.setFormatter(JsonFormat() if settings.log_format == "json" else TextFormat())
    for name in LOGS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [lines], False
        own = name == "sotol"
        logger.setLevel(settings.log_level.upper() if own else logging.WARNING)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(value: object) -> str:
    """A value on one line, in quotes where it would be ambiguous without."""
    text = plain(value, LONGEST) if isinstance(value, str) else str(value)
    return json.dumps(text) if any(c in text for c in ' "=') or not text else text
