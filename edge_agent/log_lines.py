"""Lines of the log: plain text for people, JSON for collectors. Only the standard library.

Modules log by ``logging.getLogger(__name__)``; fields of a line of their own go into ``extra``, as
``log.info("...", extra={"attempt": 2})``.
"""

import datetime
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

import msgspec

from edge_agent.config import Log

Fields = Callable[[], Mapping[str, object]]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest came by ``extra``."""
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
"""Of syslog, which journald reads at the beginning of a line (sd-daemon(3))."""


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, the agent's fields and the line's own."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        line: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in self._fields().items() if value is not None}
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextLines(logging.Formatter):
    """The message, after its time or, for the journal, its priority."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        text = super().format(record)
        if self._journal:
            return f"<{_PRIORITIES.get(record.levelno, 6)}>{text}"
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{_moment(record)} {level}{text}"


class Writer(logging.StreamHandler[TextIO]):
    """Writes the lines; ``fields`` says what the agent is doing, once there is one."""

    def __init__(self, settings: Log, stream: TextIO, *, journal: bool) -> None:
        super().__init__(stream)
        self.fields: Fields = dict
        if settings.format == "json":
            self.setFormatter(JsonLines(lambda: self.fields()))
        else:
            self.setFormatter(TextLines(journal=journal))


def install(settings: Log, journal_stream: str = "") -> Writer:
    """Send the log to the standard output.

    Args:
        settings: format and level.
        journal_stream: what systemd says of the journal's socket: then the journal has the times.
    """
    writer = Writer(settings, sys.stdout, journal=_is_journal(sys.stdout, journal_stream))
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.addHandler(writer)
    root.setLevel(settings.level.upper())
    return writer


def _is_journal(stream: TextIO, journal_stream: str) -> bool:
    """Whether the stream is that socket: a child of a service may have been sent elsewhere."""
    if not journal_stream:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return f"{found.st_dev}:{found.st_ino}" == journal_stream


def _moment(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
