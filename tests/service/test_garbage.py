"""The objects of a request are freed when it ends: no cycle keeps them until the garbage collector runs.

A worker runs the garbage collector rarely, so a cycle in each request would use the memory of thousands of requests.
A failed statement is an exception: SQLAlchemy's transaction keeps its error, which keeps everything that led to it.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from latchkey.service.settings import Settings
from tests.api import HeldKey, call, hold_key
from tests.requests import Answer

# A few parts of statements do wait, as SQLAlchemy creates them. They reference nothing else.
KEPT = (
    "latchkey.",
    "sqlalchemy.orm.",
    "_asyncio.",
    "_contextvars.",
    "builtins.frame",
)

Call = Callable[[Starlette, HeldKey, int], Awaitable[Answer]]
BODY_LIMIT_BYTES = 1024


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, body_limit_bytes=BODY_LIMIT_BYTES, body_timeout_s=0.2)


@contextmanager
def uncollected() -> Iterator[Counter[str]]:
    """Count, by type, the objects of the block that only the garbage collector would free.

    Older objects are frozen: some that an earlier test left, such as its engine, may become garbage only now.
    """
    found: Counter[str] = Counter()
    gc.collect()
    gc.freeze()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def user(number: int) -> dict[str, str]:
    return {"email": f"ann{number}@example.com", "name": "Ann"}


CALLS: dict[str, tuple[int, Call]] = {
    "no key": (401, lambda app, _key, _n: call(app, "GET", "/v1/me")),
    "a wrong key": (401, lambda app, _key, _n: call(app, "GET", "/v1/me", headers=[("authorization", "Bearer x")])),
    "public": (200, lambda app, _key, _n: call(app, "GET", "/healthz")),
    "no such path": (404, lambda app, _key, _n: call(app, "GET", "/nowhere")),
    "read": (200, lambda app, key, _n: call(app, "GET", "/v1/me", key=key)),
    "list": (200, lambda app, key, _n: call(app, "GET", "/v1/users", key=key)),
    "not found": (404, lambda app, key, _n: call(app, "GET", "/v1/users/999", key=key)),
    "create": (201, lambda app, key, n: call(app, "POST", "/v1/users", key=key, body=user(n))),
    "create once": (
        201,
        lambda app, key, n: call(
            app, "POST", "/v1/users", key=key, body=user(n), headers=[("idempotency-key", str(n))]
        ),
    ),
    "change": (200, lambda app, key, n: call(app, "PATCH", f"/v1/users/{key.user_id}", key=key, body={"name": f"Ann {n}"})),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["bearer", "signed"])
@pytest.mark.parametrize(("status", "send"), CALLS.values(), ids=CALLS)
async def test_a_request_leaves_nothing_to_collect(
    app: Starlette, status: int, send: Call, mode: str
) -> None:
    key = await hold_key(app, mode=mode)
    await call(app, "POST", "/v1/users", key=key, body=user(0))
    await send(app, key, 1)  # objects that are created once and kept

    with uncollected() as found:
        answers = [await send(app, key, number) for number in range(2, 5)]

    assert [one.status for one in answers] == [status] * 3
    assert {name: count for name, count in found.items() if name.startswith(KEPT)} == {}


@pytest.mark.parametrize("ends", ["client leaves", "too large", "too late"])
async def test_a_body_without_an_end_leaves_nothing_to_collect(app: Starlette, ends: str) -> None:
    key = await hold_key(app)
    lasts: dict[str, Message] = {
        "client leaves": {"type": "http.disconnect"},
        "too large": {"type": "http.request", "body": b" " * BODY_LIMIT_BYTES, "more_body": True},
        "too late": {"type": "http.request", "body": b"{", "more_body": True},
    }
    last = lasts[ends]

    async def without_an_end(scope: Scope, _receive: Receive, send: Send) -> None:
        incoming: list[Message] = [last, {"type": "http.request", "body": b"{", "more_body": True}]

        async def receive() -> Message:
            return incoming.pop() if incoming else await asyncio.sleep(10, last)

        await app(scope, receive, send)

    async def upload() -> Answer:
        return await call(app, "POST", "/v1/users", key=key, chunks=[b"{"], wrap=without_an_end)

    await upload()
    with uncollected() as found:
        answers = [await upload() for _ in range(3)]

    status = {"client leaves": None, "too large": 413, "too late": 408}[ends]
    assert [one.status for one in answers] == [status] * 3
    assert {name: count for name, count in found.items() if name.startswith(KEPT)} == {}
