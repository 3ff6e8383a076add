"""Refresh on commit, and the after-commit hook (R10), with models that declare each."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from latchkey.middleware.session_errors import CommitUnknownError
from latchkey.models import ApiKey, Base, User
from latchkey.models.errors import NotLoadedError
from latchkey.service.database import SQLAlchemy
from tests.conftest import loading
from tests.models.refresh_models import Fresh, Hooked, Leaf, Named, Pair, Plain, RefreshBase

pytestmark = pytest.mark.usefixtures("refresh_tables")


def kinds(commands: list[str]) -> list[str]:
    """Return the first word of each command, without the BEGIN that only SQLite sends."""
    return [one.split(maxsplit=1)[0] for one in commands if not one.startswith("BEGIN")]


# ---------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("model", [Plain, Fresh, Hooked])
async def test_an_insert_that_returning_filled_costs_nothing_more(
    wire: Callable[[], AbstractContextManager[list[str]]], model: type[Any], quiet: None, database_url: str
) -> None:
    with wire() as commands:
        row = await model.create(name="one", auto_commit=True)

    assert kinds(commands) == ["INSERT", *loading(database_url), "COMMIT"]
    assert row.id
    assert row.stamped_at


async def test_the_models_of_the_service_use_it(
    db: SQLAlchemy, ann: User, wire: Callable[[], AbstractContextManager[list[str]]], database_url: str
) -> None:
    with wire() as commands:
        key = await ApiKey.create(
            access_key="lka_1", user_id=1, name="one", mode="bearer", scopes=(), auto_commit=True
        )
    assert kinds(commands) == ["INSERT", *loading(database_url), "INSERT", "COMMIT"]  # the audit event

    with wire() as commands:
        await key.update(name="two", auto_commit=True)
        await ann.update(name="Anna", auto_commit=True)
    assert kinds(commands) == ["UPDATE", "SELECT", "INSERT", "COMMIT"] * 2
    assert key.updated_at >= key.created_at
    assert ann.updated_at > ann.created_at


REFRESHES = {
    "False, as declared": (Plain, None, []),
    "False, but the verb wants it": (Plain, True, ["SELECT"]),
    "True, as declared": (Fresh, None, ["SELECT"]),
    "True, and the verb wants it": (Fresh, True, ["SELECT"]),
    "True, but the verb does not": (Fresh, False, []),
    "names, as declared": (Named, None, ["SELECT"]),
    "names, but the verb does not": (Named, False, []),
}


@pytest.mark.parametrize(("model", "refresh", "select"), REFRESHES.values(), ids=REFRESHES)
async def test_an_update_refreshes_as_declared_or_as_the_verb_says(
    wire: Callable[[], AbstractContextManager[list[str]]],
    model: type[Any],
    refresh: bool | None,
    select: list[Any],
) -> None:
    row = await model.create(name="one", auto_commit=True)

    with wire() as commands:
        await row.update(name="two", auto_commit=True, refresh=refresh)

    assert kinds(commands) == ["UPDATE", *select, "COMMIT"]


@pytest.mark.parametrize(
    ("model", "refresh", "select"),
    [(Fresh, True, ["SELECT"]), (Plain, True, ["SELECT"]), (Named, None, ["SELECT"]), (Named, False, [])],
    ids=["True", "True over False", "names", "False over names"],
)
async def test_an_insert_is_selected_only_if_it_is_asked_for(
    wire: Callable[[], AbstractContextManager[list[str]]],
    model: type[Any],
    refresh: bool | None,
    select: list[Any],
    database_url: str,
) -> None:
    with wire() as commands:
        await model.create(name="one", auto_commit=True, refresh=refresh)

    assert kinds(commands) == ["INSERT", *loading(database_url), *select, "COMMIT"]


@pytest.mark.parametrize("refresh", [None, True, False])
async def test_inserted_values_can_be_read_before_commit_on_every_server(
    db: SQLAlchemy, refresh: bool | None
) -> None:
    async with db.scoped_session() as session:
        row = await Plain.create(name="one", refresh=refresh)
        assert row.stamped_at
        many = [Plain(name=f"many {n}") for n in range(3)]
        session.add_all(many)
        await session.flush()
        assert all(one.stamped_at for one in many)
        async with session.begin_nested():
            inner = await Leaf.create(name="leaf", fresh=Fresh(name="owner"))
            assert inner.fresh.stamped_at
        assert inner.stamped_at
        await session.rollback()


async def test_refresh_true_loads_what_the_flush_left_unloaded(
    wire: Callable[[], AbstractContextManager[list[str]]],
) -> None:
    row = await Fresh.create(name="one", auto_commit=True)
    before = row.stamped_at

    with wire() as commands:
        await row.update(name="two", auto_commit=True)

    assert row.stamped_at > before
    (select_,) = [one for one in commands if one.startswith("SELECT")]
    assert "stamped_at" in select_
    assert "name" not in select_.partition(" FROM ")[0]


async def test_names_bring_back_exactly_those(db: SQLAlchemy) -> None:
    row = await Named.create(name="one", auto_commit=True)

    async with db.scoped_session() as session:
        await row.update(name="two")
        await session.execute(
            update(Named).values(name="by hand").execution_options(synchronize_session=False)
        )
        await session.commit()

    assert row.name == "by hand"
    with pytest.raises(NotLoadedError, match=r"Named\.stamped_at"):
        row.stamped_at  # noqa: B018 - reading is the test


async def test_refresh_true_brings_everything_back(db: SQLAlchemy) -> None:
    row = await Plain.create(name="one", auto_commit=True)

    async with db.scoped_session() as session:
        await session.execute(
            update(Plain).values(name="by hand").execution_options(synchronize_session=False)
        )
        row.stamped_at = row.stamped_at - timedelta(days=1)
        await row.save(refresh=True)
        assert row.name == "by hand"
        await session.commit()


async def test_refresh_true_selects_when_there_was_nothing_to_save(
    wire: Callable[[], AbstractContextManager[list[str]]],
) -> None:
    row = await Plain.create(name="one", auto_commit=True)

    with wire() as commands:
        await row.save(refresh=True, auto_commit=True)

    assert kinds(commands) == ["SELECT"]


async def test_a_wish_is_for_the_write_that_it_came_with(
    db: SQLAlchemy, wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    row = await Fresh.create(name="one", auto_commit=True)

    async with db.scoped_session() as session:
        await row.save(refresh=False)
        await session.commit()
        row.name = "two"
        with wire() as commands:
            await session.commit()

    assert kinds(commands) == ["UPDATE", "SELECT", "COMMIT"]


async def test_one_select_for_each_class(
    db: SQLAlchemy, wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    async with db.scoped_session() as session:
        trees = [await Fresh.create(name=f"tree {number}") for number in range(5)]
        leaves = [await Leaf.create(name=f"leaf {number}", fresh_id=trees[0].id) for number in range(3)]
        await session.commit()

        before = [one.stamped_at for one in (*trees, *leaves)]
        for one in (*trees, *leaves):
            one.name += ", changed"
        with wire() as commands:
            await session.commit()

    assert kinds(commands)[-3:] == ["SELECT", "SELECT", "COMMIT"]
    assert kinds(commands).count("SELECT") == 2
    assert all(one.stamped_at > was for one, was in zip((*trees, *leaves), before, strict=True))


async def test_many_inserts_at_once_need_one_select_at_most(
    db: SQLAlchemy, wire: Callable[[], AbstractContextManager[list[str]]], database_url: str
) -> None:
    async with db.scoped_session() as session:
        rows = [Fresh(name=f"tree {number}") for number in range(5)]
        session.add_all(rows)
        with wire() as commands:
            await session.commit()

    assert [one for one in kinds(commands) if one != "INSERT"] == [*loading(database_url), "COMMIT"]
    assert all(one.id and one.stamped_at for one in rows)


async def test_a_key_of_two_columns_is_refreshed_by_both(
    db: SQLAlchemy, wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    async with db.scoped_session() as session:
        rows = [
            await Pair.create(id=one, other=other, name=f"{one} {other}")
            for one in (1, 2)
            for other in (1, 2)
        ]
        await session.commit()
        for one in rows:
            one.name += ", changed"
        with wire() as commands:
            await session.commit()

    assert kinds(commands).count("SELECT") == 1
    assert [one.name for one in rows] == [f"{one.id} {one.other}, changed" for one in rows]
    assert all(one.stamped_at for one in rows)


async def test_refreshed_values_are_expired_by_a_rollback(db: SQLAlchemy) -> None:
    row = await Fresh.create(name="one", auto_commit=True)

    async with db.scoped_session() as session:
        before = row.stamped_at
        await row.update(name="two")
        await session.flush_and_refresh()
        inside = row.stamped_at
        await session.rollback()
        await row.refresh()

    assert inside > before
    assert (row.name, row.stamped_at) == ("one", before)


async def test_a_write_after_the_refresh_is_refreshed_again(
    db: SQLAlchemy, wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    row = await Fresh.create(name="one", auto_commit=True)

    async with db.scoped_session() as session:
        await row.update(name="two")
        await session.flush_and_refresh()
        await row.update(name="three")
        with wire() as commands:
            await session.commit()

    assert kinds(commands) == ["SELECT", "COMMIT"]
    assert row.stamped_at


async def test_loaded_relations_stay_loaded(db: SQLAlchemy) -> None:
    tree = await Fresh.create(name="tree", auto_commit=True)
    await Leaf.create(name="leaf", fresh_id=tree.id, auto_commit=True)

    async with db.scoped_session() as session:
        loaded = await Fresh.filter().load("leaves").one()
        leaf = await Leaf.filter().load("fresh").one()
        await loaded.update(name="tree, changed", refresh=True)
        await leaf.update(name="leaf, changed")
        await session.commit()

    assert [one.name for one in loaded.leaves] == ["leaf, changed"]
    assert leaf.fresh.name == "tree, changed"


@pytest.mark.parametrize("model", [Plain, Fresh, Named])
async def test_a_delete_is_not_refreshed(
    wire: Callable[[], AbstractContextManager[list[str]]], model: type[Any]
) -> None:
    row = await model.create(name="one", auto_commit=True)

    with wire() as commands:
        await row.remove(auto_commit=True)

    assert kinds(commands) == ["DELETE", "COMMIT"]


async def test_a_row_written_and_deleted_in_one_transaction_is_not_refreshed(
    db: SQLAlchemy, wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    row = await Fresh.create(name="one", auto_commit=True)

    async with db.scoped_session() as session:
        with wire() as commands:
            await row.update(name="two")
            await row.remove()
            await session.commit()

    assert kinds(commands) == ["UPDATE", "DELETE", "COMMIT"]


# ---------------------------------------------------------------------- SAVEPOINTs


async def test_a_savepoint_does_not_refresh_but_the_commit_after_it_does(
    db: SQLAlchemy, wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    row = await Fresh.create(name="one", auto_commit=True)

    async with db.scoped_session() as session:
        with wire() as commands:
            async with session.begin_nested():
                await row.update(name="two")
            inside = kinds(commands)
            await session.commit()

    assert inside == ["SAVEPOINT", "UPDATE", "RELEASE"]
    assert kinds(commands) == [*inside, "SELECT", "COMMIT"]
    assert row.stamped_at


async def test_a_savepoint_that_is_rolled_back_takes_its_own_notes_only(
    db: SQLAlchemy, ran: list[RefreshBase]
) -> None:
    async with db.scoped_session() as session:
        kept = await Hooked.create(name="kept")
        tree = await Fresh.create(name="tree")
        await tree.update(name="tree, changed")
        async with session.begin_nested():
            released = await Hooked.create(name="released")
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await Hooked.create(name="dropped")
                async with session.begin_nested():
                    await Hooked.create(name="dropped with it")
                await Hooked.create(name="kept")
        await session.commit()

    assert ran == [kept, released]
    assert tree.stamped_at
    assert [one.name for one in await Hooked.filter().order_by("id").all()] == ["kept", "released"]


async def test_a_change_inside_a_savepoint_that_is_rolled_back_is_forgotten(
    db: SQLAlchemy, ran: list[RefreshBase]
) -> None:
    row = await Hooked.create(name="one", auto_commit=True)
    ran.clear()

    async with db.scoped_session() as session:
        await Fresh.create(name="something else")
        savepoint = await session.begin_nested()
        await row.update(name="two")
        await savepoint.rollback()
        await session.commit()

    assert ran == []


# ---------------------------------------------------------------------- after the commit


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RefreshBase]:
    """Return the instances whose hooks have run, in order."""
    instances: list[RefreshBase] = []

    async def note(instance: Any, session: AsyncSession) -> None:
        instances.append(instance)

    monkeypatch.setattr(Hooked, "does", note, raising=False)
    return instances


@pytest.fixture
def quiet(ran: list[RefreshBase]) -> None:
    """Install hooks that do nothing."""


async def test_the_hook_runs_once_for_each_instance(db: SQLAlchemy, ran: list[RefreshBase]) -> None:
    async with db.scoped_session() as session:
        first = await Hooked.create(name="first")
        await first.update(name="first, changed")
        second = await Hooked.create(name="second")
        before = list(ran)
        await session.commit()
        after = list(ran)
        await session.commit()

    assert before == []
    assert after == ran == [first, second]


async def test_the_hook_runs_for_an_insert_an_update_and_a_delete(ran: list[RefreshBase]) -> None:
    row = await Hooked.create(name="one", auto_commit=True)
    await row.update(name="two", auto_commit=True)
    await row.remove(auto_commit=True)

    assert ran == [row, row, row]


async def test_the_hook_finds_the_row_durable_and_gets_a_session_of_its_own(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work of the hook, and its rollback, do not affect the session that committed."""
    found: list[Any] = []

    async def look(instance: Any, session: AsyncSession) -> None:
        async with db.engine.connect() as other:
            found.append((await other.execute(select(Hooked.name))).scalar_one())
        found.append((await session.execute(select(Hooked.name))).scalar_one())
        found.append(session)

    monkeypatch.setattr(Hooked, "does", look, raising=False)
    async with db.scoped_session() as session:
        await Hooked.create(name="one")
        await session.commit()

    assert found[:2] == ["one", "one"]
    assert found[2] is not session


