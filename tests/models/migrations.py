"""An empty database for migrations, as often as needed, and the first release with rows."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.models import ApiKey, KeySecret, User
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings
from tests.conftest import table_of

MADE = "2026-01-02 03:04:05.678901"
KEY = "INSERT INTO api_keys (id, access_key, user_id, name, mode, scopes, status, secret_sha256, created_at, updated_at)"
ROWS = (
    f"INSERT INTO users VALUES (1, 'a@b', X'614062', 'Ann', 'active', '{MADE}', '{MADE}')",
    f"{KEY} VALUES (1, X'61', 1, 'b', 'bearer', 'a:b', 'active', X'{'01' * 32}', '{MADE}', '{MADE}')",
    f"{KEY} VALUES (2, X'62', 1, 's', 'signed', '', 'active', X'{'02' * 32}', '{MADE}', '{MADE}')",
    f"INSERT INTO key_secrets VALUES (2, 1, X'{'03' * 60}', '{MADE}')",
)


class Place:
    """An empty database, as often as needed, and the engines to close at the end."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.server = request.getfixturevalue("mariadb") if request.param == "mariadb" else None
        self.folder = folder
        self.engines: list[AsyncEngine] = []
        self.url = f"sqlite+aiosqlite:///{folder / 'broken.db'}"
        if self.server is not None:
            self.url = self.server.url_of("broken")
        self.empty()

    def settings(self) -> Settings:
        return Settings(database_url=self.url, pool_size=2)

    def empty(self) -> None:
        if self.server is not None:
            self.server.create_database("broken")
            return
        for one in self.folder.glob("broken.db*"):
            one.unlink()

    def engine(self) -> AsyncEngine:
        """Return an engine, which is closed at the end of the test."""
        engine = create_engines(self.settings()).writer
        self.engines.append(engine)
        return engine

    async def first_release(self) -> AsyncEngine:
        """Return the database at the first revision, with a key of each mode."""
        engine = self.engine()
        await schema.upgrade(engine, "0001")
        async with engine.begin() as connection:
            for statement in ROWS:
                await connection.exec_driver_sql(statement)
        return engine


async def contents(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    """Return the rows of the tables that the first release had."""
    async with engine.connect() as connection:
        tables = [table_of(model) for model in (User, ApiKey, KeySecret)]
        return [
            tuple(row)
            for table in tables
            for row in await connection.execute(select(table).order_by(*table.primary_key))
        ]
