"""The work of models around a commit: refresh before it, after-commit hooks after it (R10).

The session calls these functions and passes itself and its flushed changes. They never look a session up, because a
commit that runs to its end does so in another task.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, inspect, select
from sqlalchemy.orm import ColumnProperty, InstanceState, Mapper, Session
from sqlalchemy.orm.attributes import set_committed_value

from latchkey.models.journal import Journal
from latchkey.models.lookups import identified

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from latchkey.models.base import Base

log = logging.getLogger("latchkey.models")

HOOKS_DEADLINE_S = 5.0  # for all the hooks of one commit


Wishes = dict[InstanceState[Any], bool]
Wanted = dict[tuple[Mapper[Any], frozenset[str]], list[InstanceState[Any]]]


class Changes:
    """The instances that were flushed in a transaction since its beginning, or since one of its SAVEPOINTs.

    They are stored by their state, because a model may define its own equality.
    """

    __slots__ = ("inserted", "journal", "touched", "written")

    def __init__(self) -> None:
        self.inserted: list[InstanceState[Any]] = []
        """Inserted by the last flush."""
        self.touched: dict[InstanceState[Any], Any] = {}
        """Flushed or deleted, for the after-commit hooks."""
        self.written: dict[InstanceState[Any], bool | None] = {}
        """Flushed and not refreshed yet, with the `refresh` argument of the verb."""
        self.journal = Journal()
        """The changes of audited rows."""

    def collect(self, session: Session, wishes: Wishes) -> None:
        """Record the changes of a flush; called after it, while the session still separates new and dirty instances."""
        self.inserted += (inspect(instance) for instance in session.new)
        for instance in (*session.new, *(one for one in session.dirty if session.is_modified(one))):
            state = inspect(instance)
            self.touched[state] = instance
            self.written[state] = wishes.pop(state, self.written.get(state))
        for instance in session.deleted:
            self.touched[inspect(instance)] = instance
        self.journal.collect(session)

    def take_inserted(self) -> list[InstanceState[Any]]:
        """Return the instances that the last flush inserted, and clear them."""
        inserted, self.inserted = self.inserted, []
        return inserted

    def absorb(self, inner: "Changes") -> None:
        """Add the changes of a SAVEPOINT that was released."""
        self.touched |= inner.touched
        self.journal.absorb(inner.journal)
        for state, wish in inner.written.items():
            if wish is not None or state not in self.written:
                self.written[state] = wish


def are_followed(session: Session) -> bool:
    """Return whether a session refreshes written instances and runs hooks; a plain `AsyncSession` does neither."""
    return hasattr(session, "wishes")


def wish(session: Session, instance: "Base", refresh: bool | None) -> None:
    """Store the `refresh` argument of a verb for an instance that is flushed next; None leaves it to the model."""
    if refresh is not None and are_followed(session):
        wishes: Wishes = session.wishes  # type: ignore[attr-defined]  # checked by are_followed
        wishes[inspect(instance)] = refresh


def load_inserted(session: Session, inserted: Iterable[InstanceState[Any]]) -> None:
    """Load values that the database generated for new rows, and that INSERT did not return.

    The attributes of an inserted row are then loaded, or not, alike on every server. With RETURNING, only the results of
    SQL expressions that were assigned are still missing.
    """
    wanted: Wanted = {}
    for state in inserted:
        names = frozenset(filter(partial(is_stored, state.mapper), state.expired_attributes))
        if names and state.persistent and state.mapper.eager_defaults:
            wanted.setdefault((state.mapper, names), []).append(state)
    select_all(session, wanted)


def is_stored(mapper: Mapper[Any], name: str) -> bool:
    """Return whether an attribute is a column of a table, and not a relation or an expression of `column_property`."""
    attribute = mapper.attrs.get(name)
    return isinstance(attribute, ColumnProperty) and isinstance(attribute.columns[0], Column)


def refresh_written(session: Session, levels: Iterable[Changes]) -> None:
    """Load values that the database generated, with one SELECT for each class and set of columns."""
    wanted: Wanted = {}
    for changes in levels:
        for state, wish in changes.written.items():
            names = columns_to_refresh(state, wish)
            if names:
                wanted.setdefault((state.mapper, names), []).append(state)
        changes.written.clear()
    select_all(session, wanted)


def refresh_now(session: Session, instance: "Base", refresh: bool | None) -> None:
    """Select columns of a flushed instance again at once; COMMIT then does not select them once more."""
    state = inspect(instance)
    if names := columns_to_refresh(state, refresh):
        select_again(session, state.mapper, sorted(names), [state])
    if are_followed(session):
        changes: Changes = session.changes  # type: ignore[attr-defined]  # checked by are_followed
        changes.written.pop(state, None)


def select_all(session: Session, wanted: Wanted) -> None:
    """Select the wanted columns again, with one SELECT for each class and set of columns."""
    for (mapper, names), states in wanted.items():
        select_again(session, mapper, sorted(names), states)


def awaits_refresh(session: Any, state: InstanceState[Any], name: str) -> bool:
    """Return whether an attribute of a written instance will be selected again before COMMIT."""
    return are_followed(session) and any(
        state in changes.written and name in columns_to_refresh(state, changes.written[state])
        for changes in session.all_changes
    )


def want_refresh(levels: Iterable[Changes]) -> bool:
    """Return whether any written instance must be selected again; the others are cleared."""
    for changes in levels:
        if any(columns_to_refresh(state, wish) for state, wish in changes.written.items()):
            return True
        changes.written.clear()
    return False


def columns_to_refresh(state: InstanceState[Any], wish: bool | None) -> frozenset[str]:
    """Return the column attributes of a written instance that must be selected again."""
    if wish is False or not state.persistent:
        return frozenset()
    columns = state.mapper.column_attrs.keys()
    if wish:
        return frozenset(columns)
    declared = getattr(state.class_, "refresh_on_commit", False)
    if declared is True:
        # Only expired attributes: a column that was left out of an INSERT reads as None.
        return frozenset(state.expired_attributes.intersection(columns))
    return frozenset(declared or ())


def select_again(
    session: Session, mapper: Mapper[Any], names: list[str], states: list[InstanceState[Any]]
) -> None:
    """Select columns of rows that were written, and set their attributes one by one.

    A SELECT of instances would apply listeners and loader options, which may hide the rows, and would reset loaded
    relations. The tables are selected instead, on the session's own connection.
    """
    connection = session.connection(bind_arguments={"mapper": mapper})
    keys = mapper.primary_key
    columns = [mapper.column_attrs[name].columns[0] for name in names]
    statement = select(*keys, *columns).select_from(mapper.persist_selectable)
    waiting = {state.identity: state for state in states if state.identity is not None}
    for row in connection.execute(statement.where(identified(mapper, list(waiting)))):
        state = waiting.pop(tuple(row[: len(keys)]), None)
        if state is not None:
            set_loaded(state, names, row[len(keys) :])
    # The database stores the keys of the remaining rows in another form: a number as text, or another case.
    for identity, state in waiting.items():
        found = connection.execute(statement.where(identified(mapper, [identity]))).first()
        if found is not None:
            set_loaded(state, names, found[len(keys) :])


def set_loaded(state: InstanceState[Any], names: list[str], values: Sequence[Any]) -> None:
    """Set attributes as a SELECT of the instance would do."""
    instance = state.obj()
    for name, value in zip(names, values, strict=True):
        set_committed_value(instance, name, value)
    for listener in state.manager.dispatch.refresh:  # converts JSON and the like to tracked values
        listener(state, None, names)


def with_hooks(changes: Changes, *, in_doubt: bool = False) -> list[Any]:
    """Return the instances whose after-commit hooks must run for these changes.

    After a COMMIT with an unknown outcome, only models that prefer a superfluous run over a missing one are included.
    """
    return [
        instance
        for instance in changes.touched.values()
        if declares_hook(type(instance)) and (not in_doubt or getattr(type(instance), "runs_in_doubt", False))
    ]


def declares_hook(model: type[Any]) -> bool:
    """Return whether a model declares an after-commit hook; a model on another base has none."""
    asks = getattr(model, "has_after_commit", None)
    return asks is not None and asks()


async def run_after_commit(instances: list[Any], session: "AsyncSession") -> None:
    """Run after-commit hooks on a separate session; a hook that fails is logged, and affects nothing else.

    All hooks share one deadline, because they run to their end even when their request was cancelled.
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
        ):  # the hook's own task was cancelled; this one is never cancelled
            log.exception("the after-commit hook of %s failed; the commit stands", type(instance).__name__)
            with contextlib.suppress(Exception):
                await session.rollback()
