"""The suite's own MariaDB has the properties that other tests rely on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncmy
import pytest

import tests.mariadb
from benchmarks.ports import free_port
from tests.mariadb import MISSING, PROGRAM, REQUIRE, PrivateMariaDB, require_or_skip


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateMariaDB]:
    require_or_skip()
    with PrivateMariaDB() as server:
        server.execute("CREATE TABLE latchkey.rows_kept (id INT PRIMARY KEY) ENGINE=InnoDB")
        yield server


async def connect(server: PrivateMariaDB) -> Any:
    """Connect as `app`, over TCP, with the URL alone."""
    host = server.url.removeprefix("mysql+asyncmy://")
    credentials, _, address = host.partition("@")
    user, _, password = credentials.partition(":")
    address, _, database = address.partition("/")
    name, _, port = address.partition(":")
    return await asyncmy.connect(host=name, port=int(port), user=user, password=password, db=database)


@pytest.mark.mariadb
async def test_the_url_opens_the_database(server: PrivateMariaDB) -> None:
    app = await connect(server)
    async with app.cursor() as cursor:
        await cursor.execute("SELECT database(), current_user(), @@character_set_database")
        answer = await cursor.fetchone()
    await app.ensure_closed()

    assert answer == ("latchkey", "app@127.0.0.1", "utf8mb4")


@pytest.mark.mariadb
async def test_a_row_survives_a_killed_server(server: PrivateMariaDB) -> None:
    app = await connect(server)
    async with app.cursor() as cursor:
        await cursor.execute("INSERT INTO rows_kept VALUES (1)")
    await app.commit()
    app.close()
    url = server.url

    server.kill()
    with pytest.raises(asyncmy.errors.OperationalError):
        await connect(server)
    server.start()

    assert server.url == url
    assert server.execute("SELECT id FROM latchkey.rows_kept") == "1\n"


@pytest.mark.mariadb
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("INSERT INTO rows_kept VALUES (100)", id="that wrote"),
        pytest.param("SELECT * FROM rows_kept", id="that only read"),
        pytest.param("SELECT * FROM rows_kept FOR UPDATE", id="that holds locks"),
    ],
)
async def test_an_open_transaction_is_seen_at_once_and_only_while_it_is_open(
    server: PrivateMariaDB, statement: str
) -> None:
    server.create_database("neighbour")
    app = await connect(server)
    counts = [await server.open_transactions()]
    async with app.cursor() as cursor:
        await cursor.execute(statement)
        counts.append(await server.open_transactions())
        neighbours = await server.open_transactions("neighbour")
    await app.rollback()
    counts.append(await server.open_transactions())
    await app.ensure_closed()

    assert counts == [0, 1, 0]
    assert neighbours == 0


@pytest.mark.mariadb
async def test_every_open_transaction_counts(server: PrivateMariaDB) -> None:
    apps = [await connect(server) for _ in range(3)]
    for number, app in enumerate(apps):
        async with app.cursor() as cursor:
            await cursor.execute("INSERT INTO rows_kept VALUES (%s)", (200 + number,))

    assert await server.open_transactions() == 3

    for app in apps:
        await app.rollback()
        await app.ensure_closed()


@pytest.mark.mariadb
async def test_a_database_made_again_is_empty(server: PrivateMariaDB) -> None:
    server.create_database("again")
    server.execute("CREATE TABLE again.leftover (id INT)")

    await asyncio.to_thread(server.create_database, "again")

    assert server.execute("SHOW TABLES IN again") == ""


@pytest.mark.mariadb
def test_a_taken_port_is_left_to_its_owner(server: PrivateMariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = iter([server.port, free_port()])
    monkeypatch.setattr("benchmarks.mariadb.free_port", lambda: next(ports))

    with PrivateMariaDB() as second:
        assert second.port != server.port
        assert second.execute("SELECT 1") == "1\n"


@pytest.mark.mariadb
def test_stopping_leaves_nothing_behind() -> None:
    require_or_skip()
    with PrivateMariaDB() as server:
        folder = server.socket.parent
        assert folder.is_dir()

    assert not folder.exists()


@pytest.mark.parametrize(
    ("required", "outcome"),
    [("", pytest.skip.Exception), ("1", pytest.fail.Exception)],
    ids=["skips", "fails"],
)
def test_without_mariadb_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, required: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv(REQUIRE, required)
    monkeypatch.delenv(PROGRAM, raising=False)
    monkeypatch.setattr(tests.mariadb, "find_mariadbd", lambda: None)

    with pytest.raises(outcome) as raised:
        require_or_skip()

    assert str(raised.value) == MISSING


def test_a_server_that_is_named_and_missing_is_no_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PROGRAM, str(tmp_path / "mariadbd"))

    with pytest.raises(pytest.fail.Exception, match="LATCHKEY_TEST_MARIADBD: there is no"):
        require_or_skip()


def test_a_program_off_the_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_or_skip()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert tests.mariadb.find_mariadbd()
