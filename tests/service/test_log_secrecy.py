"""Every line of a library has the form of ours, and no line has a value of a row or a statement."""

import asyncio
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import User
from latchkey.service import logs
from latchkey.service.operation import Operation, route
from latchkey.service.withheld import withhold, withhold_quoted
from tests.api import call
from tests.conftest import on_mariadb
from tests.service.test_logs import LINE

SECRET = "secret@example.com"


class Nothing(msgspec.Struct):
    """An empty answer."""


async def fail_after_the_driver(request: Request) -> Nothing:
    """Fail with an error that has an error of the driver as its cause."""
    await User.create(email=SECRET, name="one")
    try:
        await User.create(email=SECRET, name="two")
    except Exception as error:
        raise RuntimeError("an error of the team") from error
    return Nothing()


async def fail_in_sql(request: Request) -> Nothing:
    """Send invalid SQL."""
    await request.state.session.execute(
        text("SELECT nothing FROM nowhere WHERE oops ,, = :word"), {"word": SECRET}
    )
    return Nothing()


async def write_with_a_warning(request: Request) -> Nothing:
    """Insert a row twice, with a warning of the driver."""
    await User.create(email=SECRET, name="one")
    statement = text("INSERT IGNORE INTO users SELECT * FROM users")
    await request.state.session.execute(statement)
    return Nothing()


async def log_by_hand(request: Request) -> Nothing:
    """Log as a team does."""
    log = logging.getLogger("newsroom.articles")
    log.setLevel(logging.INFO)
    log.info("an article was read")
    return Nothing()


@pytest.fixture
def routes() -> Sequence[Operation]:
    found = {
        "/driver": fail_after_the_driver,
        "/sql": fail_in_sql,
        "/warning": write_with_a_warning,
        "/log": log_by_hand,
    }
    return [route("POST", path, endpoint, public=True) for path, endpoint in found.items()]


@pytest.fixture(params=["text", "json"])
def shown(app: Starlette, request: pytest.FixtureRequest) -> io.StringIO:
    """Return the lines on standard error, in each form."""
    logs.configure(request.param)
    stream = io.StringIO()
    for logger in (logging.getLogger(), *map(logging.getLogger, logs.LEVELS)):
        for handler in logger.handlers:
            if isinstance(handler, logs.Handler):
                handler.setStream(stream)
    return stream


def messages(shown: io.StringIO) -> list[str]:
    """Return the messages, each of which is a line of our own form; indented lines belong to a trace."""
    found = []
    for line in shown.getvalue().splitlines():
        if line.startswith("{"):
            found.append(json.loads(line)["message"])
        elif not line.startswith("    "):
            match = LINE.fullmatch(line)
            assert match, line
            found.append(match["message"])
    return found


@pytest.mark.parametrize("path", ["/driver", "/sql"])
async def test_a_trace_has_no_value(app: Starlette, shown: io.StringIO, path: str) -> None:
    assert (await call(app, "POST", path)).status == 500

    assert "Error" in shown.getvalue()
    assert "secret" not in shown.getvalue()


@on_mariadb
async def test_a_warning_of_the_driver_has_no_value(app: Starlette, shown: io.StringIO) -> None:
    assert (await call(app, "POST", "/warning")).status == 200

    assert any("Duplicate entry '…' for key" in one for one in messages(shown))
    assert "secret" not in shown.getvalue()


async def test_a_line_of_a_team_has_the_form_and_the_id_of_the_request(
    app: Starlette, shown: io.StringIO
) -> None:
    await call(app, "POST", "/log", headers=[("x-request-id", "v7")])

    (line,) = [one for one in shown.getvalue().splitlines() if "an article was read" in one]
    assert "v7" in line
    assert "an article was read" in messages(shown)


async def test_a_library_logs_in_the_form(app: Starlette, shown: io.StringIO) -> None:
    logging.getLogger("some.library").warning("something %s", "odd")
    logging.getLogger("asyncmy").info("a statement with its values")
    asyncio.get_running_loop().default_exception_handler(
        {
            "message": "a task failed",
            "exception": RuntimeError((1062, f"Duplicate entry '{SECRET}' for key 'x'")),
        }
    )

    assert messages(shown)[0] == "something odd"
    assert any(one.startswith("a task failed") for one in messages(shown))
    assert "its values" not in shown.getvalue()
    assert "secret" not in shown.getvalue()


class Failing:
    """An object whose destructor fails."""

    def __del__(self) -> None:
        raise ValueError("in a destructor")


async def test_text_that_python_prints_is_logged(
    app: Starlette, shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for owner, name in ((warnings, "showwarning"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure_process()
        warnings.warn("an odd thing", RuntimeWarning, stacklevel=1)
        Failing()
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()

    found = messages(shown)
    assert any(one.startswith("RuntimeWarning: an odd thing (") for one in found)
    assert "a thread ended with an error" in found
    assert "in a destructor" in shown.getvalue()
    assert "ZeroDivisionError" in shown.getvalue()
    assert capfd.readouterr().err == ""


MESSAGES: list[tuple[str, str]] = [
    ("Duplicate entry 'ann@x' for key 'users.email_key'", "Duplicate entry '…' for key 'users.email_key'"),
    ("Duplicate entry 'a' for key 'b' for key 'users.x'", "Duplicate entry '…' for key 'users.x'"),
    ("Data too long for column 'title' at row 1", "Data too long for column 'title' at row 1"),
    ("Incorrect integer value: 'abc' for column `d`.`t`.`n` at row 1", "Incorrect integer value: '…' for column `d`.`t`.`n` at row 1"),
    ("Truncated incorrect DOUBLE value: 'it's'", "Truncated incorrect DOUBLE value: '…'"),
    ("syntax to use near 'x' = 'y'' at line 1", "syntax to use near '…' at line 1"),
    ("nothing is quoted", "nothing is quoted"),
]  # fmt: skip


def error_of(number: int, message: str) -> Any:
    return Exception(number, message)


def test_the_message_of_an_error_keeps_what_is_no_value() -> None:
    for message, expected in MESSAGES:
        assert withhold_quoted(message) == expected
        for shown in (str, repr):
            line = withhold(f"IntegrityError: (driver) {shown(error_of(1062, message))} [SQL: INSERT]")
            assert "ann@x" not in line
            assert "abc" not in line
            assert line.endswith("[SQL: INSERT]")
    known = str(error_of(1146, "Table 'latchkey.nowhere' doesn't exist"))
    assert withhold(known) == known
    assert withhold(
        "StatementError: (builtins.LookupError) 'x' is not among the defined enum values. Enum"
    ) == ("StatementError: (builtins.LookupError) … is not among the defined enum values. Enum")
