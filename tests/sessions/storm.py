"""Cancel a request at every point where it can be cancelled."""

import asyncio
import sqlite3
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Literal

import anyio
import msgspec
import pytest
from sqlalchemy import func, select
from starlette.types import ASGIApp

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from tests.requests import Answer, converse, request

Where = Literal["suspension", "step"]
How = Literal["once", "threefold", "anyio"]

FINISHED_IN_A_ROW = 3  # how often a request must finish by itself before n counts as past its end
N_LIMIT = 5000  # much larger than any n that is reached


class Findings(msgspec.Struct):
    """The work and the findings of a storm."""

    cancellations: int = 0
    acknowledged: int = 0
    leaks: list[str] = []
    missing: list[str] = []

    def add(self, other: "Findings") -> None:
        self.cancellations += other.cancellations
        self.acknowledged += other.acknowledged
        self.leaks = self.leaks + other.leaks
        self.missing = self.missing + other.missing


FINDINGS = pytest.StashKey[dict[str, Findings]]()
"""The findings of the storms on each kind of database, for the summary."""


class Kind(msgspec.Struct, frozen=True):
    """A request to cancel; `promises` if its 2xx states that a row was stored."""

    name: str
    method: str
    path: str
    writes: Literal["body", "header"] | None = None
    promises: bool = False


KINDS = (
    Kind("read", "GET", "/read/1"),
    Kind("write", "POST", "/write", writes="body", promises=True),
    Kind("failing write", "POST", "/fail"),
    Kind("streamed answer", "GET", "/stream"),
    Kind("background work", "POST", "/background", writes="header"),
    Kind("child tasks", "GET", "/children"),
)


@types.coroutine
def cancel_at_suspension(
    work: Coroutine[Any, Any, Any], n: int, cancel: Callable[[], None]
) -> Generator[Any, Any, Any]:
    """Run `work`, and cancel it right after its suspension number n."""
    inner = work.__await__()
    suspensions = 0
    sent: Any = None
    thrown: BaseException | None = None
    while True:
        try:
            future = inner.throw(thrown) if thrown is not None else inner.send(sent)
        except StopIteration as end:
            return end.value
        if suspensions == n:
            asyncio.get_running_loop().call_soon(cancel)
        suspensions += 1
        thrown = None
        try:
            sent = yield future
        except BaseException as error:
            thrown = error


async def request_and_cancel(
    app: ASGIApp, kind: Kind, email: str, *, where: Where, how: How, n: int
) -> tuple[Answer, bool]:
    """Make one request and cancel it at point n; return its answer, and whether it had finished before."""
    answer = Answer()
    scope = anyio.CancelScope() if how == "anyio" else None
    options: dict[str, Any] = {"answer": answer}
    if kind.writes == "body":
        options["body"] = {"email": email}
    elif kind.writes == "header":
        options["headers"] = {"x-email": email}
    interrupted = False

    def cancel() -> None:
        nonlocal interrupted
        interrupted = not task.done()
        if scope is not None:
            scope.cancel()
            return
        task.cancel()
        if how == "threefold":
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: (task.cancel(), loop.call_soon(task.cancel)))

    async def run() -> None:
        work = converse(app, kind.method, kind.path, **options)
        if where == "suspension":
            work = cancel_at_suspension(work, n, cancel)
        if scope is None:
            await work
            return
        with scope:
            await work

    task = asyncio.create_task(run())
    if where == "step":
        for _ in range(n):
            if task.done():
                break
            await asyncio.sleep(0)
        cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    return answer, not interrupted


async def cancel_at_every_point(
    app: ASGIApp,
    db: SQLAlchemy,
    kind: Kind,
    *,
    where: Where,
    how: How,
    open_transactions: Callable[[], Awaitable[int]],
) -> Findings:
    """Cancel one kind of request at n = 0, 1, 2, … until it finishes by itself, and check what is left behind."""
    findings = Findings()
    finished = 0
    for n in range(N_LIMIT):
        email = f"{how}-{where}-{n}@{kind.name.replace(' ', '-')}.example"
        answer, by_itself = await request_and_cancel(app, kind, email, where=where, how=how, n=n)
        point = f"{kind.name}, {how} at {where} {n}"
        findings.cancellations += not by_itself
        findings.leaks += [f"{point}: {what}" for what in await left_over(db, open_transactions)]
        if (kind.promises and answer.status == 201) or (kind.writes and by_itself):
            findings.acknowledged += 1
            if not await stored(db, email):
                findings.missing.append(point)
        following = await request(app, "GET", "/read/2")
        if following.body != b'{"seen":"second"}':
            findings.leaks.append(f"{point}: the next request read {following.status} {following.body!r}")
        finished = finished + 1 if by_itself else 0
        if finished == FINISHED_IN_A_ROW:
            return findings
    raise AssertionError(f"{kind.name} never finished by itself")


async def left_over(db: SQLAlchemy, open_transactions: Callable[[], Awaitable[int]]) -> list[str]:
    """Return a description of what a request leaves behind after a few loop steps."""
    registry = db.scoped_session.registry.registry
    for _ in range(10):
        if not registry and not db.checked_out():
            break
        await asyncio.sleep(0)
    found = []
    if registry:
        found.append(f"{len(registry)} sessions registered")
    if db.checked_out():
        found.append(f"{db.checked_out()} connections checked out")
    for _ in range(40):  # the server notices a closed connection a moment later
        if not (transactions := await open_transactions()):
            break
        await asyncio.sleep(0.005)
    else:
        found.append(f"{transactions} transactions open on the server")
    return found


async def stored(db: SQLAlchemy, email: str) -> bool:
    """Return whether the row exists, bypassing the session layer."""
    async with db.reader.connect() as connection:
        count = select(func.count()).select_from(User).where(User.email == email)
        return (await connection.execute(count)).scalar_one() == 1


def sqlite_is_locked(file: str) -> int:
    """Return 1 when another connection holds SQLite's write lock, otherwise 0."""
    connection = sqlite3.connect(file, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return 1
    else:
        return 0
    finally:
        connection.close()