async def commit_by_begin(session: AsyncSession) -> None:
    async with session.begin():
        await Hooked.create(name="one")


async def commit_by_auto_commit(session: AsyncSession) -> None:
    await Hooked.create(name="one", auto_commit=True)


async def commit_by_hand(session: AsyncSession) -> None:
    session.add(Hooked(name="one"))
    await session.commit()


@pytest.mark.parametrize("commit", [commit_by_begin, commit_by_auto_commit, commit_by_hand])
async def test_the_hook_runs_whoever_commits(
    db: SQLAlchemy, ran: list[RefreshBase], commit: Callable[..., Any]
) -> None:
    async with db.scoped_session() as session:
        await commit(session)

    assert [one.name for one in ran] == ["one"]


async def test_begin_refreshes_too(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session, session.begin():
        row = await Fresh.create(name="one")
        await row.update(name="two")

    assert row.stamped_at


async def test_no_hook_after_a_rollback_nor_for_what_it_left(db: SQLAlchemy, ran: list[RefreshBase]) -> None:
    async with db.scoped_session() as session:
        await Hooked.create(name="dropped")
        await session.rollback()
        kept = await Hooked.create(name="kept")
        await session.commit()

    assert ran == [kept]


async def test_no_hook_for_the_leftovers_of_a_failed_try(db: SQLAlchemy, ran: list[RefreshBase]) -> None:
    async with db.scoped_session() as session:
        await Hooked.create(name="one")
        with pytest.raises(IntegrityError):
            await Hooked.create(name="one")
        await session.reset_for_retry()
        kept = await Hooked.create(name="again")
        await session.commit()

    assert ran == [kept]


async def test_no_hook_after_a_commit_that_failed(db: SQLAlchemy, ran: list[RefreshBase]) -> None:
    async with db.scoped_session() as session:
        session.add_all([Hooked(name="one"), Hooked(name="one")])
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.commit()

    assert ran == []


@pytest.mark.parametrize("runs_in_doubt", [False, True])
async def test_a_commit_of_unknown_outcome_runs_only_the_hooks_that_ask_for_it(
    db: SQLAlchemy, ran: list[RefreshBase], monkeypatch: pytest.MonkeyPatch, runs_in_doubt: bool
) -> None:
    def lose(_connection: Any) -> None:
        raise OperationalError("COMMIT", {}, Exception(2013, "Lost"), connection_invalidated=True)

    monkeypatch.setattr(Hooked, "runs_in_doubt", runs_in_doubt)
    async with db.scoped_session() as session:
        row = await Hooked.create(name="one")
        with monkeypatch.context() as patch, pytest.raises(CommitUnknownError):
            patch.setattr(db.engine.sync_engine.dialect, "do_commit", lose)
            await session.commit()
        assert ran == [row] * runs_in_doubt  # before the error is raised, and not when the session ends

    assert ran == [row] * runs_in_doubt


async def test_a_watcher_is_notified_of_each_row_once(db: SQLAlchemy, ann: User) -> None:
    """It covers inserted, changed and deleted rows, but not those that were rolled back or read."""
    told = []

    async def watch(table: Any, id: int) -> None:
        told.append((table, id))

    db.watch(watch)
    async with db.scoped_session() as session:
        bob = await User.create(email="bob@example.com", name="Bob")
        await bob.update(name="Bobby")
        await session.commit()
        await bob.remove()
        await session.commit()
        await ann.update(name="Anna")
        await session.rollback()
        await User.filter().all()

    assert told == [("users", bob.id)] * 2


async def test_no_hook_for_a_model_that_declares_none(db: SQLAlchemy) -> None:
    await User.create(email="ann@example.com", name="Ann", auto_commit=True)

    assert not User.has_after_commit()
    assert Hooked.has_after_commit()
    assert Base.scoped_session is not None


async def test_a_hook_that_fails_is_logged_and_the_commit_stands(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    async def fail(instance: Any, session: AsyncSession) -> None:
        seen.append(instance.name)
        if instance.name == "first":
            raise ConnectionError("the post office is closed")

    monkeypatch.setattr(Hooked, "does", fail, raising=False)
    with caplog.at_level(logging.ERROR, "latchkey.models"):
        async with db.scoped_session() as session:
            await Hooked.create(name="first")
            await Hooked.create(name="second")
            await session.commit()

    assert seen == ["first", "second"]
    assert await Hooked.filter().count() == 2
    assert [one.message for one in caplog.records] == [
        "the after-commit hook of Hooked failed; the commit stands"
    ]
    assert "the post office is closed" in caplog.text


async def test_writes_of_a_hook_are_committed_after_it(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(instance: Any, session: AsyncSession) -> None:
        await Plain.create(name=f"{instance.name} was here", session=session)

    monkeypatch.setattr(Hooked, "does", write, raising=False)
    await Hooked.create(name="one", auto_commit=True)

    assert [one.name for one in await Plain.filter().all()] == ["one was here"]


async def test_a_failed_write_of_a_hook_affects_neither_the_commit_nor_later_work(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def write_twice(instance: Any, session: AsyncSession) -> None:
        await session.execute(insert(Plain).values(name="half"))
        await session.execute(insert(Plain).values(name="half"))

    monkeypatch.setattr(Hooked, "does", write_twice, raising=False)
    async with db.scoped_session() as session:
        await Hooked.create(name="one")
        await session.commit()
        await Fresh.create(name="what follows")
        await session.commit()

    assert "the after-commit hook of Hooked failed" in caplog.text
    assert await Hooked.filter().count() == await Fresh.filter().count() == 1
    assert await Plain.filter().count() == 0


async def test_a_cancelled_commit_still_runs_its_hooks(db: SQLAlchemy, ran: list[RefreshBase]) -> None:
    started = asyncio.Event()

    async def work() -> None:
        async with db.scoped_session() as session:
            await Hooked.create(name="one")
            started.set()
            await session.commit()

    task = asyncio.create_task(work())
    await started.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await Hooked.filter().count() == len(ran) == 1
