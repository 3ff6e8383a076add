"""Claims: a row that is committed together with the effect of the call, so that either both exist or neither.

    claim ── not taken ──────▶ the endpoint runs, its response is stored in the claim, COMMIT
      │
      ├── committed ─────────▶ the stored response is replayed, or 422 for another body
      └── in progress ───────▶ wait, without a connection, for at most a second; then 409

Copies of a call in the same process wait in memory for the first one, and take its response from there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import msgspec
from sqlalchemy import CursorResult
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import Scope

from latchkey.service.database import driver
from latchkey.service.database.conflicts import error_number
from latchkey.service.database.session import RequestSession
from latchkey.service.idempotency import statements
from latchkey.service.idempotency.allowance import Allowance
from latchkey.service.idempotency.key import CallIdentity, identify, read_header
from latchkey.service.limits.call import limit_state
from latchkey.service.methods import SAFE_METHODS
from latchkey.service.operation import Operation
from latchkey.service.problems import Problem

PATIENCE_S = 1.0  # how long a copy waits for the first call
FIRST_PAUSE_S = 0.01  # between two attempts to take a claim that another process holds; doubled each time
LONGEST_PAUSE_S = 0.1


class ClaimLostError(RuntimeError):
    """The endpoint ended the transaction that held its claim, so a retry could repeat what it has written since."""

    def __init__(self) -> None:
        super().__init__(
            "the endpoint rolled back the transaction of its idempotency claim: "
            "use a SAVEPOINT to undo a part of the work, `async with session.begin_nested()`."
        )


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The response to a call, without the fields that are shown only once."""

    fingerprint: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes

    def again(self) -> tuple[int, bytes, Mapping[str, str]]:
        """Return status, body and headers of the replay, with a header that marks it as one."""
        return self.status, self.body, {**self.headers, "idempotent-replayed": "true"}


class Claim:
    """The claim of one call on its idempotency key.

    Args:
        key: of the call.
        scope: of the call; its pending charge is refunded when the call turns out to be a replay.
        primary: returns the AUTOCOMMIT engine on the primary.
        allowance: bounds the responses that are stored for the access key.
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
        """The response of an earlier copy; it is durable."""
        self.kept: StoredAnswer | None = None
        """The response of this call; it becomes durable with the transaction."""
        self._patience_s = PATIENCE_S

    async def take(self, session: RequestSession) -> StoredAnswer | None:
        """Claim the key as the first step of a transaction of `session`; return the stored response if there is one.

        The session holds no connection while it waits.

        Raises:
            Problem: `idempotency_mismatch`, `idempotency_in_progress` when the other call did not finish in time, or
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
                if error_number(error) not in driver.LOCKED:
                    raise
                await session.rollback()
                with self.waiting(begun) as left_s:
                    await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            else:
                if await self._charge_late(session) or await self._ask_for_allowance(session):
                    continue
                session.sync_session.record.ignore_writes()  # a claim alone is no change that must not be lost
                return None
        if self.answer.fingerprint != self.key.fingerprint:
            raise Problem("idempotency_mismatch")
        charge = limit_state(self.scope).get("charge")
        if charge is not None:
            await charge.refund()
        limit_state(self.scope)["units"] = 0
        return self.answer

    async def _insert(self, session: RequestSession) -> None:
        """Insert the claim without waiting for a lock.

        Raises:
            Problem: `idempotency_in_progress`. MySQL waits for a row that another transaction inserted after the lock was
                requested, and for a locked range: 50 seconds by default.
        """
        values = {"key_id": self.key.id, "sent": self.key.fingerprint}
        dialect = self.primary().dialect
        if dialect.name != "mysql" or getattr(dialect, "is_mariadb", False):
            await session.execute(statements.CLAIM, values)
            return
        await session.connection()  # the wait for the pool does not count as a wait for another call
        try:
            async with asyncio.timeout(self._patience_s):
                await session.execute(statements.CLAIM, values)
        except TimeoutError:
            await session.rollback()
            raise Problem("idempotency_in_progress") from None

    async def _charge_late(self, session: RequestSession) -> bool:
        """Charge a call that was exempt as a replay but has no response to replay; return True when it was charged.

        The claim is rolled back first: SQLite has one writer at a time, and the counters are written elsewhere.

        Raises:
            Problem: the call exceeds a limit.
        """
        charge = limit_state(self.scope).pop("charge_now", None)
        if charge is None:
            return False
        await session.rollback()
        if (refusal := await charge()) is not None:
            raise refusal
        return True

    async def _ask_for_allowance(self, session: RequestSession) -> bool:
        """Ensure that the response may be stored; return True when the claim was rolled back to do so.

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
        """Return the allowance when no response was stored."""
        if self._is_allowed and self.kept is None:
            self.allowance.refund(self.scope["user"].key_id)

    async def keep(
        self, session: RequestSession, operation: Operation, content: bytes, headers: Mapping[str, str]
    ) -> None:
        """Store the response in the claim, before COMMIT.

        Raises:
            ClaimLostError: the claim no longer exists.
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
        done = await session.execute(statements.KEEP, values)
        assert isinstance(done, CursorResult)  # noqa: S101 - what an UPDATE gives
        if done.rowcount != 1:
            raise ClaimLostError
        self.kept = answer

    @contextmanager
    def waiting(self, since: float | None = None) -> Iterator[float]:
        """Yield the number of seconds that a copy may still wait, and count the wait in the block; all waits count together.

        Args:
            since: when this wait began, by the clock of the loop; None means now.

        Raises:
            Problem: `idempotency_in_progress`: no time is left.
        """
        clock = asyncio.get_running_loop().time
        begun = clock() if since is None else since
        yield self._patience_s - (clock() - begun)
        self._patience_s -= clock() - begun
        if self._patience_s <= 0:
            raise Problem("idempotency_in_progress")


