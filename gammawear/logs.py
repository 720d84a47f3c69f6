"""What goes to standard error: notes to a person and the log, as text or as one JSON object a line."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

NOTES: Final = Console(stderr=True)
"""Where commands say what they do. Results go to standard output."""

_WIDE: Final = 10_000
"""Columns of a JSON line's message: nothing is wrapped there."""
_OWN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    """How standard error looks."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class JsonFormatter(logging.Formatter):
    """``time`` (UTC, ISO 8601, milliseconds), ``level``, ``logger``, ``message``, and what else a record has."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _OWN_FIELDS and key not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _AsRecords(io.StringIO):
    """A file that passes each line that is written to it on to a handler, whatever the level of the log."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                values = {"name": "gammawear", "levelno": logging.INFO, "levelname": "INFO", "msg": line.rstrip()}
                self._handler.handle(logging.makeLogRecord(values))
        return len(text)


_installed: list[logging.Handler] = []


def configure(form: LogFormat, level: LogLevel) -> None:
    """Set up standard error; called again, it replaces what it set up before."""
    root = logging.getLogger()
    for handler in _installed:
        root.removeHandler(handler)
    if form is LogFormat.JSON:
        chosen: logging.Handler = logging.StreamHandler()
        chosen.setFormatter(JsonFormatter())
        NOTES.file, NOTES.width = _AsRecords(chosen), _WIDE
    else:
        chosen = RichHandler(console=NOTES, show_path=False)
        chosen.setFormatter(logging.Formatter("%(message)s"))
    _installed[:] = [chosen]
    root.addHandler(chosen)
    root.setLevel(level.upper())


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Let only critical messages of these loggers and those below them through."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def say_error(error: Exception) -> None:
    """Tell a person why a command ends; in JSON as a record of its own level."""
    if isinstance(NOTES.file, _AsRecords):
        logging.getLogger("gammawear").error("%s", error, extra={"error": type(error).__name__})
        return
    NOTES.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)


def say_stopped(checkpoint: Path) -> None:
    """Tell a person who has stopped training what the same command will do."""
    then = f"goes on from {checkpoint}" if checkpoint.exists() else "begins anew: there was no checkpoint yet"
    NOTES.print(f"\nstopped; the same command {then}", markup=False)
