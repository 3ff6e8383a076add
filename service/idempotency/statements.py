"""The statements on the rows of idempotency keys."""

from typing import Any

from sqlalchemy import Insert, Table, bindparam, delete, func, inspect, select, update
from sqlalchemy.ext.compiler import compiles

from latchkey.models import IdempotencyKey
from latchkey.models.types import utc_in, utc_now
from latchkey.service.idempotency.allowance import KEPT_S


class ClaimInsert(Insert):
    """An INSERT that does not wait for a row which another transaction is inserting."""

    inherit_cache = True


_KEYS = inspect(IdempotencyKey).local_table
assert isinstance(_KEYS, Table)  # noqa: S101 - what a declared model has
_ONE = _KEYS.c.id == bindparam("key_id")
_TAKEN = _KEYS.alias("taken")
# The condition is always true, but to count, the server must first lock the row.
_MAY_BE_ASKED = (
    select(func.count())
    .select_from(_TAKEN)
    .where(_TAKEN.c.id == bindparam("key_id"))
    .with_for_update(nowait=True)
    .scalar_subquery()
    >= 0
)


@compiles(ClaimInsert, "mysql")
@compiles(ClaimInsert, "mariadb")
def _insert_without_waiting(element: ClaimInsert, compiler: Any, **kwargs: Any) -> str:
    """Compile the INSERT so that the server reports a locked row at once.

    In MariaDB the statement itself sets its lock wait. MySQL has no such clause, but fails at once when a lock is
    requested with NOWAIT.
    """
    text: str = compiler.visit_insert(element, **kwargs)
    if compiler.dialect.is_mariadb:
        return f"SET STATEMENT innodb_lock_wait_timeout=0 FOR {text}"
    columns, _, values = text.partition(" VALUES ")
    return " ".join((columns, "SELECT", values[1:-1], "FROM DUAL WHERE", compiler.process(_MAY_BE_ASKED)))


CLAIM = ClaimInsert(_KEYS).values(
    id=bindparam("key_id"), fingerprint=bindparam("sent"), expires_at=utc_in(KEPT_S)
)
# Only this call's own claim has no response yet: if it was lost, a copy may have inserted another one.
KEEP = (
    update(_KEYS)
    .where(_ONE, _KEYS.c.status.is_(None))
    .values(status=bindparam("code"), headers=bindparam("fields"), body=bindparam("content"))
)
FIND = select(_KEYS, (_KEYS.c.expires_at <= utc_now()).label("is_over")).where(_ONE)
LOOK = select(_KEYS.c.id).where(_ONE, _KEYS.c.status.is_not(None), _KEYS.c.expires_at > utc_now())
FORGET = delete(_KEYS).where(_ONE, _KEYS.c.expires_at <= utc_now())
