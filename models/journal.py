"""The journal of a transaction: the changes of audited rows, each row once, with its values before and after."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, PassiveFlag, Session
from sqlalchemy.orm.attributes import get_history

from latchkey.models.audited import CREATED, DELETED, Audited

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

Values = dict[str, Any]
COMPUTED = "(computed by the database)"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The change of one audited row in a transaction."""

    noun: str
    verb: str
    id: str
    """The public identifier of the row: the access key of a key, the name of a role."""
    before: Values | None
    """The old values of the columns that changed; None for a new row."""
    after: Values | None
    """The new values; None for a row that was deleted."""
    instance: Any = None
    """The row, as the session holds it; None if a statement changed it without loading it."""

    @property
    def action(self) -> str:
        """Return the name of the event, such as `user.created`."""
        return f"{self.noun}.{self.verb}"


class Draft:
    """The changes of one row so far."""

    __slots__ = ("after", "before", "instance", "is_gone", "is_new")

    def __init__(self, instance: Audited, *, is_new: bool = False) -> None:
        self.instance = instance
        self.is_new = is_new
        self.is_gone = False
        self.before: Values = {}
        self.after: Values = {}

    def add(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Add a later change."""
        self.before = {**before, **self.before}
        self.after.update(after)

    def absorb(self, later: "Draft") -> None:
        """Add the later changes of another draft of the same row."""
        self.add(later.before, later.after)
        self.is_gone = later.is_gone

    def finished(self) -> Change | None:
        """Return the change; None if nothing has changed in the end."""
        row = self.instance
        before, after = self.before, self.after
        if self.is_new and self.is_gone:
            return None
        if self.is_new:
            return Change(
                noun=row.audit_noun, verb=CREATED, id=row.audit_id, before=None, after=after, instance=row
            )
        if self.is_gone:
            return Change(
                noun=row.audit_noun, verb=DELETED, id=row.audit_id, before=before, after=None, instance=row
            )
        after = {name: value for name, value in after.items() if name not in before or before[name] != value}
        if not after:
            return None
        return Change(
            noun=row.audit_noun,
            verb=row.audit_verb(after),
            id=row.audit_id,
            before={name: value for name, value in before.items() if name in after},
            after=after,
            instance=row,
        )


class Journal:
    """The changes of audited rows since the beginning of a transaction, or since one of its SAVEPOINTs."""

    __slots__ = ("drafts",)

    def __init__(self) -> None:
        self.drafts: dict[InstanceState[Any], Draft] = {}

    def collect(self, session: Session) -> None:
        """Add the changes of a flush; called after it, while the old values are still known."""
        for instance in session.new:
            if isinstance(instance, Audited):
                draft = self.drafts[inspect(instance)] = Draft(instance, is_new=True)
                draft.after = values_of(instance)
        for instance in session.dirty:
            if isinstance(instance, Audited) and session.is_modified(instance):
                self.add(instance, *changed_values(instance))
        for instance in session.deleted:
            if isinstance(instance, Audited):
                self.add(instance, values_of(instance), {})
                self.drafts[inspect(instance)].is_gone = True

    def add(self, instance: Audited, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Add a change of a row."""
        state: InstanceState[Any] = inspect(instance)
        self.drafts.setdefault(state, Draft(instance)).add(before, after)

    def absorb(self, inner: "Journal") -> None:
        """Add the changes since a SAVEPOINT that was released."""
        for state, draft in inner.drafts.items():
            if state in self.drafts:
                self.drafts[state].absorb(draft)
            else:
                self.drafts[state] = draft


def take_changes(journals: Iterable[Journal]) -> list[Change]:
    """Return the changes of a transaction, in the order of their rows' first change, and clear the journals."""
    whole = Journal()
    for journal in journals:
        whole.absorb(journal)
        journal.drafts = {}
    return [change for draft in whole.drafts.values() if (change := draft.finished()) is not None]


def note_change(
    session: "AsyncSession", instance: Audited, *, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Record a change that no flush shows, such as that of a counter, as a part of the change of an audited row.

    A plain session of SQLAlchemy keeps no journal.
    """
    changes = getattr(session.sync_session, "changes", None)
    if changes is not None:
        changes.journal.add(instance, before, after)


def values_of(instance: Audited) -> Values:
    """Return the loaded values of a row that may be recorded."""
    state: InstanceState[Any] = inspect(instance)
    return {name: state.dict[name] for name in audited_columns(instance) if name in state.dict}


def changed_values(instance: Audited) -> tuple[Values, Values]:
    """Return the old and the new values of the columns that a flush has changed; an old value may be unknown."""
    state: InstanceState[Any] = inspect(instance)
    before, after = {}, {}
    for name in audited_columns(instance):
        # `state.attrs` would be kept by the instance, which it refers to: only the garbage collector frees such a cycle.
        history = get_history(instance, name, PassiveFlag.PASSIVE_NO_INITIALIZE)
        if history.added:
            after[name] = state.dict.get(name, COMPUTED)
            if history.deleted:
                before[name] = history.deleted[0]
    return before, after


def audited_columns(instance: Audited) -> list[str]:
    """Return the columns of a row that may be recorded."""
    state: InstanceState[Any] = inspect(instance)
    return [name for name in state.mapper.column_attrs.keys() if name not in instance.unaudited]  # noqa: SIM118 - no dict
