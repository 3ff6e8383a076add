"""A removed or replaced SQLite file takes no writes, and a connection that cannot write does not stay in the pool."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.applications import Starlette

from latchkey.models import User
from tests.api import HeldKey, assert_problem, call

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
pytestmark = on_sqlite

ANN = {"email": "ann@example.com", "name": "Ann"}


@pytest.mark.parametrize("change", ["removed", "replaced by a copy", "replaced by an empty file"])
@pytest.mark.parametrize("pooled", [True, False])
async def test_a_file_that_is_another_one_is_refused(
    app: Starlette, operator: HeldKey, tmp_path: Path, change: str, pooled: bool
) -> None:
    file, away = tmp_path / "latchkey.db", tmp_path / "away.db"
    file.rename(away)
    if change == "replaced by a copy":
        shutil.copy(away, file)
    elif change == "replaced by an empty file":
        file.touch()
    if not pooled:
        for engine in (app.state.db.engine, app.state.db.reader):
            await engine.dispose()

    write = await call(app, "POST", "/v1/users", key=operator, body=ANN)
    read = await call(app, "GET", "/v1/users", key=operator)
    ready = await call(app, "GET", "/readyz")
    found = file.stat().st_size if file.exists() else None
    away.rename(file)
    after = await call(app, "POST", "/v1/users", key=operator, body=ANN)

    for answer in (write, read, ready):
        assert_problem(answer, 503, "unavailable")
    assert found == {"removed": None, "replaced by an empty file": 0}.get(change, found)
    assert after.status == 201, "it is the first file again"


async def test_a_file_that_is_removed_before_commit_is_noticed(app: Starlette, tmp_path: Path) -> None:
    async with app.state.db.scoped_session() as session:
        await User.create(email=ANN["email"], name=ANN["name"])
        (tmp_path / "latchkey.db").rename(tmp_path / "away.db")
        with pytest.raises(Exception, match="removed or replaced"):
            await session.commit()
        (tmp_path / "away.db").rename(tmp_path / "latchkey.db")

    assert await User.filter().count() == 0


async def test_a_connection_that_cannot_write_does_not_stay(app: Starlette, operator: HeldKey) -> None:
    """As one that was opened before `chmod`."""
    async with app.state.db.engine.connect() as connection:
        await connection.execute(text("PRAGMA query_only = ON"))

    refused = await call(app, "POST", "/v1/users", key=operator, body=ANN)
    after = await call(app, "POST", "/v1/users", key=operator, body=ANN)

    assert_problem(refused, 503, "unavailable")
    assert after.status == 201
