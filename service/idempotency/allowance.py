"""A bound on the responses that are stored for one access key."""

from collections import OrderedDict

from latchkey.models.limit import RateLimit
from latchkey.service.limits.account import Account, Accounts
from latchkey.service.limits.charger import Charger
from latchkey.service.problems import Problem

KEPT_S = 24 * 60 * 60  # 24 hours, in seconds
SHARE = 64  # a worker asks for the 64th part of the limit at a time
LARGEST_MEMORY = 10_000  # access keys


class Allowance:
    """The number of responses that this worker may still store for each access key.

    A worker takes a share of the limit from the counters that all workers use, and then counts in memory, so that most
    calls cost no round trip. The first share of each worker is free.

    Args:
        charger: charges the shares.
        limit: the maximum number of responses of one access key in 24 hours.
    """

    def __init__(self, charger: Charger, limit: int) -> None:
        self._charger = charger
        self._limit = limit
        self._share = limit // SHARE
        self._left: OrderedDict[int, int] = OrderedDict()

    def take(self, key_id: int) -> bool:
        """Take one response from this worker's share; return False when nothing is left."""
        left = self._left.pop(key_id, self._share)
        self._left[key_id] = max(0, left - 1)
        if len(self._left) > LARGEST_MEMORY:
            self._left.popitem(last=False)
        return left > 0

    def refund(self, key_id: int) -> None:
        """Release the share of a response that was not stored."""
        self._left[key_id] = self._left.get(key_id, self._share) + 1

    async def ask(self, key_id: int) -> None:
        """Take another share; meanwhile the request's session must have nothing open.

        Raises:
            Problem: `too_many_stored_answers`.
            DBAPIError, sqlalchemy.exc.TimeoutError: the counters cannot be reached.
        """
        rule = RateLimit(name="answers", limit=self._limit, window_s=KEPT_S)
        accounts: Accounts = (Account(f"answers:{key_id}", "", (rule,), None),)
        for share in sorted({max(1, self._share), 1}, reverse=True):
            receipt = await self._charger.charge(accounts, share)
            if receipt.refusal is None:
                self._left[key_id] = self._left.get(key_id, 0) + share
                return
        assert receipt.refusal is not None  # noqa: S101 - the loop ran, and returned otherwise
        wait_s = receipt.refusal.wait_s or KEPT_S
        raise Problem("too_many_stored_answers", headers={"retry-after": str(wait_s)})
