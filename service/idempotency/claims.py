"""Claims: a row in the transaction of the effect, so that both are there or neither.

    claim ── nobody has it ──▶ the endpoint runs, its answer is stored in the claim, COMMIT
      │
      ├── it is committed ──▶ the stored answer once more, or 422 for another body
      └── it is being made ──▶ wait, with no connection in hand, for at most a second; then 409

Copies in this process wait in memory for the one that came first, and get its answer from there.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
from sqlalchemy import CursorResult, Insert, Table, bindparam, delete, func, inspect, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.compiler import compiles
from starlette.types import Scope

from latchkey.models import IdempotencyKey
from latchkey.models.types import utc_in, utc_now
from latchkey.service.database.session import RequestSession
from latchkey.service.idempotency.allowance import KEPT_S, Allowance
from latchkey.service.idempotency.key import CallIdentity, identify, read_header
from latchkey.service.operation import SAFE_METHODS, Operation
from latchkey.service.problems import Problem, error_number

PATIENCE_S = 1.0  # how long a copy waits for the one that came first
FIRST_PAUSE_S = 0.01  # between two looks at a claim that another process makes; doubled each time
LONGEST_PAUSE_S = 0.1

LOCKED = frozenset({1205, 3572})  # MariaDB and MySQL: another transaction holds the lock


class ClaimLostError(RuntimeError):
    """The endpoint ended the transaction that held its claim, so what it wrote since could happen twice."""

    def __init__(self) -> None:
        super().__init__(
            "the endpoint rolled back the transaction of its idempotency claim: "
            "undo a part of the work in a SAVEPOINT, `async with session.begin_nested()`."
        )


class ClaimInsert(Insert):
    """An INSERT that does not wait for a row which another transaction is inserting."""

    inherit_cache = True


_KEYS = inspect(IdempotencyKey).local_table
assert isinstance(_KEYS, Table)  # noqa: S101 - what a declared model has
_ONE = _KEYS.c.id == bindparam("key_id")
_TAKEN = _KEYS.alias("taken")
# It is true of any number, but counting asks for the row's lock first.
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
    """Have the server report at once that the row is locked.

    MariaDB takes the lock wait with the statement. MySQL has no such clause, but refuses at once a lock that is asked
    for with NOWAIT.
    """
    text: str = compiler.visit_insert(element, **kwargs)
    if compiler.dialect.is_mariadb:
        return f"SET STATEMENT innodb_lock_wait_timeout=0 FOR {text}"
    columns, _, values = text.partition(" VALUES ")
    return " ".join((columns, "SELECT", values[1:-1], "FROM DUAL WHERE", compiler.process(_MAY_BE_ASKED)))


_CLAIM = ClaimInsert(_KEYS).values(
    id=bindparam("key_id"), fingerprint=bindparam("sent"), expires_at=utc_in(KEPT_S)
)
# Only a claim of one's own is without an answer: where it was lost, a copy may have made another one by now.
_KEEP = (
    update(_KEYS)
    .where(_ONE, _KEYS.c.status.is_(None))
    .values(status=bindparam("code"), headers=bindparam("fields"), body=bindparam("content"))
)
_FIND = select(_KEYS, (_KEYS.c.expires_at <= utc_now()).label("is_over")).where(_ONE)
_LOOK = select(_KEYS.c.id).where(_ONE, _KEYS.c.status.is_not(None), _KEYS.c.expires_at > utc_now())
_FORGET = delete(_KEYS).where(_ONE, _KEYS.c.expires_at <= utc_now())


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a call was answered, without what is shown only once."""

    fingerprint: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes

    def again(self) -> tuple[int, bytes, Mapping[str, str]]:
        """Return status, body and headers of a replay, which says that it is one."""
        return self.status, self.body, {**self.headers, "idempotent-replayed": "true"}


