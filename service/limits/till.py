"""Where calls are charged: those that wait for the same counters in this worker are charged together.

Counters are read, what fits is worked out, and they are written if nobody was first; else it begins again. While
that is under way for a subject, its next calls queue here, and the next round charges all of them by one read and
one write. So a busy subject costs less than a round for each call, and its counters see one writer for each
worker, not one for each call. Who queues holds no connection.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence

import msgspec

from service.limits.account import Accounts
from service.limits.counters import Counters, Reading, Write
from service.limits.ledger import Figure, Ledger, Refusal, charge
from service.problems import Problem

ATTEMPTS = 100
LONGEST_PAUSE_S = 0.02

Moments = tuple[int, ...]
"""When a call was counted, by account; each ledger has a time of its own."""


class Receipt(msgspec.Struct, frozen=True):
    """How a call was decided."""

    refusal: Refusal | None
    moments: Moments
    figures: tuple[Figure, ...]


class Order(msgspec.Struct, frozen=True, eq=False):
    """A call that waits to be charged, or given back; who waits for it holds `receipt`."""

    accounts: Accounts
    cost: int
    receipt: asyncio.Future[Receipt]
    back: Moments | None
    """When what is to be given back was counted; None of a call that is to be charged."""

    @property
    def is_void(self) -> bool:
        """Whether nobody waits for it any more; what is to be given back is given back all the same."""
        return self.back is None and self.receipt.cancelled()

    def settle(self, ledgers: Sequence[Ledger]) -> Receipt:
        """Change the ledgers as ordered."""
        refusal = None
        if self.back is None:
            refusal = charge(ledgers, self.cost)
        else:
            for ledger, moment in zip(ledgers, self.back, strict=True):
                ledger.give_back(self.cost, moment)
        figures = tuple(figure for ledger in ledgers for figure in ledger.figures())
        return Receipt(refusal, tuple(ledger.moment for ledger in ledgers), figures)


class Till:
    """Charges calls to accounts, exactly, whatever the number of workers.

    Args:
        counters: the table that all workers share.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._lanes: dict[str, deque[Order]] = {}
        self._working: set[asyncio.Task[None]] = set()

    async def look(self, accounts: Accounts) -> tuple[Figure, ...]:
        """Tell how the rules stand, and charge nothing."""
        ledgers = open_ledgers(accounts, await self._counters.read([one.subject for one in accounts]))
        return tuple(figure for ledger in ledgers for figure in ledger.figures())

    async def charge(self, accounts: Accounts, cost: int) -> Receipt:
        """Charge a call to all accounts, or to none.

        Raises:
            DBAPIError, sqlalchemy.exc.TimeoutError: the counters are out of reach.
            Problem: others were first too often.
        """
        return await self._queue(accounts, cost)

    async def give_back(self, accounts: Accounts, cost: int, moments: Moments) -> Receipt:
        """Take back what was charged at these moments; raises as `charge`."""
        return await self._queue(accounts, cost, moments)

    async def close(self) -> None:
        """Wait until nothing is being charged."""
        while self._working:
            await asyncio.wait(self._working)

    async def _queue(self, accounts: Accounts, cost: int, back: Moments | None = None) -> Receipt:
        order = Order(accounts, cost, asyncio.get_running_loop().create_future(), back)
        self._enqueue(order)
        try:
            return await order.receipt
        except asyncio.CancelledError:
            if order.receipt.done() and not order.receipt.cancelled() and order.receipt.exception() is None:
                self._abandon(order, order.receipt.result())
            raise

    def _abandon(self, order: Order, receipt: Receipt) -> None:
        """Give back what was charged to a call whose caller has gone meanwhile."""
        if order.back is not None or receipt.refusal is not None:
            return
        nobody: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        nobody.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._enqueue(Order(order.accounts, order.cost, nobody, receipt.moments))

    def _enqueue(self, order: Order) -> None:
        # All keys of a limited owner share its counter, so they share a lane; any other key has its own.
        name = order.accounts[-1].subject
        lane = self._lanes.get(name)
        if lane is not None:
            lane.append(order)
            return
        lane = self._lanes[name] = deque([order])
        # A task of its own: the call that happens to be the first may be cancelled, and others wait with it.
        work = asyncio.create_task(self._work(name, lane), name=f"limits of {name}")
        self._working.add(work)
        work.add_done_callback(self._working.discard)

    async def _work(self, name: str, lane: deque[Order]) -> None:
        try:
            while lane:
                await self._charge_together(lane)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
            for order in lane:
                if not order.receipt.done():
                    order.receipt.set_exception(error)
        finally:
            del self._lanes[name]
            for order in lane:
                order.receipt.cancel()  # of those that wait when the loop ends; else nobody does

    async def _charge_together(self, lane: deque[Order]) -> None:
        """Settle the first order, and all that wait for the same accounts."""
        accounts = lane[0].accounts
        for _ in range(ATTEMPTS):
            reading = await self._counters.read([one.subject for one in accounts])
            orders = [one for one in lane if one.accounts == accounts and not one.is_void]
            ledgers = open_ledgers(accounts, reading)
            receipts = [one.settle(ledgers) for one in orders]
            is_changed = any(receipt.refusal is None for receipt in receipts)
            if not is_changed or await self._counters.write(changes(ledgers, reading)):
                break
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S))  # noqa: S311 - no secret
        else:
            raise Problem("unavailable", "Too many calls are charged to the same key or owner.")
        settled = set(orders)
        kept = [one for one in lane if one not in settled and not one.is_void]
        lane.clear()
        lane.extend(kept)
        for order, receipt in zip(orders, receipts, strict=True):
            if order.receipt.cancelled():
                self._abandon(order, receipt)
            else:
                order.receipt.set_result(receipt)


def open_ledgers(accounts: Accounts, reading: Reading) -> list[Ledger]:
    """Open the ledgers of accounts as they were read."""
    found = reading.found
    return [
        Ledger(one, found[one.subject].state if one.subject in found else None, reading.clock)
        for one in accounts
    ]


def changes(ledgers: Sequence[Ledger], reading: Reading) -> list[Write]:
    """Write ledgers over what was read."""
    return [
        Write(
            one.account.subject,
            reading.found[one.account.subject].version if one.account.subject in reading.found else None,
            one.encode(),
            reading.clock,
            one.expires_at,
        )
        for one in ledgers
    ]
