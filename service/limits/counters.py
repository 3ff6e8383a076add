"""The counters: read together with the clock of their server, and written by compare-and-set, in the database."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import msgspec
from sqlalchemy import (
    Alias,
    CursorResult,
    Executable,
    Table,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import greenlet_spawn

from latchkey.models import LimitCounter
from latchkey.models.types import utc_now
from latchkey.service.database.conflicts import is_conflict
from latchkey.service.database.prepared import Prepared
from latchkey.service.limits.account import Account
from latchkey.service.limits.period import from_microseconds, to_microseconds

_counters = cast("Table", LimitCounter.__table__)


class Stored(msgspec.Struct, frozen=True):
    """A counter as read from the database."""

    version: int
    state: bytes


class Write(msgspec.Struct, frozen=True):
    """A new value for a counter; `version` is the version that was read, None when there was none."""

    account: Account
    version: int | None
    state: bytes
    moment: int
    """The time of the read, in microseconds since 1970, which becomes the next version."""
    expires_at: int

    @property
    def subject(self) -> str:
        """The primary key of the counter."""
        return self.account.subject


class Reading(msgspec.Struct, frozen=True):
    """The counters that exist, by subject, and the time of their server in microseconds since 1970."""

    clock: int
    found: Mapping[str, Stored]


_a_subject, _b_subject = (bindparam(f"{one}_subject", type_=_counters.c.subject.type) for one in "ab")

# The clock is returned even when no counter exists.
_one_row = select(literal_column("1").label("one")).subquery()
_READ = Prepared(
    select(utc_now(), _counters.c.subject, _counters.c.version, _counters.c.state).select_from(
        _one_row.outerjoin(_counters, _counters.c.subject.in_([_a_subject, _b_subject]))
    )
)
_WRITE_ONE = (
    update(_counters)
    .where(_counters.c.subject == _a_subject, _counters.c.version == bindparam("a_version"))
    .values(version=_counters.c.version + 1, state=bindparam("a_state"), expires_at=bindparam("a_expires_at"))
)


def _write_two_by_join() -> Executable:
    """Update both rows by one join on MariaDB and MySQL, so that both change or neither."""
    a, b = cast("Alias", _counters.alias("a")), cast("Alias", _counters.alias("b"))
    return (
        update(a)
        .where(a.c.subject == _a_subject, a.c.version == bindparam("a_version"))
        .where(a.c.subject != b.c.subject)  # the cross join is intended
        .where(b.c.subject == _b_subject, b.c.version == bindparam("b_version"))
        .values(
            {
                a.c.version: a.c.version + 1,
                a.c.state: bindparam("a_state"),
                a.c.expires_at: bindparam("a_expires_at"),
                b.c.version: b.c.version + 1,
                b.c.state: bindparam("b_state"),
                b.c.expires_at: bindparam("b_expires_at"),
            }
        )
    )


def _write_two_by_count() -> Executable:
    """Update both rows on SQLite, which has one writer at a time: it counts the matching rows first."""
    read = _counters.alias("as_read")
    as_read = (
        select(func.count())
        .select_from(read)
        .where(
            or_(
                and_(read.c.subject == _a_subject, read.c.version == bindparam("a_version")),
                and_(read.c.subject == _b_subject, read.c.version == bindparam("b_version")),
            )
        )
        .scalar_subquery()
    )
    is_a = _counters.c.subject == _a_subject
    return (
        update(_counters)
        .where(_counters.c.subject.in_([_a_subject, _b_subject]), as_read == 2)  # noqa: PLR2004 - both
        .values(
            version=_counters.c.version + 1,
            **{
                name: case(
                    (is_a, bindparam(f"a_{name}", type_=_counters.c[name].type)),
                    else_=bindparam(f"b_{name}", type_=_counters.c[name].type),
                )
                for name in ("state", "expires_at")
            },
        )
    )


_WRITE_TWO = {"sqlite": _write_two_by_count(), "mysql": _write_two_by_join(), "mariadb": _write_two_by_join()}


class Counters(Protocol):
    """The counters, which all workers share."""

    async def read(self, accounts: Sequence[Account]) -> Reading:
        """Return one or two counters and the clock of their server."""
        ...

    async def write(self, writes: Sequence[Write]) -> bool:
        """Write one or two counters, both or neither; return False when another writer changed one first."""
        ...


class DatabaseCounters:
    """The table of counters, in AUTOCOMMIT mode.

    Args:
        primary: returns the AUTOCOMMIT engine on the primary; a replica lags behind.
    """

    def __init__(self, primary: Callable[[], AsyncEngine]) -> None:
        self._primary = primary

    async def read(self, accounts: Sequence[Account]) -> Reading:
        """Return one or two counters and the database's clock, in one round trip."""
        values = {"a_subject": accounts[0].subject, "b_subject": accounts[-1].subject}
        rows = await _READ.run(self._primary(), values)
        return Reading(
            to_microseconds(rows[0][0]),
            {subject: Stored(version, state) for _, subject, version, state in rows if subject is not None},
        )

    async def write(self, writes: Sequence[Write]) -> bool:
        """Write one or two counters, both or neither; return False when another writer changed one first."""
        new = [one for one in writes if one.version is None]
        try:
            if new and len(new) < len(writes):
                # Insert empty rows, so that the next attempt writes both by one statement.
                await self._insert([msgspec.structs.replace(one, state=b"") for one in new])
                return False
            if new:
                await self._insert(new)
                return True
            return await self._update(writes)
        except IntegrityError:
            return False
        except DBAPIError as error:
            if is_conflict(error):
                return False
            raise

    async def _insert(self, writes: Sequence[Write]) -> None:
        """Insert rows. Versions start at the current time, so that a new row never repeats the version of a deleted one."""
        rows = [
            {
                "subject": one.subject,
                "version": one.moment,
                "state": one.state,
                "expires_at": from_microseconds(one.expires_at),
            }
            for one in writes
        ]
        await greenlet_spawn(self._execute, insert(_counters).values(rows), {})

    async def _update(self, writes: Sequence[Write]) -> bool:
        values: dict[str, Any] = {}
        for letter, one in zip("ab", writes, strict=False):
            values |= {
                f"{letter}_subject": one.subject,
                f"{letter}_version": one.version,
                f"{letter}_state": one.state,
                f"{letter}_expires_at": from_microseconds(one.expires_at),
            }
        statement = _WRITE_ONE if len(writes) == 1 else _WRITE_TWO[self._primary().dialect.name]
        return await greenlet_spawn(self._execute, statement, values) > 0

    def _execute(self, statement: Executable, values: Mapping[str, Any]) -> int:
        """Run a statement in AUTOCOMMIT mode, in one greenlet; return the number of rows that it matched."""
        with self._primary().sync_engine.connect() as connection:
            result = cast("CursorResult[Any]", connection.execute(statement, values))
            return result.rowcount