class Claim:
    """One call's claim on its key.

    Args:
        key: of the call.
        scope: of the call; a charge that waits there is given back when the call turns out to be a replay.
        primary: tells the AUTOCOMMIT engine on the primary.
        allowance: bounds the answers that are stored for the access key.
    """

    def __init__(
        self, key: CallIdentity, scope: Scope, primary: Callable[[], AsyncEngine], allowance: Allowance
    ) -> None:
        self.key = key
        self.scope = scope
        self.primary = primary
        self.allowance = allowance
        self._is_allowed = False
        self.answer: StoredAnswer | None = None
        """That of a copy that came first: it is durable."""
        self.kept: StoredAnswer | None = None
        """This call's own: it is durable once the transaction is."""
        self._patience_s = PATIENCE_S

    async def take(self, session: RequestSession) -> StoredAnswer | None:
        """Claim the key as the first thing in a transaction of `session`; return the answer if it has one.

        The session holds no connection while this waits.

        Raises:
            Problem: `idempotency_mismatch`, `idempotency_in_progress` when the wait was in vain, or
                `too_many_stored_answers`.
        """
        pause_s = FIRST_PAUSE_S
        clock = asyncio.get_running_loop().time
        while self.answer is None:
            begun = clock()
            try:
                await self._insert(session)
            except IntegrityError:
                await session.rollback()
                self.answer = await find(self.primary(), self.key.id)
            except DBAPIError as error:
                if error_number(error) not in LOCKED:
                    raise
                await session.rollback()
                with self.waiting(begun) as left_s:
                    await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            else:
                if await self._charge_late(session) or await self._ask_for_allowance(session):
                    continue
                session.sync_session.record.overlook()  # a claim alone is no change that anybody would miss
                return None
        if self.answer.fingerprint != self.key.fingerprint:
            raise Problem("idempotency_mismatch")
        charge = self.scope["state"].get("charge")
        if charge is not None:
            await charge.refund()
        return self.answer

    async def _insert(self, session: RequestSession) -> None:
        """Insert the claim, and wait for no lock.

        Raises:
            Problem: `idempotency_in_progress`. MySQL waits for a row that was inserted by another transaction after
                the lock was asked for, and for a range that is locked: for 50 seconds, unless it is configured.
        """
        values = {"key_id": self.key.id, "sent": self.key.fingerprint}
        dialect = self.primary().dialect
        if dialect.name != "mysql" or getattr(dialect, "is_mariadb", False):
            await session.execute(_CLAIM, values)
            return
        await session.connection()  # waiting for the pool is no waiting for another call
        try:
            async with asyncio.timeout(self._patience_s):
                await session.execute(_CLAIM, values)
        except TimeoutError:
            await session.rollback()
            raise Problem("idempotency_in_progress") from None

    async def _charge_late(self, session: RequestSession) -> bool:
        """Charge a call that was exempt as a replay, now that there is no answer to replay; True when it was charged.

        The claim is rolled back first: SQLite has one writer at a time, and the counters are written elsewhere.

        Raises:
            Problem: the call exceeds a limit.
        """
        charge: Callable[[], Awaitable[Problem | None]] | None = self.scope["state"].pop("charge_now", None)
        if charge is None:
            return False
        await session.rollback()
        if (refusal := await charge()) is not None:
            raise refusal
        return True

    async def _ask_for_allowance(self, session: RequestSession) -> bool:
        """Make sure that the answer may be stored; True when the claim was rolled back for that.

        Raises:
            Problem: `too_many_stored_answers`.
        """
        key_id = self.scope["user"].key_id
        if self._is_allowed or self.allowance.take(key_id):
            self._is_allowed = True
            return False
        await session.rollback()
        await self.allowance.ask(key_id)
        return True

    def end(self) -> None:
        """Give the allowance back when no answer was stored."""
        if self._is_allowed and self.kept is None:
            self.allowance.refund(self.scope["user"].key_id)

    async def keep(
        self, session: RequestSession, operation: Operation, content: bytes, headers: Mapping[str, str]
    ) -> None:
        """Store the answer in the claim, before COMMIT.

        Raises:
            ClaimLostError: the claim is not there any more.
        """
        answer = StoredAnswer(
            fingerprint=self.key.fingerprint,
            status=operation.status,
            headers=headers,
            body=without(operation.one_time, content),
        )
        values = {
            "key_id": self.key.id,
            "code": answer.status,
            "fields": msgspec.json.encode(answer.headers),
            "content": answer.body,
        }
        done = await session.execute(_KEEP, values)
        assert isinstance(done, CursorResult)  # noqa: S101 - what an UPDATE gives
        if done.rowcount != 1:
            raise ClaimLostError
        self.kept = answer

    @contextmanager
    def waiting(self, since: float | None = None) -> Iterator[float]:
        """Give the seconds for which a copy may still wait, all its waits together.

        Args:
            since: when this wait began, by the clock of the loop; now when None.

        Raises:
            Problem: `idempotency_in_progress`: none are left.
        """
        clock = asyncio.get_running_loop().time
        begun = clock() if since is None else since
        yield self._patience_s - (clock() - begun)
        self._patience_s -= clock() - begun
        if self._patience_s <= 0:
            raise Problem("idempotency_in_progress")


