"""Charge calls to counters; calls that wait for the same counters in one worker are charged together.

A round reads the counters, computes what fits, and writes them by compare-and-set; a lost race starts the round
again. While a round is in progress for a subject, its next calls wait in a queue, and the next round charges all of
them by one read and one write. A busy subject therefore costs less than one round for each call, and its counters
see one writer for each worker. A call in the queue holds no connection.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from latchkey.middleware.background import detach
from latchkey.middleware.request_scope import RequestScope
from latchkey.service.database.stalls import waiting_once
from latchkey.service.limits.account import Accounts
from latchkey.service.limits.counters import Counters, Reading, Write
from latchkey.service.limits.crossings import Crossing, crossings_of, used_of
from latchkey.service.limits.ledger import Figure, Ledger, Refusal, charge
from latchkey.service.problems import Problem

ATTEMPTS = 100
LONGEST_PAUSE_S = 0.02

Report = Callable[[Sequence[Crossing]], Awaitable[None]]
Moments = tuple[int, ...]
"""The time at which a call was counted, for each account; every ledger has its own time."""


class Receipt(msgspec.Struct, frozen=True):
    """The decision about a call."""

    refusal: Refusal | None
    moments: Moments
    figures: tuple[Figure, ...]


class PendingCharge(msgspec.Struct, frozen=True, eq=False):
    """A charge or a refund that waits in a queue; its caller awaits `receipt`."""

    accounts: Accounts
    cost: int
    receipt: asyncio.Future[Receipt]
    back: Moments | None
    """The times of the charges to refund; None for a new charge."""
    request_scope: RequestScope | None = None
    """The request that waits."""

    @property
    def is_void(self) -> bool:
        """Whether its caller has gone; a refund is executed nevertheless."""
        return self.back is None and self.receipt.cancelled()

    def settle(self, ledgers: Sequence[Ledger]) -> Receipt:
        """Apply the charge or the refund to the ledgers."""
        refusal = None
        if self.back is None:
            refusal = charge(ledgers, self.cost)
        else:
            for ledger, moment in zip(ledgers, self.back, strict=True):
                ledger.refund(self.cost, moment)
        return Receipt(refusal, tuple(ledger.moment for ledger in ledgers), figures_of(ledgers))


class Charger:
    """Charge calls to accounts, exactly, for any number of workers.

    Args:
        counters: those that all workers share.
        report: called with the parts of quotas that a charge has spent; None reports nothing.
    """

    def __init__(self, counters: Counters, report: Report | None = None) -> None:
        self._counters = counters
        self._report = report
        self._queues: dict[str, deque[PendingCharge]] = {}
        self._working: set[asyncio.Task[None]] = set()

    async def look(self, accounts: Accounts) -> tuple[Figure, ...]:
        """Return the current state of the rules, without a charge."""
        return figures_of(open_ledgers(accounts, await self._counters.read(accounts)))

    async def preview(self, accounts: Accounts, cost: int) -> Receipt:
        """Return the decision that a charge would get now, without a charge."""
        ledgers = open_ledgers(accounts, await self._counters.read(accounts))
        figures = figures_of(ledgers)  # before the charge, which changes the ledgers
        return Receipt(charge(ledgers, cost), (), figures)

    async def charge(self, accounts: Accounts, cost: int) -> Receipt:
        """Charge a call to all accounts, or to none.

        Raises:
            DBAPIError, sqlalchemy.exc.TimeoutError, UnreachableError: the counters cannot be reached.
            Problem: the compare-and-set lost too many races.
        """
        return await self._queue(accounts, cost)

    async def refund(self, accounts: Accounts, cost: int, moments: Moments) -> Receipt:
        """Refund units that were charged at these times; raises as `charge`."""
        return await self._queue(accounts, cost, moments)

    async def close(self) -> None:
        """Wait until no charge is in progress."""
        while self._working:
            await asyncio.wait(self._working)

    async def _queue(self, accounts: Accounts, cost: int, back: Moments | None = None) -> Receipt:
        pending = PendingCharge(
            accounts, cost, asyncio.get_running_loop().create_future(), back, RequestScope.current()
        )
        self._enqueue(pending)
        try:
            return await pending.receipt
        except asyncio.CancelledError:
            if (
                pending.receipt.done()
                and not pending.receipt.cancelled()
                and pending.receipt.exception() is None
            ):
                self._abandon(pending, pending.receipt.result())
            raise

    def _abandon(self, pending: PendingCharge, receipt: Receipt) -> None:
        """Refund a call whose caller has gone in the meantime."""
        if pending.back is not None or receipt.refusal is not None:
            return
        nobody: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        nobody.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._enqueue(PendingCharge(pending.accounts, pending.cost, nobody, receipt.moments))

    def _enqueue(self, pending: PendingCharge) -> None:
        # All keys of a limited owner share its counter, so they share a queue; any other key has its own.
        name = pending.accounts[-1].subject
        queue = self._queues.get(name)
        if queue is not None:
            queue.append(pending)
            return
        queue = self._queues[name] = deque([pending])
        # In its own task: the first call may be cancelled while others wait for the same round.
        work = detach(self._work(name, queue), name=f"limits of {name}")
        self._working.add(work)
        work.add_done_callback(self._working.discard)

    async def _work(self, name: str, queue: deque[PendingCharge]) -> None:
        try:
            with waiting_once() as wait:
                while queue:
                    await self._charge_together(queue)
        except Exception as error:  # noqa: BLE001 - every error belongs to the waiting calls
            for pending in queue:
                wait.mark(pending.request_scope)
                if not pending.receipt.done():
                    pending.receipt.set_exception(error)
        finally:
            del self._queues[name]
            for pending in queue:
                pending.receipt.cancel()  # only calls that still wait when the loop ends

    async def _charge_together(self, queue: deque[PendingCharge]) -> None:
        """Decide the first call in the queue, and all that wait for the same accounts."""
        accounts = queue[0].accounts
        for _ in range(ATTEMPTS):
            reading = await self._counters.read(accounts)
            waiting = [one for one in queue if one.accounts == accounts and not one.is_void]
            ledgers = open_ledgers(accounts, reading)
            used_before = used_of(ledgers)
            receipts = [one.settle(ledgers) for one in waiting]
            is_changed = any(receipt.refusal is None for receipt in receipts)
            if not is_changed or await self._counters.write(changes(ledgers, reading)):
                break
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S))  # noqa: S311 - no secret
        else:
            raise Problem("unavailable", "Too many calls are being charged to the same key or owner.")
        if self._report is not None and (crossings := crossings_of(used_before, ledgers)):
            await self._report(crossings)
        settled = set(waiting)
        kept = [one for one in queue if one not in settled and not one.is_void]
        queue.clear()
        queue.extend(kept)
        for pending, receipt in zip(waiting, receipts, strict=True):
            if pending.receipt.cancelled():
                self._abandon(pending, receipt)
            else:
                pending.receipt.set_result(receipt)


def figures_of(ledgers: Sequence[Ledger]) -> tuple[Figure, ...]:
    """Return the current state of every rule of some ledgers."""
    return tuple(figure for ledger in ledgers for figure in ledger.figures())


def open_ledgers(accounts: Accounts, reading: Reading) -> list[Ledger]:
    """Return the ledgers of accounts from what was read."""
    found = reading.found
    return [
        Ledger(one, found[one.subject].state if one.subject in found else None, reading.clock)
        for one in accounts
    ]


def changes(ledgers: Sequence[Ledger], reading: Reading) -> list[Write]:
    """Return the new counter values of ledgers."""
    return [
        Write(
            one.account,
            reading.found[one.account.subject].version if one.account.subject in reading.found else None,
            one.encode(),
            reading.clock,
            one.expires_at,
        )
        for one in ledgers
    ]
