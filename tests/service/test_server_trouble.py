"""A fault of the server is a 503 with Retry-After, whatever its error number, and ends when the fault ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from starlette.applications import Starlette

from latchkey.service.database import driver
from tests import mysql
from tests.api import HeldKey, assert_problem, call
from tests.conftest import on_mariadb, only_on_mysql
from tests.mariadb import PrivateMariaDB

ACCOUNT = "'app'@'127.0.0.1'"


def trouble(begin: str, end: str, *, ready: bool, id: str, **options: Any) -> Any:
    """A fault of the server, its end, and whether reads work meanwhile."""
    return pytest.param(begin, end, ready, id=id, **options)


TROUBLES = [
    trouble("SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0", ready=True, id="it is read-only"),
    trouble(
        "SET GLOBAL transaction_read_only = 1" if mysql.is_chosen() else "SET GLOBAL tx_read_only = 1",
        "SET GLOBAL transaction_read_only = 0" if mysql.is_chosen() else "SET GLOBAL tx_read_only = 0",
        ready=True,
        id="transactions only read",
    ),
    trouble(
        f"ALTER USER {ACCOUNT} ACCOUNT LOCK",
        f"ALTER USER {ACCOUNT} ACCOUNT UNLOCK",
        ready=False,
        id="the account is locked",
    ),
    trouble(
        "SET GLOBAL offline_mode = 1",
        "SET GLOBAL offline_mode = 0",
        ready=False,
        id="it is offline",
        marks=only_on_mysql("MariaDB has no offline mode"),
    ),
]


@contextmanager
def troubled(server: Any, begin: str, end: str) -> Iterator[None]:
    server.execute(begin)
    try:
        yield
    finally:
        server.execute(end)


@pytest.fixture
def reconnect(app: Any) -> Callable[[], Any]:
    """Empty the pools, because most settings apply to new connections."""

    async def drop() -> None:
        for engine in (app.state.db.engine, app.state.db.reader):
            await engine.dispose()

    return drop


@on_mariadb
@pytest.mark.parametrize("pooled", [True, False], ids=["on connections of the pool", "on new connections"])
@pytest.mark.parametrize("begin, end, ready", TROUBLES)
async def test_trouble_of_the_server_is_no_error_of_ours(
    app: Starlette,
    operator: HeldKey,
    mariadb: PrivateMariaDB,
    reconnect: Callable[[], Any],
    begin: str,
    end: str,
    ready: bool,
    pooled: bool,
) -> None:
    new = {"email": "ann@example.com", "name": "Ann"}
    if not pooled:
        await reconnect()

    with troubled(mariadb, begin, end):
        answers = [
            await call(app, "POST", "/v1/users", key=operator, body=new),
            await call(app, "GET", "/readyz"),
            await call(app, "GET", "/v1/users", key=operator),
        ]
    await reconnect()
    again = await call(app, "POST", "/v1/users", key=operator, body={**new, "email": "bob@example.com"})

    assert {one.status for one in answers} <= {200, 201, 503}
    for one in answers:
        if one.status == 503:
            assert_problem(one, 503, "unavailable")
    if not pooled:
        assert [one.status for one in answers] == [503, *([200, 200] if ready else [503, 503])]
    assert again.status == 201


@pytest.mark.mariadb
@pytest.mark.parametrize(
    "password", ["p\u00e4ssw\u00f6rt", "\u043f\u0430\u0440\u043e\u043b\u044c", "\U0001f511"], ids=ascii
)
async def test_a_password_may_have_any_letters(
    mariadb: PrivateMariaDB, mariadb_url: str, password: str
) -> None:
    mariadb.execute(f"CREATE USER 'letters'@'127.0.0.1' IDENTIFIED BY '{password}'")
    url = make_url(mariadb_url)
    try:
        connection = await driver.connect(
            host=url.host, port=url.port, user="letters", password=password, stmt_cache_size=0
        )
        connection.close()
        with pytest.raises(driver.ConnectError, match="1045"):
            await driver.connect(host=url.host, port=url.port, user="letters", password=password + "\u0436")
    finally:
        mariadb.execute("DROP USER 'letters'@'127.0.0.1'")
