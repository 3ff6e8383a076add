"""A unit of work whose transaction is ended by the server is run again as a whole, or refused, and never half committed."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncmy
import asyncmy.connection
import pytest
from asyncmy import errors
from sqlalchemy import event, select
from sqlalchemy.engine import make_url
from sqlalchemy.util.concurrency import await_
from starlette.applications import Starlette

from latchkey.middleware.session_errors import TransactionEndedError
from latchkey.models import ApiKey, User
from latchkey.service.database import driver
from tests import mysql
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import on_mariadb

ROW = "ROW(%s, 'x')" if mysql.is_chosen() else "(%s, 'x')"


def arguments(url: str) -> dict[str, Any]:
    parsed = make_url(url)
    return {
        "host": parsed.host,
        "port": parsed.port,
        "user": parsed.username,
        "password": parsed.password,
        "database": parsed.database,
        "stmt_cache_size": 8,
    }


async def refuse(*_: Any) -> Any:
    raise errors.OperationalError(1213, "Deadlock found when trying to get lock")


@pytest.fixture
async def plain(mariadb_url: str) -> AsyncIterator[asyncmy.Connection]:
    connection = await asyncmy.connect(**arguments(mariadb_url))
    yield connection
    connection.close()


@pytest.fixture
async def own(mariadb_url: str) -> AsyncIterator[driver.Connection]:
    connection = await driver.connect(**arguments(mariadb_url))
    yield connection
    connection.close()


@pytest.mark.mariadb
class TestPreparing:
    async def test_asyncmy_itself_still_swallows_the_error(
        self, plain: asyncmy.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When a release of asyncmy raises it, this test fails; remove `latchkey.service.database.driver.Connection` then."""
        monkeypatch.setattr(plain, "prepare", refuse)
        async with plain.cursor() as cursor:
            await cursor.execute("SELECT %s", (5,))

            assert await cursor.fetchone() == (5,)

    async def test_our_connection_raises_it(self, own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asyncmy.connection.Connection, "prepare", refuse)
        async with own.cursor() as cursor:
            with pytest.raises(errors.OperationalError, match="1213"):
                await cursor.execute("SELECT %s", (5,))

    async def test_statements_that_cannot_be_prepared_are_sent_as_text(self, own: Any) -> None:
        async with own.cursor() as cursor:
            await cursor.execute("SHOW VARIABLES LIKE %s", ("autocommit",))

            assert await cursor.fetchone() == ("autocommit", "OFF")

    @pytest.mark.parametrize(
        "statement",
        [
            "VALUES {} UNION ALL VALUES {}",
            "SELECT * FROM (VALUES {}, {}) AS v",
            "WITH v AS (VALUES {}, {}) SELECT * FROM v",
            "/* two rows */ values {}, {}",
        ],
    )
    async def test_table_values_keep_their_parameters(self, own: Any, statement: str) -> None:
        async with own.cursor() as cursor:
            await cursor.execute(statement.format(ROW, ROW), (1, 2))

            assert sorted(await cursor.fetchall()) == [(1, "x"), (2, "x")]

    async def test_table_values_are_stored_as_they_are(self, own: Any) -> None:
        async with own.cursor() as cursor:
            await cursor.execute("CREATE TEMPORARY TABLE numbers (n VARCHAR(5), s VARCHAR(5))")
            await cursor.execute(f"INSERT INTO numbers SELECT * FROM (VALUES {ROW}, {ROW}) AS v", (1, 2))
            await cursor.execute("SELECT n FROM numbers ORDER BY n")

            assert await cursor.fetchall() == (("1",), ("2",))

    @pytest.mark.parametrize(
        ("query", "is_prepared"),
        [
            ("INSERT INTO numbers (n) VALUES (%s)", True),
            ("INSERT INTO numbers VALUES (%s) ON DUPLICATE KEY UPDATE n = VALUES(n)", True),
            ("SELECT %s", True),
            ("SELECT * FROM (VALUES (%s)) AS v", False),
        ],
    )
    async def test_only_table_values_are_sent_as_text(
        self, own: Any, query: str, *, is_prepared: bool
    ) -> None:
        async with own.cursor() as cursor:
            await cursor.execute("CREATE TEMPORARY TABLE numbers (n INT PRIMARY KEY)")

            assert (await own._acquire_cached_statement(query, 1) is not None) is is_prepared

    async def test_a_mistake_in_the_statement_is_reported_as_ever(self, own: Any) -> None:
        async with own.cursor() as cursor:
            with pytest.raises(errors.ProgrammingError, match="1064"):
                await cursor.execute("SELEKT %s", (5,))


