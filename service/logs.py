"""Log lines: one each on standard error, as text or as JSON, with the id of the request."""

import json
import logging
import sys
import threading
import warnings
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from latchkey.middleware.excerpt import excerpt
from latchkey.middleware.request_id import request_id
from latchkey.middleware.trace import trace
from latchkey.service.withheld import withhold, withhold_quoted

DRIVER = "asyncmy"
LEVELS = {"latchkey": logging.INFO, "uvicorn": logging.INFO, "sqlalchemy": logging.WARNING}

# An exception may quote a client's whole body, and a trace may have a line for each line feed in it.
LONGEST_LINE = 4096  # characters
LONGEST_TRACE = 65_536  # characters

TRACE = "Traceback (most recent call last):"
FAILED_START = "The application failed to start or to end:"


class Formatter(logging.Formatter):
    """The text of records, without values that the driver quotes."""

    @staticmethod
    def message_of(record: logging.LogRecord) -> str:
        """Return the message; the driver's own warnings are nothing but a message of the server."""
        message = record.getMessage()
        message = withhold_quoted(message) if str(record.name).startswith(DRIVER) else withhold(message)
        return excerpt(message, LONGEST_LINE)

    def trace_of(self, record: logging.LogRecord) -> list[str]:
        """Return the lines of the trace; the middle of a long line or trace is left out."""
        assert record.exc_info is not None  # noqa: S101 - the caller has checked it
        return self.lines_of(self.formatException(record.exc_info))

    @staticmethod
    def lines_of(text: str) -> list[str]:
        """Return the lines of a trace."""
        trace = withhold(text)
        return [excerpt(one, LONGEST_LINE) for one in excerpt(trace, LONGEST_TRACE).splitlines()]


class JsonFormatter(Formatter):
    """One JSON object for each record, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; the trace of an exception is a field with escaped newlines."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message_of(record),
            "request_id": request_id.get(),
            **trace_fields(),
            **getattr(record, "access", {}),
        }
        if record.exc_info:
            line["trace"] = "\n".join(self.trace_of(record))
        return json.dumps(line, default=str)


def trace_fields() -> dict[str, str]:
    """Return the trace of the current request and its span; nothing outside a trace."""
    found = trace.get()
    return {} if found is None else {"trace_id": found.trace_id, "span_id": found.span_id}


class TextFormatter(Formatter):
    """One line of text for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; the trace of an exception follows in indented lines, so that none can be mistaken for a record."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        name = request_id.get()
        trace: list[str] = []
        if failed_start(record):
            message, trace = FAILED_START, self.lines_of(record.getMessage())
        else:
            message = printable(self.message_of(record))
        line = f"{moment} {record.levelname:<7} {f'[{name}] ' if name else ''}{message}"
        if record.exc_info:
            trace = self.trace_of(record)
        return "\n    ".join([line, *map(printable, trace)])


def failed_start(record: logging.LogRecord) -> bool:
    """Return whether a record of uvicorn is nothing but the trace of an application that could not start or end."""
    return record.name == "uvicorn.error" and str(record.msg).startswith(TRACE)


def printable(text: str) -> str:
    """Escape characters that would end the line, control a terminal, or could not be written."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class RepeatFilter(logging.Filter):
    """Limit the server's messages about bad requests to one each second, because any client can cause them."""

    EVERY_S = 1.0
    PREFIXES = ("Invalid HTTP request", "Unsupported upgrade request", "No supported WebSocket library")

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        prefix = next((one for one in self.PREFIXES if str(record.msg).startswith(one)), None)
        if prefix is None:
            return True
        if record.created - self._passed.get(prefix, 0.0) < self.EVERY_S:
            return False
        self._passed[prefix] = record.created
        return True


class AcceptFilter(logging.Filter):
    """Drop asyncio's traceback about a connection that could not be accepted, which it logs each second for each socket.

    `latchkey.service.connections.descriptors` logs the state once.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        return not str(record.msg).startswith("socket.accept() out of system resource")


class Handler(logging.StreamHandler[TextIO]):
    """The handler of all loggers, with a type by which a repeated call of `configure` finds it."""


def configure(form: Literal["text", "json"]) -> None:
    """Write all logs to standard error, also those of libraries and of the application's own loggers.

    Repeated calls have no further effect.
    """
    handler = Handler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    for name, level in LEVELS.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = [handler]
        logger.propagate = False
    root = logging.getLogger()
    root.handlers = [*(one for one in root.handlers if not isinstance(one, Handler)), handler]
    for name in (DRIVER, "aiosqlite"):
        logging.getLogger(name).setLevel(logging.WARNING)  # below it they log statements with their values
    server = logging.getLogger("uvicorn.error")
    if not any(isinstance(one, RepeatFilter) for one in server.filters):
        server.addFilter(RepeatFilter())
    loop = logging.getLogger("asyncio")
    if not any(isinstance(one, AcceptFilter) for one in loop.filters):
        loop.addFilter(AcceptFilter())
    # The server's own access log would contain the query, which may be signed.
    logging.getLogger("uvicorn.access").handlers = []
    logging.getLogger("uvicorn.access").propagate = False


def configure_process() -> None:
    """Log what Python would print to standard error in a serving process: warnings, and errors that no caller can catch."""
    warnings.showwarning = log_warning
    sys.unraisablehook = log_unraisable
    threading.excepthook = log_of_thread


def log_warning(  # noqa: PLR0917 - as `warnings.showwarning` has it
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,  # noqa: ARG001 - as in `warnings.showwarning`
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Log a warning; for `warnings.showwarning`."""
    logging.getLogger("py.warnings").warning("%s: %s (%s:%d)", category.__name__, message, filename, lineno)


def log_unraisable(unraisable: Any) -> None:
    """Log an error that no caller can catch, as in a destructor; for `sys.unraisablehook`."""
    error = unraisable.exc_value
    logging.getLogger("latchkey.server").error(
        "%s",
        unraisable.err_msg or "an error in a destructor",
        exc_info=error and (type(error), error, error.__traceback__),
    )


def log_of_thread(failure: threading.ExceptHookArgs) -> None:
    """Log an error that ended a thread; for `threading.excepthook`."""
    error = failure.exc_value
    logging.getLogger("latchkey.server").error(
        "a thread ended with an error", exc_info=error and (type(error), error, error.__traceback__)
    )
