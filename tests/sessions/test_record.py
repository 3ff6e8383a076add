"""The record of a transaction: what would be lost, and what it still holds, SAVEPOINT by SAVEPOINT (R4, R8)."""

from typing import Any

import pytest
from sqlalchemy import event, select, text
from starlette.requests import Request

from latchkey.middleware.session_errors import CommitForbiddenError, TransactionEndedError
from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.session import RequestSession
from latchkey.service.database.statements import Effect
from latchkey.service.database.transaction import TransactionRecord, require_open
from tests.conftest import on_mariadb, only_on_mariadb
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route

HOLDING = [Effect.LOCKS, Effect.UNKNOWN, Effect.WRITES, Effect.COMMITS]


@pytest.mark.parametrize("effect", HOLDING)
@pytest.mark.parametrize("is_released", [True, False])
def test_a_savepoint_that_is_released_keeps_its_work(effect: Effect, is_released: bool) -> None:
    record = TransactionRecord()
    record.begin_savepoint()
    record.note(effect)
    assert not record.only_read
    record.levels[-1].released = is_released
    record.end_savepoint()

    assert record.only_read is not is_released
    assert record.wrote is (is_released and effect in {Effect.WRITES, Effect.COMMITS})


@pytest.mark.parametrize("effect", HOLDING)
def test_a_savepoint_adds_to_the_work_before_it(effect: Effect) -> None:
    record = TransactionRecord()
    record.note(effect)
    record.begin_savepoint()
    record.note(Effect.READS)
    record.levels[-1].released = True
    record.end_savepoint()

    assert not record.only_read
    assert record.statements == 2


def test_overlooked_writes_are_held_and_not_lost() -> None:
    record = TransactionRecord()
    record.note(Effect.WRITES)
    record.ignore_writes()

    assert not record.wrote
    assert not record.only_read
    assert record.sent_write


class Server:
    """A connection whose server has ended the transaction."""

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}
        self.connection = self.driver_connection = self

    def get_transaction_status(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("effects", "is_lost"),
    [
        ([Effect.READS, Effect.UNKNOWN], False),
        ([Effect.WRITES], True),
        ([Effect.LOCKS], True),
        ([Effect.WRITES, Effect.READS], True),
        ([Effect.COMMITS], False),
        ([Effect.WRITES, Effect.COMMITS], False),
        ([Effect.COMMITS, Effect.WRITES], True),
    ],
)
def test_a_transaction_that_ended_is_missed_unless_it_was_meant(effects: list[Effect], is_lost: bool) -> None:
    record = TransactionRecord()
    for effect in effects:
        record.note(effect)

    if is_lost:
        with pytest.raises(TransactionEndedError):
            require_open(Server(), record)
    else:
        require_open(Server(), record)


@only_on_mariadb("its procedures commit the same way, but are written in another dialect")
@on_mariadb
async def test_a_procedure_may_commit(db: SQLAlchemy, make_app: MakeApp) -> None:
    async with db.engine.begin() as connection:
        await connection.execute(text("CREATE OR REPLACE PROCEDURE keep() COMMIT"))

    async def keep(session: RequestSession) -> int:
        session.add(User(email="kept@example.com", name="kept"))
        await session.flush()
        await session.execute(text("CALL keep()"))
        await session.execute(text("UPDATE users SET name = 'changed'"))
        await session.rollback()
        return await User.filter(name="kept").count()

    async with db.scoped_session() as session:
        assert await keep(session) == 1
        await session.execute(text("DELETE FROM users"))
        await session.commit()

    async def ask(request: Request) -> int:
        return await keep(request.state.session)

    answer = await request(make_app(value_route(ask, "POST")), "POST", "/probe")
    assert answer.json == {"seen": 1}
    async with db.engine.begin() as connection:
        await connection.execute(text("DROP PROCEDURE keep"))


@pytest.mark.usefixtures("first")
async def test_options_beside_a_lock_are_kept(db: SQLAlchemy) -> None:
    heard: list[dict[str, Any]] = []
    async with db.scoped_session() as session:
        event.listen(
            session.sync_session, "do_orm_execute", lambda state: heard.append(dict(state.execution_options))
        )
        await session.scalars(select(User).with_for_update(), execution_options={"mine": 1})

    assert [(one["mine"], one["populate_existing"]) for one in heard] == [(1, True)]


async def test_a_commit_can_be_forbidden_and_allowed_again(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        session.forbid_commit(True)
        session.add(User(email="a@example.com", name="a"))
        with pytest.raises(CommitForbiddenError):
            await session.commit()
        session.forbid_commit(False)
        session.add(User(email="b@example.com", name="b"))
        await session.commit()

    assert [user.name for user in await User.filter().all()] == ["b"]


@pytest.mark.usefixtures("first")
async def test_a_retry_begins_with_an_empty_session(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        await session.reset_for_retry()
        assert session.untouched
        user = await session.get_one(User, 1)
        session.add(User(email="a@example.com", name="a"))
        await session.flush()
        await session.reset_for_retry()

        assert (list(session), session.unwritten, session.in_transaction()) == ([], None, False)
        assert user not in session
