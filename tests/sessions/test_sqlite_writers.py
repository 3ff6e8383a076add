"""SQLite has one writer at a time; a writer whose wait times out gets a 503."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from starlette.requests import Request

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, lock_wait_s=1)


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    file = tmp_path / "busy.db"
    file.write_bytes(sqlite_template.read_bytes())
    return f"sqlite+aiosqlite:///{file}"


async def test_a_new_file_that_another_process_is_writing_is_waited_for(
    settings: Settings, tmp_path: Path
) -> None:
    """SQLite refuses to change the journal mode at once, without its usual wait."""
    file = tmp_path / "new.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE made (id INTEGER)")
        asyncio.get_running_loop().call_later(0.2, other.execute, "COMMIT")
        url = f"sqlite+aiosqlite:///{file}"
        engines = create_engines(msgspec.structs.replace(settings, database_url=url))
        async with engines.writer.connect() as connection:
            assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
        await engines.writer.dispose()


async def test_a_writer_that_waits_in_vain_is_a_503_and_is_not_run_again(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    runs: list[int] = []

    async def write(request: Request) -> None:
        runs.append(1)
        await User.create(email="a@b", name="n")

    async with db.engine.begin():
        answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert runs == [1]
