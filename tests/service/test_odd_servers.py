"""A server with unusual settings: each session sets what the service relies on, so the service does the same as on any other."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.engines import SESSION, parse_url
from latchkey.service.settings import Settings, SettingsError
from tests import mysql
from tests.api import HeldKey, call, hold_key
from tests.conftest import migrate, on_mariadb
from tests.mariadb import PrivateMariaDB, require_or_skip

OPTIONS = (
    "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT",
    "--default-time-zone=+05:00",
    "--character-set-server=latin1",
    "--default-storage-engine=MyISAM",
    "--transaction-isolation=READ-UNCOMMITTED",
    "--completion-type=2",
)
ON_MARIADB = ("--lower-case-table-names=1", "--skip-character-set-client-handshake")
GLOBALS = ("sql_select_limit = 1", "foreign_key_checks = 0", "unique_checks = 0", "sql_safe_updates = 1")
ODD_NAME = "An\u00ef \U0001f511 \\' \" ` %s --"


@pytest.fixture(scope="module")
def odd_server() -> Iterator[PrivateMariaDB]:
    if not mysql.is_chosen():
        require_or_skip()
    server = (
        mysql.PrivateMySQL(options=OPTIONS)
        if mysql.is_chosen()
        else PrivateMariaDB(options=(*OPTIONS, *ON_MARIADB))
    )
    with server:
        for one in GLOBALS:
            server.execute(f"SET GLOBAL {one}")
        asyncio.run(migrate(Settings(database_url=server.url)))
        yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest, odd_server: PrivateMariaDB) -> str:
    return odd_server.url


@on_mariadb
@pytest.mark.parametrize("name", ["engine", "reader"])
async def test_each_session_sets_what_the_service_relies_on(db: SQLAlchemy, name: str) -> None:
    numbers = {"completion_type": "NO_CHAIN"}
    isolation = "transaction_isolation" if mysql.is_chosen() else "tx_isolation"
    asked = [*SESSION, "character_set_client", "character_set_results", "character_set_connection", isolation]
    async with getattr(db, name).connect() as connection:
        found = (await connection.execute(text(f"SELECT {', '.join(f'@@{one}' for one in asked)}"))).one()

    wanted = [numbers.get(one, value) for one, value in SESSION.items()]
    assert list(found) == [*wanted, "utf8mb4", "utf8mb4", "utf8mb4", "READ-COMMITTED"]


@on_mariadb
async def test_calls_are_answered_as_on_any_other_server(app: Starlette, operator: HeldKey) -> None:
    bodies = [{"email": f"ann-{number}@example.com", "name": ODD_NAME} for number in range(3)]
    made = [await call(app, "POST", "/v1/users", key=operator, body=one) for one in bodies]
    again = await call(app, "POST", "/v1/users", key=operator, body=bodies[0])
    listed = await call(app, "GET", "/v1/users", key=operator)
    partner = await hold_key(app, email="ann-1@example.com", mode="signed", scopes=["users:read"])
    signed = await call(app, "GET", "/v1/me", key=partner)
    copies = [
        await call(
            app,
            "DELETE",
            f"/v1/users/{made[2].json['id']}",
            key=operator,
            headers=[("idempotency-key", "once")],
        )
        for _ in range(2)
    ]

    assert [one.status for one in made] == [201] * 3
    assert (again.status, again.json["code"]) == (409, "email_taken")
    assert [one["name"] for one in listed.json["data"]] == ["Operator", *[ODD_NAME] * 3]
    assert signed.status == 200
    assert [one.status for one in copies] == [204, 204]
    assert "idempotent-replayed" in copies[1].headers
    created = datetime.fromisoformat(made[0].json["created_at"])
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=5)


@on_mariadb
async def test_a_change_that_is_not_committed_is_not_read(app: Starlette, operator: HeldKey) -> None:
    async with app.state.db.engine.connect() as other:
        await other.execute(text("UPDATE api_keys SET status = 'revoked'"))

        answer = await call(app, "GET", "/v1/me", key=operator)

    assert answer.status == 200


@on_mariadb
async def test_a_value_that_does_not_fit_is_refused_and_not_cut(db: SQLAlchemy) -> None:
    """The verbs check it before; a statement of Core is checked by the server alone."""
    async with db.scoped_session() as session:
        with pytest.raises(DBAPIError, match="Data too long"):
            await session.execute(
                insert(User).values(email="ann@example.com", email_key="ann", name="a" * 201)
            )
        await session.rollback()


def test_another_character_set_in_the_url_is_refused() -> None:
    with pytest.raises(SettingsError, match="LATCHKEY_DATABASE_URL: charset must be utf8mb4"):
        parse_url("mysql+asyncmy://app:hunter2@127.0.0.1/d?charset=latin1", "LATCHKEY_DATABASE_URL")
