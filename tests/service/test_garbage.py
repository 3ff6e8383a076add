"""What a request leaves behind goes when it ends: no cycle keeps it until the garbage collector comes.

A worker is told to look for garbage rarely. What one request keeps waiting, thousands do, and the memory with it.
Not so after a statement that failed: SQLAlchemy's transaction keeps the exception, which keeps all that led to it.
"""

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette

from tests.api import HeldKey, call, hold_key
from tests.requests import Answer

# A few parts of statements, as SQLAlchemy makes them, do wait. Nothing hangs from them.
KEPT = (
    "latchkey.",
    "sqlalchemy.orm.",
    "_asyncio.",
    "_contextvars.",
    "builtins.frame",
)

Send = Callable[[Starlette, HeldKey, int], Awaitable[Answer]]


@contextmanager
def uncollected() -> Iterator[Counter[str]]:
    """Count by type what only the garbage collector would free of what is left behind in here."""
    found: Counter[str] = Counter()
    gc.collect()
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


CALLS: dict[str, tuple[int, Send]] = {
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
    app: Starlette, status: int, send: Send, mode: str
) -> None:
    key = await hold_key(app, mode=mode)
    await call(app, "POST", "/v1/users", key=key, body=user(0))
    await send(app, key, 1)  # what is made once and kept

    with uncollected() as found:
        answers = [await send(app, key, number) for number in range(2, 5)]

    assert [one.status for one in answers] == [status] * 3
    assert [name for name in found if name.startswith(KEPT)] == []
