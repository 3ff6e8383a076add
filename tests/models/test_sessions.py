"""The session of a verb, and the code that closes it (R9), on both databases."""

import asyncio

import pytest

from latchkey.models import User
from latchkey.models.errors import LostWriteError
from latchkey.service.database import SQLAlchemy


async def test_a_verb_of_its_own_closes_what_it_opened(db: SQLAlchemy) -> None:
    registry = db.scoped_session.registry.registry

    await User.create(email="ann@example.com", name="Ann", auto_commit=True)
    assert registry == {}
    await User.filter().all()
    assert registry == {}
    assert db.checked_out() == 0


async def test_a_verb_that_fails_closes_what_it_opened(db: SQLAlchemy, ann: User) -> None:
    with pytest.raises(Exception, match="email_key"):
        await User.create(email="ann@example.com", name="Ann", auto_commit=True)

    assert db.scoped_session.registry.registry == {}
    assert db.checked_out() == 0


async def test_a_verb_joins_the_session_of_the_task_and_leaves_it_open(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session() as session:
        user = await User.get(ann.id)
        assert user in session
        assert await User.filter(id=ann.id).one() is user
        await user.update(name="Anna")
        await user.refresh()
        assert db.scoped_session() is session
        assert session.in_transaction()
        await session.rollback()


async def test_the_argument_wins_over_the_session_of_the_task(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session() as session, db.scoped_session.session_factory() as other:
        user = await User.get(ann.id, session=other)
        assert user in other
        assert user not in session
        assert await User.filter(session=other).first() is user
        assert await User.filter_by(id=ann.id, session=other).one() is user
        assert (await User.get(ann.id)) is not user


async def test_an_external_session_stays_open_and_is_not_committed(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session() as session:
        await User.create(email="bob@example.com", name="Bob", session=session)
        await ann.update(name="Anna", session=session)
        assert session.in_transaction()
        await session.rollback()

    assert [one.name for one in await User.filter().all()] == ["Ann"]


async def test_auto_commit_commits_an_external_session(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session() as session:
        await ann.update(name="Anna", session=session)
        await User.create(email="bob@example.com", name="Bob", session=session, auto_commit=True)
        assert not session.in_transaction()

    assert [one.name for one in await User.filter().order_by("id").all()] == ["Anna", "Bob"]


async def test_an_instance_is_served_by_the_session_that_it_was_given(db: SQLAlchemy, ann: User) -> None:
    assert not ann.served

    async with db.scoped_session.session_factory() as session:
        assert ann.set_session(session) is ann
        assert ann.served
        await rename(ann)
        assert ann in session
        await session.commit()
        ann.set_session()

    assert not ann.served
    with pytest.raises(LostWriteError):
        await ann.update(name="Anne")
    assert (await User.filter().one()).name == "Anna"


async def test_a_session_that_creates_or_saves_an_instance_serves_it(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session.session_factory() as session:
        bob = await User.create(email="bob@example.com", name="Bob", session=session)
        assert bob.served
        assert not ann.served
        await ann.update(name="Anne", session=session)
        assert not ann.served
        assert await ann.save(session=session) is ann
        assert ann.served
        await rename(ann)
        await session.commit()

    assert (await User.get(ann.id)).name == "Anna"
    with pytest.raises(RuntimeError, match=r"instance\.set_session\(\)"):
        await ann.update(name="Ann", auto_commit=True)
    await ann.set_session().update(name="Ann", auto_commit=True)


async def rename(user: User) -> None:
    """Write where the task has no session: without the session of the instance the write would be refused."""
    await user.update(name="Anna")


@pytest.mark.parametrize("verb", ["save", "update", "remove", "refresh"])
async def test_every_verb_of_an_instance_uses_what_serves_it(db: SQLAlchemy, ann: User, verb: str) -> None:
    arguments = {"name": "Anna"} if verb == "update" else {}

    async with db.scoped_session.session_factory() as session:
        ann.set_session(session)
        ann.status = "blocked"
        await getattr(ann, verb)(**arguments)
        assert session.on_writer
        await session.rollback()


async def test_an_inner_block_joins_and_only_the_outermost_closes(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session() as outer:
        user = await User.get(ann.id)
        async with db.scoped_session() as inner:
            assert inner is outer
            async with db.scoped_session() as innermost:
                assert innermost is outer
            await user.update(name="Anna")
        assert db.scoped_session() is outer
        assert user in outer
        assert outer.in_transaction()
        await outer.commit()

    assert db.scoped_session.registry.registry == {}
    assert user not in outer
    assert (await User.filter().one()).name == "Anna"


async def test_an_inner_block_that_fails_leaves_the_outer_one_its_work(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session() as outer:
        with pytest.raises(KeyError):
            async with db.scoped_session():
                await User.create(email="bob@example.com", name="Bob")
                raise KeyError
        await outer.commit()

    assert await User.filter().count() == 2


async def test_a_child_task_reads_on_a_session_of_its_own(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session() as session:
        mine = await User.get(ann.id)
        theirs = await asyncio.create_task(User.get(ann.id))
        assert theirs is not mine
        assert theirs not in session
        assert list(db.scoped_session.registry.registry.values()) == [session]


async def test_a_child_task_commits_its_write_or_is_refused(db: SQLAlchemy) -> None:
    async with db.scoped_session():
        await asyncio.create_task(User.create(email="ann@example.com", name="Ann", auto_commit=True))
        with pytest.raises(LostWriteError):
            await asyncio.create_task(User.create(email="bob@example.com", name="Bob"))

    assert await User.filter().count() == 1


async def test_verbs_of_their_own_share_a_small_pool(db: SQLAlchemy, ann: User) -> None:
    found = await asyncio.gather(*(User.get(ann.id) for _ in range(20)))

    assert {one.name for one in found} == {"Ann"}
    assert db.checked_out() == 0


async def test_reads_inside_a_session_hold_no_connection(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session():
        await User.get(ann.id)
        await User.filter().load("keys").all()
        await User.filter().count()
        await ann.refresh()
        assert db.checked_out() == 0