@contextmanager
def losing(app: Any, begins_with: str, times: int) -> Iterator[Callable[[], int]]:
    """Roll the transaction back in the server, right after a statement."""
    engine = app.state.db.engine.sync_engine
    left = times

    def lose(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal left
        if left and statement.startswith(begins_with):
            left -= 1
            await_(connection.connection.driver_connection.query("ROLLBACK"))

    event.listen(engine, "after_cursor_execute", lose)
    try:
        yield lambda: times - left
    finally:
        event.remove(engine, "after_cursor_execute", lose)


async def standing(app: Any, user_id: int) -> tuple[str, set[str]]:
    """Return the status of a user, and those of its keys."""
    async with app.state.db.reader.connect() as connection:
        user = (await connection.execute(select(User.status).where(User.id == user_id))).scalar_one()
        keys = (await connection.execute(select(ApiKey.status).where(ApiKey.user_id == user_id))).scalars()
        return user, set(keys)


@on_mariadb
async def test_between_two_statements_it_is_run_again(app: Starlette, operator: HeldKey) -> None:
    partner = await hold_key(app, email="partner@example.com", scopes=[])

    with losing(app, "UPDATE users", times=1) as lost:
        answer = await call(app, "DELETE", f"/v1/users/{partner.user_id}", key=operator)

    assert (answer.status, lost()) == (204, 1)
    assert await standing(app, partner.user_id) == ("deleted", {"revoked"})


@on_mariadb
async def test_before_commit_it_is_run_again(app: Starlette, operator: HeldKey) -> None:
    with losing(app, "INSERT INTO users", times=1) as lost:
        answer = await call(
            app, "POST", "/v1/users", key=operator, body={"email": "ann@example.com", "name": "Ann"}
        )

    assert (answer.status, lost()) == (201, 1)
    assert await standing(app, answer.json["id"]) == ("active", set())


@on_mariadb
async def test_a_transaction_that_is_lost_every_time_is_a_503_and_no_half(
    app: Starlette, operator: HeldKey
) -> None:
    partner = await hold_key(app, email="partner@example.com", scopes=[])

    with losing(app, "UPDATE users", times=100):
        answer = await call(app, "DELETE", f"/v1/users/{partner.user_id}", key=operator)

    assert_problem(answer, 503, "unavailable")
    assert await standing(app, partner.user_id) == ("active", {"active"})


@on_mariadb
async def test_an_idempotent_call_takes_effect_once(app: Starlette, operator: HeldKey) -> None:
    partner = await hold_key(app, email="partner@example.com", scopes=[])
    headers = [("idempotency-key", "once")]

    with losing(app, "UPDATE users", times=1):
        first = await call(app, "DELETE", f"/v1/users/{partner.user_id}", key=operator, headers=headers)
    again = await call(app, "DELETE", f"/v1/users/{partner.user_id}", key=operator, headers=headers)

    assert (first.status, again.status, again.headers["idempotent-replayed"]) == (204, 204, "true")
    assert await standing(app, partner.user_id) == ("deleted", {"revoked"})


@on_mariadb
async def test_a_block_that_goes_on_is_refused_by_name(app: Starlette) -> None:
    """On MySQL the first `create` notices it, because it selects what the server decided about the new row."""
    db = app.state.db
    async with db.scoped_session() as session:
        with pytest.raises(TransactionEndedError, match="the server ended the transaction"):
            with losing(app, "INSERT INTO users", times=1):
                await User.create(email="ann@example.com", name="Ann")
            await User.create(email="bob@example.com", name="Bob")
        await session.rollback()

        assert await User.filter().count() == 0


@on_mariadb
async def test_a_duplicate_key_ends_nothing(app: Starlette) -> None:
    """An error packet has no flag: a failed statement leaves the transaction open, and the rest is committed."""
    db = app.state.db
    async with db.scoped_session() as session:
        await User.create(email="ann@example.com", name="Ann")
        with pytest.raises(Exception, match="Duplicate"):
            async with session.begin_nested():
                await User.create(email="ann@example.com", name="Ann")
        await User.create(email="bob@example.com", name="Bob")
        await session.commit()

        assert await User.filter().count() == 2
