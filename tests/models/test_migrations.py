"""The migrations, on both databases, each time from an empty database."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.models import ApiKey, Base, KeySecret, User
from latchkey.service.app import create_app
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines, name_of
from latchkey.service.settings import Settings
from tests.conftest import KEYRING
from tests.requests import request

REVISIONS = [one.revision for one in ScriptDirectory.from_config(schema._config()).walk_revisions()][::-1]


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A database without a table."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
    if request.param == "mariadb":
        server = request.getfixturevalue("mariadb")
        server.create_database("migrations")
        url = server.url_of("migrations")
    return Settings(database_url=url, keyring=KEYRING, pool_size=2)


@pytest.fixture
async def engine(empty: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_engines(empty).writer
    yield engine
    await engine.dispose()


async def primary_keys(engine: AsyncEngine) -> dict[str, list[str]]:
    def look(connection: Connection) -> dict[str, list[str]]:
        inspector = inspect(connection)
        return {
            name: inspector.get_pk_constraint(name)["constrained_columns"]
            for name in inspector.get_table_names()
        }

    async with engine.connect() as connection:
        return await connection.run_sync(look)


async def test_from_empty_to_what_the_models_say(engine: AsyncEngine) -> None:
    assert await schema.revision(engine) is None

    await schema.upgrade(engine)

    assert await schema.revision(engine) == schema.head() == REVISIONS[-1]
    assert await schema.differences(engine) == []
    assert set(await primary_keys(engine)) == {"alembic_version", *Base.metadata.tables}


async def test_every_table_has_a_primary_key(engine: AsyncEngine) -> None:
    await schema.upgrade(engine)

    assert [name for name, columns in (await primary_keys(engine)).items() if not columns] == []


async def test_running_twice_changes_nothing(engine: AsyncEngine) -> None:
    await schema.upgrade(engine)
    before = await primary_keys(engine)

    await schema.upgrade(engine)

    assert await primary_keys(engine) == before
    assert await schema.revision(engine) == schema.head()


async def test_revision_by_revision_from_the_release_before(engine: AsyncEngine) -> None:
    """Each step starts from the result of the release before it, and the last one equals the models."""
    for revision in REVISIONS:
        await schema.upgrade(engine, revision)
        assert await schema.revision(engine) == revision

    assert await schema.differences(engine) == []


async def test_the_secrets_of_the_release_before_get_a_version(engine: AsyncEngine) -> None:
    """Revision 0001 stored the hash with the key, and a secret that signs in a separate row."""
    await schema.upgrade(engine, "0001")
    made, sealed = "2026-01-02 03:04:05.678901", "2026-01-02 03:04:06.000001"
    names = [f"X'{name.hex()}'" for name in (b"lka_bearer", b"lka_signed")]
    keys = "INSERT INTO api_keys (id, access_key, user_id, name, mode, scopes, status, secret_sha256, created_at, updated_at)"
    async with engine.begin() as connection:
        for statement in (
            f"INSERT INTO users VALUES (1, 'a@b', 'a@b', 'Ann', 'active', '{made}', '{made}')",
            f"{keys} VALUES (1, {names[0]}, 1, 'b', 'bearer', 'a:b', 'active', X'{'01' * 32}', '{made}', '{made}')",
            f"{keys} VALUES (2, {names[1]}, 1, 's', 'signed', '', 'revoked', X'{'02' * 32}', '{made}', '{made}')",
            f"INSERT INTO key_secrets VALUES (2, 1, X'{'03' * 60}', '{sealed}')",
        ):
            await connection.exec_driver_sql(statement)

    await schema.upgrade(engine)

    async with engine.connect() as connection:
        rows = (await connection.execute(select(inspect(KeySecret).local_table).order_by("api_key_id"))).all()
        api_keys = (await connection.execute(select(inspect(ApiKey).local_table).order_by("id"))).all()
    made_at, sealed_at = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (made, sealed))
    assert [tuple(row) for row in rows] == [
        (1, 1, b"\1" * 32, None, made_at, None),
        (2, 1, b"\2" * 32, b"\3" * 60, sealed_at, None),
    ]
    assert [(key.access_key, key.user_id, key.mode, key.scopes, key.status) for key in api_keys] == [
        ("lka_bearer", 1, "bearer", ("a:b",), "active"),
        ("lka_signed", 1, "signed", (), "revoked"),
    ]
    assert [key.allowed_networks for key in api_keys] == [(), ()]
    assert [(key.limits, key.quota) for key in api_keys] == [((), None)] * 2
    assert [(key.secret_version, key.old_secret_calls, key.old_secret_last_used_at) for key in api_keys] == [
        (1, 0, None),
        (1, 0, None),
    ]


async def test_the_history_is_one_line_forward() -> None:
    scripts = ScriptDirectory.from_config(schema._config())

    assert len(scripts.get_heads()) == len(scripts.get_bases()) == 1
    assert [one.revision for one in scripts.walk_revisions() if hasattr(one.module, "downgrade")] == []


async def test_a_difference_is_told(engine: AsyncEngine) -> None:
    await schema.upgrade(engine)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE users ADD COLUMN nickname VARCHAR(10)"))

    (told,) = await schema.differences(engine)

    assert "remove_column" in told
    assert "nickname" in told


async def start(settings: Settings) -> None:
    """Start the application as a server does, answer one request, and stop it."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        assert (await request(app, "GET", "/healthz")).status == 200


async def test_a_migrated_database_is_started_on(empty: Settings, engine: AsyncEngine) -> None:
    await schema.upgrade(engine)

    await start(empty)


@pytest.mark.parametrize(
    ("prepare", "found"),
    [
        pytest.param([], "none", id="an empty one"),
        pytest.param(["DELETE FROM alembic_version"], "none", id="one that has lost its revision"),
    ],
)
async def test_a_database_that_is_not_migrated_is_refused_at_the_start(
    empty: Settings, engine: AsyncEngine, prepare: list[Any], found: str
) -> None:
    if prepare:
        await schema.upgrade(engine)
    async with engine.begin() as connection:
        for statement in prepare:
            await connection.execute(text(statement))

    with pytest.raises(schema.NotMigratedError) as raised:
        await start(empty)

    assert str(raised.value) == (
        f"the database {name_of(engine.url)} is at revision {found} and this release needs {schema.head()}: "
        "run `latchkey migrate`."
    )
    assert User.scoped_session is None


async def test_a_database_from_the_future_is_refused_at_the_start(
    empty: Settings, engine: AsyncEngine
) -> None:
    await schema.upgrade(engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(schema.NewerDatabaseError, match="revision 9999, which this release does not know"):
        await start(empty)


def test_migrations_import_nothing_that_may_change() -> None:
    """A migration is history: a later change of the models must not change it."""
    folder = Path(schema.__file__).parents[2] / "migrations" / "versions"
    found = {
        found[0]
        for page in folder.glob("*.py")
        for found in re.finditer(r"^(?:from|import) latchkey[.\w]*", page.read_text(), re.MULTILINE)
    }

    assert found <= {"from latchkey.migrations.steps", "from latchkey.migrations.types"}
    assert found
