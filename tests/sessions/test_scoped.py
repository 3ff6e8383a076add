"""`db.scoped_session` passes calls on to the session of the task, as an `async_scoped_session` of SQLAlchemy does."""

import asyncio
import warnings
from asyncio import current_task
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.settings import Settings

pytestmark = pytest.mark.usefixtures("first")

Scoped = async_scoped_session[Any]
Work = Callable[[Scoped], Awaitable[Any]]


def person(name: str) -> User:
    return User(email=f"{name}@example.com", name=name)


async def add_and_commit(scoped: Scoped) -> Any:
    scoped.add(person("ann"))
    scoped.add_all([person("bob")])
    await scoped.commit()
    return (await scoped.scalars(select(User.name).order_by(User.name))).all()


async def begin(scoped: Scoped) -> Any:
    async with scoped.begin():
        scoped.add(person("ann"))
    return await scoped.scalar(select(func.count()).select_from(User))


async def begin_nested(scoped: Scoped) -> Any:
    async with scoped.begin(), scoped.begin_nested():
        scoped.add(person("ann"))
    return [scoped.is_active, scoped().in_transaction(), len(scoped.new)]


async def hold(scoped: Scoped) -> Any:
    ann = person("ann")
    scoped.add(ann)
    seen = [ann in scoped, len(list(scoped)), len(scoped.new)]
    scoped.expunge(ann)
    return [*seen, ann in scoped]


async def remove(scoped: Scoped) -> Any:
    before = scoped()
    await scoped.remove()
    return [before is scoped(), scoped() is scoped()]


async def arguments_for_an_open_session(scoped: Scoped) -> Any:
    scoped()
    scoped(expire_on_commit=True)


async def configure(scoped: Scoped) -> Any:
    scoped.configure(info={"mine": 1})
    return scoped.info


async def stream(scoped: Scoped) -> Any:
    return [tuple(row) async for row in await scoped.stream(text("SELECT name FROM users ORDER BY id"))]


async def change_and_refresh(scoped: Scoped) -> Any:
    user = await scoped.get_one(User, 1)
    user.name = "changed"
    seen = [scoped.is_modified(user), user in scoped.dirty]
    await scoped.flush()
    await scoped.refresh(user)
    await scoped.rollback()
    return seen


async def merge_and_delete(scoped: Scoped) -> Any:
    user = await scoped.merge(User(id=2, name="merged", email="second@example.com"))
    await scoped.delete(user)
    await scoped.commit()
    return (await scoped.scalars(select(User.name))).all()


async def blocks(scoped: Scoped) -> Any:
    async with scoped() as outer, scoped() as inner:
        return [outer is inner, await outer.scalar(text("SELECT 1"))]


async def without_autoflush(scoped: Scoped) -> Any:
    with scoped.no_autoflush:
        return scoped.autoflush


CASES: dict[str, Work] = {
    work.__name__: work
    for work in (
        *(add_and_commit, arguments_for_an_open_session, begin, begin_nested, blocks, change_and_refresh, configure),
        *(hold, merge_and_delete, remove, stream, without_autoflush),
    )
} | {
    "execute": lambda scoped: scoped.execute(text("DELETE FROM users")),
    "get": lambda scoped: scoped.get(User, 77),
    "run_sync": lambda scoped: scoped.run_sync(lambda inside: inside.scalar(text("SELECT 3"))),
    "connection": lambda scoped: scoped.connection(),
}  # fmt: skip


async def outcome(scoped: Scoped, work: Work) -> str:
    """Return what the work returns, or its error, in a task of its own."""

    async def run() -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = await work(scoped)
            return repr(found) if isinstance(found, list | int | bool | dict) else type(found).__name__
        except Exception as error:
            return repr(error)
        finally:
            await scoped.rollback()
            await scoped.remove()

    return await asyncio.create_task(run())


async def start_again(db: SQLAlchemy) -> None:
    async with db.engine.begin() as connection:
        await connection.execute(delete(User))
    async with db.scoped_session() as session:
        session.add_all(
            [
                User(id=1, email="first@example.com", name="first"),
                User(id=2, email="second@example.com", name="second"),
            ]
        )
        await session.commit()


@pytest.mark.parametrize("work", CASES.values(), ids=CASES)
async def test_it_is_the_same(db: SQLAlchemy, settings: Settings, work: Work) -> None:
    engine = create_async_engine(settings.database_url)
    maker = async_sessionmaker(engine, autoflush=False, expire_on_commit=False)
    await start_again(db)
    plain = await outcome(async_scoped_session(maker, scopefunc=current_task), work)
    await engine.dispose()
    await start_again(db)
    ours = await outcome(db.scoped_session, work)

    assert ours == plain
