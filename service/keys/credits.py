"""The credits of keys, in the counters that calls are charged to; the caller's transaction changes them."""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from latchkey.models import ApiKey, LimitCounter
from latchkey.models.journal import note_change
from latchkey.models.limit import MOST_CREDITS, Credits
from latchkey.models.limit_counter import subject_of
from latchkey.models.types import utc_now
from latchkey.service import clock, conversion, shapes
from latchkey.service.authentication.records import environment_of
from latchkey.service.limits.account import Account
from latchkey.service.limits.ledger import Ledger
from latchkey.service.limits.period import from_microseconds, to_microseconds
from latchkey.service.problems import Problem, field_problem

UNLOADED = {"synchronize_session": False}  # no counter is in the session

LOCK = (
    select(utc_now(), LimitCounter.state)
    .where(LimitCounter.subject == bindparam("key_subject", type_=LimitCounter.subject.type))
    .with_for_update()
)
READ = select(utc_now(), LimitCounter.subject, LimitCounter.state)


async def set_credits(key: ApiKey, credits: Credits | None) -> None:
    """Replace the credits of a locked key, and flush; None removes them, and its calls then spend none."""
    if credits is not None or key.has_credits:
        async with ApiKey.resolve() as session:
            ledger = await lock_ledger(session, key)
            note_change(session, key, before={"credits": ledger.credits}, after={"credits": credits})
            ledger.set_credits(credits)
            await write(session, ledger)
        await key.update(has_credits=credits is not None)


async def add_credits(key: ApiKey, delta: int) -> None:
    """Change the remaining credits of a locked key by a number; calls that are charged meanwhile are not lost.

    Raises:
        Problem: 409 `key_without_credits` or `too_few_credits`, 422 `invalid_body` for more than a key can have.
    """
    if not key.has_credits:
        raise Problem("key_without_credits")
    async with ApiKey.resolve() as session:
        ledger = await lock_ledger(session, key)
        left = ledger.credits or Credits(remaining=0)
        remaining = left.remaining + delta
        if remaining < 0:
            raise Problem("too_few_credits", f"The key has {left.remaining} credits left.")
        if remaining > MOST_CREDITS:
            raise field_problem("/delta", f"the key would have {remaining} credits; at most {MOST_CREDITS}")
        now_left = msgspec.structs.replace(left, remaining=remaining)
        note_change(session, key, before={"credits": left}, after={"credits": now_left})
        ledger.set_credits(now_left)
        await write(session, ledger)


async def lock_ledger(session: AsyncSession, key: ApiKey) -> Ledger:
    """Return the ledger of a locked key, whose counter is locked, too, until the transaction ends."""
    # With all rules of the key, because a ledger keeps only the counts of its rules.
    account = Account(subject_of(key.id), "", key.limits, key.quota)
    values = {"key_subject": account.subject}
    row = (await session.execute(LOCK, values)).first()
    if row is None:
        now = clock.now()
        empty = {"subject": account.subject, "version": to_microseconds(now), "state": b"", "expires_at": now}
        try:
            async with session.begin_nested():
                await session.execute(insert(LimitCounter).values(empty))
        except IntegrityError:  # a call with the key was charged meanwhile
            pass
        row = (await session.execute(LOCK, values)).one()
    return Ledger(account, bytes(row.state) or None, to_microseconds(row[0]))


async def write(session: AsyncSession, ledger: Ledger) -> None:
    """Write a locked ledger. The new version makes a charge that read the old one start again."""
    await session.execute(
        update(LimitCounter)
        .where(LimitCounter.subject == ledger.account.subject)
        .values(
            version=LimitCounter.version + 1,
            state=ledger.encode(),
            expires_at=from_microseconds(ledger.expires_at),
        ),
        execution_options=UNLOADED,
    )


async def read_credits(keys: Sequence[ApiKey]) -> Mapping[int, Credits]:
    """Return the credits of those keys that have any, by the id of the key."""
    accounts = {
        subject_of(key.id): Account(subject_of(key.id), "", (), None, True) for key in keys if key.has_credits
    }
    if not accounts:
        return {}
    async with ApiKey.resolve() as session:
        rows = (await session.execute(READ.where(LimitCounter.subject.in_(accounts)))).all()
    ledgers = {
        row.subject: Ledger(accounts[row.subject], bytes(row.state) or None, to_microseconds(row[0]))
        for row in rows
    }
    nothing = Credits(remaining=0)
    return {
        key.id: (ledgers[subject].credits if subject in ledgers else None) or nothing
        for key in keys
        if (subject := subject_of(key.id)) in accounts
    }


async def shown(keys: Sequence[ApiKey], environments: Sequence[str]) -> list[shapes.Key]:
    """Return keys in the form of the endpoints' response; it costs one query more if a key has credits."""
    found = await read_credits(keys)
    return [
        with_credits(
            conversion.convert(key, shapes.StoredKey), environment_of(key, environments), found.get(key.id)
        )
        for key in keys
    ]


def with_credits(stored: shapes.StoredKey, environment: str, credits: Credits | None) -> shapes.Key:
    """Return a key in the form of the endpoints' response."""
    return shapes.Key(**msgspec.structs.asdict(stored), environment=environment, credits=credits)
