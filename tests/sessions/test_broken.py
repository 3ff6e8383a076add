"""A unit of work that lost its row, or its transaction, raises an error with an explanation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import MetaData, String, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError
from starlette.requests import Request

from latchkey.middleware.session_errors import BrokenTransactionError
from latchkey.models import Base, User
from latchkey.models.types import BigId
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.session import RequestSession
from tests.conftest import on_mariadb, tables_of
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route


class Document(Base):
    """A row with a version: an update must be based on the newest one."""

    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    __tablename__ = "broken_documents"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy reads it


@pytest.fixture
async def document(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(Document.metadata, db):
        await Document.create(id=1, title="first", auto_commit=True)
        yield


async def change_behind(session: AsyncSession) -> None:
    """Change the row as another transaction would have, between the read and the write."""
    table = Document.__table__
    await session.execute(update(table).values(version=table.c.version + 1))  # type: ignore[arg-type]  # a Table


async def rename(session: RequestSession, title: str, *, lose: bool) -> str:
    document = await session.get_one(Document, 1)
    if lose:
        await change_behind(session)
    document.title = title
    await session.flush()
    return document.title


@pytest.mark.usefixtures("document")
@pytest.mark.parametrize(("losses", "status", "runs"), [(1, 200, 2), (3, 200, 4), (9, 409, 4)])
async def test_a_version_that_lost_is_run_again_and_else_a_conflict(
    make_app: MakeApp, losses: int, status: int, runs: int
) -> None:
    seen: list[int] = []

    async def change(request: Request) -> str:
        seen.append(1)
        return await rename(request.state.session, "second", lose=len(seen) <= losses)

    answer = await request(make_app(value_route(change, "POST")), "POST", "/probe")

    assert (answer.status, len(seen)) == (status, runs)
    if status == 409:
        assert answer.json["code"] == "changed_meanwhile"
    assert (await Document.filter().one()).title == ("second" if status == 200 else "first")


@pytest.mark.usefixtures("document")
async def test_a_version_that_lost_at_commit_or_on_a_route_without_retry(make_app: MakeApp) -> None:
    async def change(request: Request) -> None:
        session = request.state.session
        document = await session.get_one(Document, 1)
        await change_behind(session)
        document.title = "second"

    answer = await request(make_app(value_route(change, "POST", retry=False)), "POST", "/probe")

    assert (answer.status, answer.json["code"]) == (409, "changed_meanwhile")


@pytest.mark.usefixtures("document")
async def test_in_a_block_it_is_sqlalchemy_s_error(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        with pytest.raises(StaleDataError):
            await rename(session, "second", lose=True)
        await session.rollback()
        await rename(session, "second", lose=False)
        await session.commit()


# ---------------------------------------------------------------------- a transaction that broke

Use = Callable[[RequestSession], Awaitable[Any]]
AFTERWARDS: dict[str, Use] = {
    "a statement": lambda session: session.execute(select(User)),
    "a scalar": lambda session: session.scalar(select(User)),
    "scalars": lambda session: session.scalars(select(User)),
    "get": lambda session: session.get(User, 77),
    "a verb": lambda session: User.create(email="x@example.com", name="x", session=session),
    "commit": lambda session: session.commit(),
}


async def cut_off(session: RequestSession) -> None:
    """Write, and interrupt the next statement."""
    await User.create(email="cut@example.com", name="cut", session=session)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await session.execute(text("SELECT SLEEP(0.5)"))


async def fail_a_flush(session: RequestSession) -> None:
    """Write, and flush a change that the database refuses."""
    await User.create(email="cut@example.com", name="cut", session=session)
    session.add(User(email="CUT@example.com", name="again"))
    with pytest.raises(IntegrityError):
        await session.flush()


@on_mariadb
@pytest.mark.parametrize("use", AFTERWARDS.values(), ids=AFTERWARDS)
async def test_after_a_time_out_the_session_says_what_to_do(
    db: SQLAlchemy, make_app: MakeApp, use: Use
) -> None:
    async def in_a_row(session: RequestSession) -> str:
        await cut_off(session)
        with pytest.raises(BrokenTransactionError, match=r"await session\.rollback\(\)"):
            await use(session)
        await session.rollback()
        await User.create(email="cut@example.com", name="cut", session=session)
        return "cut"

    async def ask(request: Request) -> str:
        return await in_a_row(request.state.session)

    answer = await request(make_app(value_route(ask, "POST")), "POST", "/probe")
    assert answer.json == {"seen": "cut"}
    assert await User.filter().count() == 1

    async with db.scoped_session() as session:
        await session.execute(text("DELETE FROM users"))
        await session.commit()
        await in_a_row(session)
        await session.commit()
    assert await User.filter().count() == 1


@pytest.mark.filterwarnings(
    "ignore:Session's state has been changed"
)  # the row that the verb adds is rolled back
@pytest.mark.parametrize("use", [*AFTERWARDS.values(), RequestSession.connection])
async def test_after_a_failed_flush_the_session_says_what_to_do(
    db: SQLAlchemy, make_app: MakeApp, use: Use
) -> None:
    async def in_a_row(session: RequestSession) -> None:
        await fail_a_flush(session)
        with pytest.raises(BrokenTransactionError, match=r"await session\.rollback\(\)"):
            await use(session)
        await session.rollback()

    async with db.scoped_session() as session:
        await in_a_row(session)

    async def ask(request: Request) -> None:
        await in_a_row(request.state.session)

    assert (await request(make_app(value_route(ask, "POST")), "POST", "/probe")).status == 200


async def assert_no_success(make_app: MakeApp, broken: Use) -> None:
    async def ask(request: Request) -> None:
        await broken(request.state.session)

    answer = await request(make_app(value_route(ask, "POST")), "POST", "/probe")

    assert answer.status == 500
    assert await User.filter().count() == 0


async def test_an_endpoint_that_goes_on_after_a_failed_flush_is_no_success(make_app: MakeApp) -> None:
    await assert_no_success(make_app, fail_a_flush)


@on_mariadb
async def test_an_endpoint_that_goes_on_after_a_time_out_is_no_success(make_app: MakeApp) -> None:
    await assert_no_success(make_app, cut_off)
