"""A server that starts its sessions with autocommit off: autocommitted statements are still committed at once."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncmy
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.engine import make_url
from starlette.applications import Starlette

from latchkey.models import Nonce, User
from latchkey.service.database import driver
from tests import mysql
from tests.api import call, hold_key
from tests.conftest import on_mariadb
from tests.mariadb import PrivateMariaDB
from tests.service.limits.rules import limit


@pytest.fixture
def database_url(request: pytest.FixtureRequest, mariadb: PrivateMariaDB, mariadb_url: str) -> Iterator[str]:
    mariadb.execute("SET GLOBAL autocommit = 0")
    yield mariadb_url
    mariadb.execute("SET GLOBAL autocommit = 1")


def arguments(database_url: str) -> dict[str, Any]:
    url = make_url(database_url)
    return {
        "host": url.host, "port": url.port, "user": url.username, "password": url.password, "db": url.database
    }  # fmt: skip


async def autocommit_of(connection: Any) -> int:
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT @@autocommit")
        return (await cursor.fetchone())[0]


@on_mariadb
async def test_the_driver_alone_is_told_so_by_mariadb_only(database_url: str) -> None:
    """MySQL reports autocommit in its flag, so asyncmy sends nothing. When this fails on MySQL, the server was corrected."""
    connection = await asyncmy.connect(**arguments(database_url), autocommit=True)
    found = await autocommit_of(connection)
    connection.close()

    assert found == (0 if mysql.is_chosen() else 1)


@on_mariadb
@pytest.mark.parametrize("sets", [True, False])
async def test_our_connection_is_what_it_was_made_for(database_url: str, sets: bool) -> None:
    connection = await driver.connect(
        **arguments(database_url), variables={"autocommit": 1} if sets else None, autocommit=sets
    )
    found = await autocommit_of(connection)
    connection.close()

    assert found == int(sets)


@on_mariadb
async def test_reads_nonces_limits_and_writes_are_what_they_are_elsewhere(
    app: Starlette, open_transactions: Callable[[], Awaitable[int]]
) -> None:
    signer = await hold_key(app, mode="signed", limits=[limit("few", 2)])
    answers = [await call(app, "GET", "/v1/users", key=signer) for _ in range(3)]
    operator = await hold_key(app)
    made = await call(
        app, "POST", "/v1/users", key=operator, body={"email": "ann@example.com", "name": "Ann"}
    )
    async with app.state.db.engine.begin() as other:
        await other.execute(update(User).where(User.id == made.json["id"]).values(name="Bob"))
    read = await call(app, "GET", f"/v1/users/{made.json['id']}", key=operator)
    signed = await call(
        app, "POST", "/v1/users", key=signer, body={"email": "cid@example.com", "name": "Cid"}
    )

    assert [one.status for one in answers] == [200, 200, 429]
    assert (made.status, read.json["name"]) == (201, "Bob")
    assert signed.status == 429
    assert await open_transactions() == 0
    async with app.state.db.engine.connect() as other:
        assert (await other.execute(text("SELECT @@autocommit"))).scalar() == 0
        assert (await other.execute(select(func.count()).select_from(User))).scalar() == 2
        await other.rollback()


@on_mariadb
async def test_a_nonce_is_committed_at_once(app: Starlette) -> None:
    signer = await hold_key(app, mode="signed")
    answer = await call(app, "POST", "/v1/users", key=signer, body={"email": "a@example.com", "name": "A"})

    assert answer.status == 201
    async with app.state.db.engine.connect() as other:
        assert (await other.execute(select(func.count()).select_from(Nonce))).scalar() == 1
        await other.rollback()
