"""SQLite has one writer at a time; a writer whose wait times out gets a 503."""

from pathlib import Path

import msgspec
import pytest
from starlette.requests import Request

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
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
