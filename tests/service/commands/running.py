"""Commands in this process: their arguments, and what they print."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from click.testing import Result

from benchmarks.ports import free_port
from latchkey.service.app import create_app
from latchkey.service.database.engines import create_engines
from latchkey.service.routes import ROUTES, declared_scopes
from latchkey.service.settings import Settings
from tests.requests import Answer, request

Run = Callable[..., Result]


EVERY_SCOPE = ",".join(sorted(declared_scopes(ROUTES)))


NO_KEY = "lka_0000000000000000000000"


A_SECRET = "lks_00000000000000000000000000000000000000000003GTfko"


SERVE = ("serve", "--port", str(free_port()))  # the default may be used by the developer's server


def good(result: Result) -> Result:
    """Assert that a command succeeded."""
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result


def answered(result: Result) -> Any:
    """Return the JSON of a command that succeeded."""
    return json.loads(good(result).stdout)


def ask(settings: Settings, bearer: str, *calls: tuple[str, str, str]) -> list[Answer]:
    """Make calls of method, path and query to the application, one after another."""

    async def converse() -> list[Answer]:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            return [
                await request(app, method, path, query=query, headers={"authorization": f"Bearer {bearer}"})
                for method, path, query in calls
            ]

    return asyncio.run(converse())


CREATE_USER = ("users", "create", "--name", "Ann", "--email")


CREATE_KEY = ("keys", "create", "--user", "1", "--name", "k", "--mode", "bearer")


YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat()


async def set_revision(settings: Settings, revision: str | None) -> None:
    """Store a revision in a database that does not match its schema."""
    engine = create_engines(settings).writer
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    await engine.dispose()
