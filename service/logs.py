"""Log lines: one each on standard error, as text or as JSON, with the id of the request."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from latchkey.middleware.excerpt import excerpt
from latchkey.middleware.request_id import request_id

LEVELS = {"latchkey": logging.INFO, "uvicorn": logging.INFO, "sqlalchemy": logging.WARNING}

# An exception may quote a client's whole body, and a trace may have a line for each line feed in it.
LONGEST_LINE = 4096  # characters
LONGEST_TRACE = 65_536  # characters


class JsonFormatter(logging.Formatter):
    """One JSON object for each record, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; the trace of an exception is a field with escaped newlines."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": excerpt(record.getMessage(), LONGEST_LINE),
            "request_id": request_id.get(),
            **getattr(record, "access", {}),
        }
        if record.exc_info:
            line["trace"] = "\n".join(trace_lines(self.formatException(record.exc_info)))
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """One line of text for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; the trace of an exception follows in indented lines, so that none can be mistaken for a record."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        name = request_id.get()
        line = f"{moment} {record.levelname:<7} {f'[{name}] ' if name else ''}{printable(excerpt(record.getMessage(), LONGEST_LINE))}"
        if not record.exc_info:
            return line
        trace = (printable(one) for one in trace_lines(self.formatException(record.exc_info)))
        return "\n    ".join([line, *trace])


def trace_lines(trace: str) -> list[str]:
    """Return the lines of an exception's trace; the middle of a long line or trace is left out."""
    return [excerpt(one, LONGEST_LINE) for one in excerpt(trace, LONGEST_TRACE).splitlines()]


def printable(text: str) -> str:
    """Escape characters that would end the line, control a terminal, or could not be written."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class Seldom(logging.Filter):
    """Limit the server's messages about bad requests to one each second, because any client can cause them."""

    EVERY_S = 1.0
    SAYINGS = ("Invalid HTTP request", "Unsupported upgrade request", "No supported WebSocket library")

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        saying = next((one for one in self.SAYINGS if str(record.msg).startswith(one)), None)
        if saying is None:
            return True
        if record.created - self._passed.get(saying, 0.0) < self.EVERY_S:
            return False
        self._passed[saying] = record.created
        return True


def configure(form: Literal["text", "json"]) -> None:
    """Write the logs of Latchkey, the server and SQLAlchemy to standard error; repeated calls have no further effect."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    for name, level in LEVELS.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = [handler]
        logger.propagate = False
    server = logging.getLogger("uvicorn.error")
    if not any(isinstance(one, Seldom) for one in server.filters):
        server.addFilter(Seldom())
    # The server's own access log would contain the query, which may be signed.
    logging.getLogger("uvicorn.access").handlers = []
    logging.getLogger("uvicorn.access").propagate = False