class Idempotency:
    """The claims of this process, so that its own copies wait for each other in memory.

    Args:
        primary: tells the AUTOCOMMIT engine on the primary; a replica would not know in time.
        allowance: bounds the answers that are stored for one access key.
    """

    def __init__(self, primary: Callable[[], AsyncEngine], allowance: Allowance) -> None:
        self.primary = primary
        self.allowance = allowance
        self._ahead: dict[bytes, asyncio.Future[StoredAnswer | None]] = {}

    @asynccontextmanager
    async def turn(self, key: CallIdentity, scope: Scope) -> AsyncIterator[Claim]:
        """Wait until no other copy in this process is at work, and give the claim to take.

        The claim brings the answer along when the copy ahead got one.

        Raises:
            Problem: `idempotency_in_progress`.
        """
        claim = Claim(key, scope, self.primary, self.allowance)
        while (ahead := self._ahead.get(key.id)) is not None:
            with claim.waiting() as left_s:
                await asyncio.wait([ahead], timeout=left_s)
            if ahead.done() and (answer := ahead.result()) is not None:
                claim.answer = answer
                yield claim
                return
        mine = self._ahead[key.id] = asyncio.get_running_loop().create_future()
        durable: StoredAnswer | None = None
        try:
            yield claim
            durable = claim.answer or claim.kept
        finally:
            claim.end()
            del self._ahead[key.id]
            mine.set_result(durable)

    async def has_answer(self, scope: Scope) -> bool:
        """Return whether an authenticated call will be answered with a stored answer, or refused for its body."""
        if scope["method"] in SAFE_METHODS:
            return False
        try:
            text = read_header(scope["headers"])
        except Problem:
            return False  # the endpoint's adapter says so
        if text is None:
            return False
        async with self.primary().connect() as connection:
            found = await connection.execute(_LOOK, {"key_id": identify(scope, text)})
            return found.first() is not None


async def find(primary: AsyncEngine, id: bytes) -> StoredAnswer | None:
    """Read a stored answer; None when there is none, or none any more: a row that is over makes way.

    Raises:
        Problem: `idempotency_in_progress` for a claim that something committed without an answer. Whether its
            effect is whole nobody knows, so it is not run again.
    """
    async with primary.connect() as connection:
        row = (await connection.execute(_FIND, {"key_id": id})).one_or_none()
        if row is None:
            return None
        if row.is_over:
            await connection.execute(_FORGET, {"key_id": id})
            return None
    if row.status is None:
        raise Problem("idempotency_in_progress")
    headers = msgspec.json.decode(row.headers, type=dict[str, str])
    return StoredAnswer(fingerprint=row.fingerprint, status=row.status, headers=headers, body=row.body)


def without(names: frozenset[str], content: bytes) -> bytes:
    """Put null in the place of what is shown only once; every other byte stays."""
    if not names:
        return content
    fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(fields | dict.fromkeys(names, msgspec.Raw(b"null")))
