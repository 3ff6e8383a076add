"""Errors of the server, by number: conflicts are run again, trouble of the server is a 503, and anything unknown stays a 500.

A trigger makes the server answer with each number, as the server would itself.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from starlette.applications import Starlette

from latchkey.service.database import driver
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call
from tests.conftest import on_mariadb
from tests.mariadb import PrivateMariaDB
from tests.requests import Answer

CONFLICTS = {
    1213: "a deadlock",
    1020: "a snapshot conflict",
    3101: "a conflict in a group",
    1412: "a table altered since the snapshot",
    1615: "a table altered since the statement was prepared",
}
LOCKS = {1205: "a lock wait", 1689: "a lock wait given up for an ALTER", 3572: "a lock with NOWAIT"}
TROUBLES = {
    3: "a file that cannot be written",
    5: "no memory for a file",
    20: "a full disk for a file",
    1021: "a full disk",
    1026: "a write error",
    1028: "a sort that was aborted",
    1030: "a storage engine with an error number",
    1036: "a table that is read-only",
    1037: "no memory",
    1038: "no memory to sort",
    1040: "too many connections",
    1041: "out of resources",
    1047: "no quorum",
    1053: "a shutdown",
    1079: "a complete shutdown",
    1114: "a full table",
    1129: "a blocked host",
    1135: "no thread",
    1180: "an error while committing",
    1194: "a damaged table",
    1197: "a full log of the transaction",
    1203: "too many connections of the user",
    1206: "a full table of locks",
    1226: "a limit of the account",
    1290: "a read-only server",
    1297: "a temporary error",
    1317: "an interrupted statement",
    1637: "too many transactions",
    1792: "a read-only transaction",
    1836: "a server in read-only mode",
    1862: "an expired password",
    1874: "InnoDB in read-only mode",
    1927: "a killed connection",
    1969: "a time limit of MariaDB",
    3015: "an engine without memory",
    3019: "a full undo log",
    3024: "a time limit of MySQL",
    3032: "a server that is offline",
    3100: "a member of no group",
    3118: "a locked account",
    3168: "a server that is not available",
    3169: "a killed session",
    3796: "a member that cannot keep its consistency",
    3797: "a wait for the group",
    3989: "a database that is read-only",
    4031: "a session that was closed as inactive",
    6400: "a server that is offline for a reason",
}  # fmt: skip
STATES = {
    "08S01": "a connection exception",
    "25006": "a read-only transaction",
    "HY001": "memory",
    "70100": "an abort",
}
UNKNOWN = {
    1105: "an unknown error",
    1364: "a column without a default",
    1644: "a SIGNAL",
    9999: "no error at all",
}

WORDS = "in the words of the server"
NEW = {"email": "ann@example.com", "name": "Ann"}


@contextmanager
def failing(server: PrivateMariaDB, number: int, state: str = "HY000") -> Iterator[None]:
    """Make the server refuse each new user with an error."""
    server.execute(
        f"USE latchkey; CREATE TRIGGER failing BEFORE INSERT ON users FOR EACH ROW "
        f"SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = '{WORDS}'"
    )
    try:
        yield
    finally:
        server.execute("USE latchkey; DROP TRIGGER failing")


@contextmanager
def counting_inserts(app: Starlette) -> Iterator[list[str]]:
    sent: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO users"):
            sent.append(statement)

    engine = app.state.db.engine.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", count)


def lines_of(records: list[logging.LogRecord]) -> list[logging.LogRecord]:
    """Return the lines of the log that the operator sees, without the access log."""
    return [one for one in records if one.levelno >= logging.WARNING]


def assert_told_once(records: list[logging.LogRecord], words: str) -> None:
    (line,) = lines_of(records)
    assert words in line.getMessage()
    assert line.exc_info is None


async def fail(
    app: Starlette, operator: HeldKey, server: PrivateMariaDB, number: int, state: str = "HY000"
) -> tuple[Answer, int, Answer]:
    """Return the answer to a call that fails, how often its INSERT was sent, and the answer after the fault has ended."""
    with failing(server, number, state), counting_inserts(app) as sent:
        answer = await call(app, "POST", "/v1/users", key=operator, body=NEW)
    again = await call(app, "POST", "/v1/users", key=operator, body=NEW)
    return answer, len(sent), again


@on_mariadb
@pytest.mark.parametrize("number", CONFLICTS, ids=CONFLICTS.get)
async def test_a_conflict_is_run_again(
    app: Starlette,
    operator: HeldKey,
    mariadb: PrivateMariaDB,
    log_lines: list[logging.LogRecord],
    number: int,
) -> None:
    answer, times, again = await fail(app, operator, mariadb, number)

    assert_problem(answer, 503, "unavailable")
    assert times == 4
    assert again.status == 201
    assert_told_once(log_lines, WORDS)


@on_mariadb
@pytest.mark.parametrize("number", LOCKS | TROUBLES, ids=(LOCKS | TROUBLES).get)
async def test_trouble_of_the_server_is_unavailable(
    app: Starlette,
    operator: HeldKey,
    mariadb: PrivateMariaDB,
    log_lines: list[logging.LogRecord],
    number: int,
) -> None:
    answer, times, again = await fail(app, operator, mariadb, number)

    assert_problem(answer, 503, "unavailable")
    assert times == 1 or number in driver.LOST  # a statement that found its connection dead is sent once more
    assert again.status == 201
    assert_told_once(log_lines, WORDS)


@on_mariadb
@pytest.mark.parametrize("state", STATES, ids=STATES.get)
async def test_so_is_any_number_with_a_state_of_this_kind(
    app: Starlette,
    operator: HeldKey,
    mariadb: PrivateMariaDB,
    log_lines: list[logging.LogRecord],
    state: str,
) -> None:
    answer, _, again = await fail(app, operator, mariadb, 9998, state)

    assert_problem(answer, 503, "unavailable")
    assert again.status == 201
    assert_told_once(log_lines, WORDS)


@on_mariadb
@pytest.mark.parametrize("number", UNKNOWN, ids=UNKNOWN.get)
async def test_anything_unknown_is_a_500(
    app: Starlette, operator: HeldKey, mariadb: PrivateMariaDB, number: int
) -> None:
    answer, times, again = await fail(app, operator, mariadb, number)

    assert_problem(answer, 500, "internal_error")
    assert (times, again.status) == (1, 201)


class TestSQLite:
    @pytest.fixture
    def database_url(self, sqlite_template: Path, tmp_path: Path) -> str:
        (tmp_path / "latchkey.db").write_bytes(sqlite_template.read_bytes())
        return f"sqlite+aiosqlite:///{tmp_path / 'latchkey.db'}"

    @pytest.mark.parametrize(
        "begin, end, words",
        [
            pytest.param("query_only = 1", "query_only = 0", "readonly database", id="read-only"),
            pytest.param("max_page_count = 1", "max_page_count = 1000000", "disk is full", id="full"),
        ],
    )
    async def test_a_file_that_cannot_be_written_is_unavailable(
        self,
        app: Starlette,
        operator: HeldKey,
        settings: Settings,
        log_lines: list[logging.LogRecord],
        begin: str,
        end: str,
        words: str,
    ) -> None:
        async def set_pragma(pragma: str) -> None:
            async with app.state.db.engine.connect() as connection:
                raw = await connection.get_raw_connection()
                await raw.driver_connection.execute(f"PRAGMA {pragma}")

        body = {**NEW, "name": "a" * 200}
        await set_pragma(begin)
        answers = [
            await call(
                app, "POST", "/v1/users", key=operator, body={**body, "email": f"{number}@example.com"}
            )
            for number in range(60)
        ]
        await set_pragma(end)
        again = await call(app, "POST", "/v1/users", key=operator, body={**body, "email": "last@example.com"})

        refused = [one for one in answers if one.status != 201]
        assert refused
        for one in refused:
            assert_problem(one, 503, "unavailable")
        assert again.status == 201
        assert len(lines_of(log_lines)) == len(refused)
        assert {words in line.getMessage() for line in lines_of(log_lines)} == {True}
