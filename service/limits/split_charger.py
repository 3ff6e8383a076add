"""Charge calls whose counters are in two places: those of keys with credits in the database, all others in Redis."""

from collections.abc import Sequence

from latchkey.service.limits.account import Account, Accounts
from latchkey.service.limits.charger import Charger, Moments, Receipt
from latchkey.service.limits.ledger import Figure, longest_wait


class SplitCharger:
    """Charge keys with credits in the database, and everything else in Redis.

    Credits are paid for, so they stay in the database, where an operator changes them in a transaction. If a key has credits
    and its owner has limits, a call is charged to the owner first, and refunded there if the key refuses it.

    Args:
        database: charges the keys with credits.
        redis: charges the others.
    """

    def __init__(self, database: Charger, redis: Charger) -> None:
        self._database = database
        self._redis = redis

    def _charger_of(self, account: Account) -> Charger:
        return self._database if account.has_credits else self._redis

    async def look(self, accounts: Accounts) -> tuple[Figure, ...]:
        """Return the current state of the rules, without a charge."""
        return tuple([figure for one in accounts for figure in await self._charger_of(one).look((one,))])

    async def preview(self, accounts: Accounts, cost: int) -> Receipt:
        """Return the decision that a charge would get now, without a charge."""
        if (single := self._only_charger(accounts)) is not None:
            return await single.preview(accounts, cost)
        return joined([await self._charger_of(one).preview((one,), cost) for one in accounts])

    async def charge(self, accounts: Accounts, cost: int) -> Receipt:
        """Charge a call to all accounts, or to none; raises as `Charger.charge`, and `UnreachableError`."""
        if (single := self._only_charger(accounts)) is not None:
            return await single.charge(accounts, cost)
        key, owner = accounts
        of_owner = await self._redis.charge((owner,), cost)
        if of_owner.refusal is not None:
            return Receipt(of_owner.refusal, (), (*await self._database.look((key,)), *of_owner.figures))
        is_charged = False
        try:
            of_key = await self._database.charge((key,), cost)
            is_charged = of_key.refusal is None
        finally:
            if not is_charged:
                of_owner = await self._redis.refund((owner,), cost, of_owner.moments)
        return joined([of_key, of_owner])

    async def refund(self, accounts: Accounts, cost: int, moments: Moments) -> Receipt:
        """Refund units that were charged at these times; raises as `charge`."""
        if (single := self._only_charger(accounts)) is not None:
            return await single.refund(accounts, cost, moments)
        return joined(
            [
                await self._charger_of(one).refund((one,), cost, (moment,))
                for one, moment in zip(accounts, moments, strict=True)
            ]
        )

    async def close(self) -> None:
        """Wait until no charge is in progress."""
        await self._redis.close()
        await self._database.close()

    def _only_charger(self, accounts: Accounts) -> Charger | None:
        """Return the charger of all accounts; None if there are two."""
        chargers = {self._charger_of(one) for one in accounts}
        return chargers.pop() if len(chargers) == 1 else None


def joined(receipts: Sequence[Receipt]) -> Receipt:
    """Return one decision for several accounts."""
    refusals = [one.refusal for one in receipts if one.refusal is not None]
    return Receipt(
        longest_wait(refusals),
        tuple(moment for one in receipts for moment in one.moments),
        tuple(figure for one in receipts for figure in one.figures),
    )
