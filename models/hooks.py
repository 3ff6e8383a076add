"""What models want done around a commit: refresh before it, their own hook after it (R10).

The session calls these functions and hands itself in; they never look a session up, because a commit
that runs to its end does so in another task.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.attributes import set_committed_value

from models.query import identified

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from models.base import Base

log = logging.getLogger("latchkey.models")

# Each instance with the SAVEPOINTs in which it was flushed; None is the transaction itself.
Notes = dict["Base", set[SessionTransaction | None]]

HOOKS_DEADLINE_S = 5.0  # for all the hooks of one commit

WRITTEN = "latchkey_written"  # flushed in this transaction, not refreshed yet
TOUCHED = "latchkey_touched"  # flushed or deleted in this transaction, for the after-commit hooks
COMMITTED = "latchkey_committed"  # durable, their hooks not run yet
WISHES = "latchkey_wishes"  # what a verb said with refresh=True or refresh=False


def wish(session: Session, instance: "Base", refresh: bool | None) -> None:
    """Remember what a verb said about refreshing `instance`; None leaves it to the model."""
    if refresh is not None:
        session.info.setdefault(WISHES, {})[instance] = refresh


def collect(session: Session) -> None:
    """Note what a flush wrote; called after it, while the session still tells new from dirty."""
    touched: Notes = session.info.setdefault(TOUCHED, {})
    written: Notes = session.info.setdefault(WRITTEN, {})
    inside = session.get_nested_transaction()
    for instance in (*session.new, *(one for one in session.dirty if session.is_modified(one))):
        touched.setdefault(instance, set()).add(inside)
        written.setdefault(instance, set()).add(inside)
    for instance in session.deleted:
        touched.setdefault(instance, set()).add(inside)


def refresh_written(session: Session) -> None:
    """Bring back what the database decided, with one SELECT for each class and set of columns."""
    written: Notes = session.info.pop(WRITTEN, {})
    wishes = session.info.pop(WISHES, {})
    wanted: dict[tuple[type[Base], frozenset[str]], list[Base]] = {}
    for instance in written:
        names = columns_to_refresh(instance, wishes.get(instance))
        if names:
            wanted.setdefault((type(instance), names), []).append(instance)
    for (model, names), instances in wanted.items():
        _select_again(session, model, sorted(names), instances)


def want_refresh(session: Session) -> bool:
    """Tell whether anything that was written has to be selected again; what has not is not asked twice."""
    wishes = session.info.get(WISHES, {})
    if any(columns_to_refresh(one, wishes.get(one)) for one in session.info.get(WRITTEN, ())):
        return True
    session.info.pop(WRITTEN, None)
    session.info.pop(WISHES, None)
    return False


def columns_to_refresh(instance: "Base", wish: bool | None) -> frozenset[str]:
    """Return the column attributes of a written instance that a SELECT has to bring back."""
    state = inspect(instance)
    if wish is False or not state.persistent:
        return frozenset()
    columns = state.mapper.column_attrs.keys()
    if wish:
        return frozenset(columns)
    declared = type(instance).refresh_on_commit
    if declared is True:
        # Not what is merely absent: a column that was left out of an INSERT reads as None.
        return frozenset(state.expired_attributes.intersection(columns))
    return frozenset(declared or ())


def _select_again(session: Session, model: "type[Base]", names: list[str], instances: "list[Base]") -> None:
    # Plain columns, set one by one: a populating query would also reset relations that were loaded.
    keys = inspect(model).primary_key
    identities: dict[Any, Base] = {inspect(instance).identity: instance for instance in instances}
    columns = [getattr(model, name) for name in names]
    for row in session.execute(select(*keys, *columns).where(identified(model, list(identities)))):
        instance = identities[tuple(row[: len(keys)])]
        for name, value in zip(names, row[len(keys) :], strict=True):
            set_committed_value(instance, name, value)


def mark_committed(session: Session) -> None:
    """Hand what was touched on to the after-commit hooks: it is durable now."""
    touched: Notes = session.info.pop(TOUCHED, {})
    waiting = [instance for instance in touched if instance.has_after_commit()]
    if waiting:
        session.info.setdefault(COMMITTED, []).extend(waiting)


def mark_in_doubt(session: Session) -> None:
    """Hand what was touched on to those after-commit hooks that would rather run once too often than not.

    To be called before the rollback, which forgets what was touched.
    """
    touched: Notes = session.info.get(TOUCHED, {})
    waiting = [instance for instance in touched if instance.runs_in_doubt and instance.has_after_commit()]
    if waiting:
        session.info.setdefault(COMMITTED, []).extend(waiting)


def forget(session: Session) -> None:
    """Drop what was noted since the beginning of the transaction, or the SAVEPOINT, that was rolled back."""
    gone = session.get_nested_transaction()
    if gone is None:
        for name in (WRITTEN, TOUCHED, WISHES):
            session.info.pop(name, None)
        return
    for name in (WRITTEN, TOUCHED):
        notes: Notes = session.info.get(name, {})
        for instance, places in list(notes.items()):
            places -= {place for place in places if gone in lineage(place)}
            if not places:
                del notes[instance]


def lineage(transaction: SessionTransaction | None) -> Iterator[SessionTransaction]:
    """Walk from a SAVEPOINT to those around it."""
    while transaction is not None:
        yield transaction
        transaction = transaction.parent


def are_waiting(session: Session) -> bool:
    """Tell whether after-commit hooks have not run yet."""
    return COMMITTED in session.info


def take_committed(session: Session) -> "list[Base]":
    """Hand out, once, the instances whose after-commit hooks have not run yet."""
    waiting: list[Base] = session.info.pop(COMMITTED, [])
    return waiting


async def run_after_commit(instances: "list[Base]", session: "AsyncSession") -> None:
    """Run after-commit hooks on a session of their own; one that fails is logged and fails nobody.

    They share one deadline, because they run to their end although their request was cancelled.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HOOKS_DEADLINE_S
    for instance in instances:
        try:
            async with asyncio.timeout_at(deadline):
                await instance.after_commit(session)
                await session.commit()
        except (
            Exception,
            asyncio.CancelledError,
        ):  # a task of the hook's own was cancelled; nobody cancels us
            log.exception("the after-commit hook of %s failed; the commit stands", type(instance).__name__)
            with contextlib.suppress(Exception):
                await session.rollback()