class Idempotency:
    """The claims of this process; copies of a call in this process wait for each other in memory.

    Args:
        primary: returns the AUTOCOMMIT engine on the primary; a replica may be behind.
        allowance: bounds the responses that are stored for one access key.
    """

    def __init__(self, primary: Callable[[], AsyncEngine], allowance: Allowance) -> None:
        self.primary = primary
        self.allowance = allowance
        self._ahead: dict[bytes, asyncio.Future[StoredAnswer | None]] = {}

    @asynccontextmanager
    async def turn(self, key: CallIdentity, scope: Scope) -> AsyncIterator[Claim]:
        """Wait until no other copy in this process is running, and yield the claim to take.

        The claim contains the response when the copy before it got one.

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
        """Return whether an authenticated call will be answered with a stored response, or refused because its body differs."""
        if scope["method"] in SAFE_METHODS:
            return False
        try:
            text = read_header(scope["headers"])
        except Problem:
            return False  # the endpoint's adapter reports it
        if text is None:
            return False
        async with self.primary().connect() as connection:
            found = await connection.execute(statements.LOOK, {"key_id": identify(scope, text)})
            return found.first() is not None


async def find(primary: AsyncEngine, id: bytes) -> StoredAnswer | None:
    """Return a stored response; None when there is none. An expired row is deleted.

    Raises:
        Problem: `idempotency_in_progress` for a claim that was committed without a response. It is unknown whether its
            effect is complete, so the call is not run again.
    """
    async with primary.connect() as connection:
        row = (await connection.execute(statements.FIND, {"key_id": id})).one_or_none()
        if row is None:
            return None
        if row.is_over:
            await connection.execute(statements.FORGET, {"key_id": id})
            return None
    if row.status is None:
        raise Problem("idempotency_in_progress")
    headers = msgspec.json.decode(row.headers, type=dict[str, str])
    return StoredAnswer(fingerprint=row.fingerprint, status=row.status, headers=headers, body=row.body)


def without(names: frozenset[str], content: bytes) -> bytes:
    """Replace the fields that are shown only once by null; every other byte stays."""
    if not names:
        return content
    fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(fields | dict.fromkeys(names, msgspec.Raw(b"null")))
