"""R6 and R4 under cancellation: at whatever moment a request is cancelled, nothing leaks and every 2xx is true.

`make test` cancels once at each point; `LATCHKEY_TEST_STORM=long` does so three times, and also with anyio.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url
from starlette.applications import Starlette

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.settings import Settings
from tests.sessions.storm import FINDINGS, KINDS, Findings, Kind, cancel_at_every_point, sqlite_is_locked

pytestmark = pytest.mark.storm

LONG = os.environ.get("LATCHKEY_TEST_STORM") == "long"
HOWS = ("once", "threefold", "anyio") if LONG else ("once",)
ROUNDS = range(3 if LONG else 1)


@pytest.fixture
def open_transactions(settings: Settings, request: pytest.FixtureRequest) -> Callable[[], Awaitable[int]]:
    """Return the number of open transactions, as the server reports it."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "mysql":
        return request.getfixturevalue("mariadb").open_transactions

    async def ask() -> int:
        return sqlite_is_locked(str(url.database))

    return ask


@pytest.fixture
def findings(settings: Settings, request: pytest.FixtureRequest) -> Findings:
    """Return the findings of all storms on this database, for the summary."""
    tallies = request.config.stash.setdefault(FINDINGS, {})
    return tallies.setdefault(make_url(settings.database_url).get_backend_name(), Findings())


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("where", ["suspension", "step"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.replace(" ", "-"))
async def test_a_cancelled_request_leaves_nothing_and_lies_about_nothing(
    app: Starlette,
    db: SQLAlchemy,
    kind: Kind,
    where: Any,
    how: Any,
    round_: int,
    open_transactions: Callable[[], Awaitable[int]],
    findings: Findings,
) -> None:
    found = await cancel_at_every_point(
        app, db, kind, where=where, how=how, open_transactions=open_transactions
    )

    findings.add(found)
    assert found.leaks == []
    assert found.missing == []
    assert found.cancellations > 0


@pytest.mark.parametrize("kind", [one for one in KINDS if one.writes], ids=lambda kind: kind.name)
async def test_nor_does_one_whose_changes_are_watched(
    app: Starlette,
    db: SQLAlchemy,
    kind: Kind,
    open_transactions: Callable[[], Awaitable[int]],
    findings: Findings,
) -> None:
    """As with the key cache: each commit is announced before it is answered, cancelled or not."""
    told: set[int] = set()

    async def watch(_table: str, id: int) -> None:
        await asyncio.sleep(0)
        told.add(id)

    db.watch(watch)
    found = await cancel_at_every_point(
        app, db, kind, where="suspension", how="once", open_transactions=open_transactions
    )

    findings.add(found)
    assert (found.leaks, found.missing) == ([], [])
    async with db.reader.connect() as connection:
        stored = set((await connection.execute(select(User.id).where(User.id > 2))).scalars())
    assert stored
    assert stored <= told
