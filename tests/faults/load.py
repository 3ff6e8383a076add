"""A load of clients that records each call, so that its effects can be compared with the rows of the database."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import httpx2
import msgspec

from tests.api import HeldKey

CREATED = 201
PAUSE_S = 0.05  # after a call that failed
CALL_TIMEOUT_S = 60  # more than any answer may take: a later one is measured, not lost
NO_ANSWER = "no answer"


class Call(msgspec.Struct):
    """A call and its answer."""

    is_write: bool
    began: float
    ended: float
    status: int | str
    code: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.status in {200, CREATED}

    @property
    def outcome(self) -> str:
        return str(self.status) if self.code is None else f"{self.status} {self.code}"


class Load:
    """Clients that call without a pause, in an `async with` block.

    Each client has an owner and a key of its own. The first of four clients creates users and sends each call once. The
    second creates users with an `Idempotency-Key`, and repeats each call until it succeeds. The third changes the name of
    its owner, and the fourth reads.
    """

    def __init__(self, urls: Sequence[str], keys: Sequence[HeldKey]) -> None:
        self.calls: list[Call] = []
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        """Names of rows that must not exist: the only call got a 503."""
        self.changed: dict[int, int] = {}
        """The last acknowledged change of each owner."""
        self._urls = urls
        self._keys = keys
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for number, key in enumerate(self._keys):
            client = (self._create, self._create_for_sure, self._change, self._read)[number % 4]
            self._tasks.append(asyncio.create_task(client(number, key)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=kind is not None)

    async def until_successes(self, number: int = 30) -> None:
        """Wait until a number of calls have succeeded."""
        before = sum(call.succeeded for call in self.calls)
        async with asyncio.timeout(30):
            while sum(call.succeeded for call in self.calls) < before + number:
                await asyncio.sleep(0.05)

    def _client(self, number: int) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self._urls[number % len(self._urls)], timeout=CALL_TIMEOUT_S)

    async def _create(self, number: int, key: HeldKey) -> None:
        async with self._client(number) as client:
            counter = 0
            while not self._stopping:
                counter += 1
                name = f"{key.id}-{counter}"
                if (await self._create_one(client, key, name)).status == 503:
                    self.refused.add(name)

    async def _create_for_sure(self, number: int, key: HeldKey) -> None:
        async with self._client(number) as client:
            counter = 0
            while not self._stopping:
                counter += 1
                name = f"{key.id}-{counter}"
                headers = {"idempotency-key": name}
                while not (await self._create_one(client, key, name, headers)).succeeded:
                    if self._stopping:
                        return

    async def _change(self, number: int, key: HeldKey) -> None:
        async with self._client(number) as client:
            counter = 0
            while not self._stopping:
                counter += 1
                path, body = f"/v1/users/{key.user_id}", {"name": f"{counter}"}
                if (await self._send(client, key, "PATCH", path, body)).succeeded:
                    self.changed[key.user_id] = counter

    async def _read(self, number: int, key: HeldKey) -> None:
        async with self._client(number) as client:
            while not self._stopping:
                await self._send(client, key, "GET", "/v1/users?limit=1")

    async def _create_one(
        self, client: httpx2.AsyncClient, key: HeldKey, name: str, headers: Mapping[str, str] | None = None
    ) -> Call:
        body = {"email": f"{name}@example.com", "name": "created"}
        call = await self._send(client, key, "POST", "/v1/users", body, headers)
        if call.succeeded:
            self.acknowledged.add(name)
        return call

    async def _send(
        self,
        client: httpx2.AsyncClient,
        key: HeldKey,
        method: str,
        path: str,
        body: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Call:
        call = Call(method != "GET", time.monotonic(), 0.0, NO_ANSWER)
        given = {**(headers or {}), **dict([key.bearer])}
        try:
            answer = await client.request(method, path, json=body, headers=given)
            call.status = answer.status_code
            if not answer.is_success:
                call.code = answer.json()["code"]
        except httpx2.TransportError:
            pass
        call.ended = time.monotonic()
        self.calls.append(call)
        if not call.succeeded:
            await asyncio.sleep(PAUSE_S)
        return call

    # ------------------------------------------------------------------ what it has seen

    @property
    def outcomes(self) -> Counter[str]:
        """Return how often each status was answered; errors with their codes."""
        return Counter(call.outcome for call in self.calls)

    @property
    def slowest_s(self) -> float:
        """Return the duration of the slowest answer."""
        return max(call.ended - call.began for call in self.calls)

    @property
    def worst_gap_s(self) -> float:
        """Return the longest time without a success."""
        moments = sorted(call.ended for call in self.calls if call.succeeded)
        return max(after - before for before, after in itertools.pairwise(moments))

    def recovered_s(self, since: float) -> float:
        """Return how long after a moment calls still began that failed."""
        failed = [call.began for call in self.calls if not call.succeeded and call.began > since]
        return max(failed, default=since) - since
