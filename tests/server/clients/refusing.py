"""Routes that refuse a call some times, for the tests of the clients."""

import time

import msgspec
from starlette.requests import Request

from latchkey import Problem, route


class Outcome(msgspec.Struct):
    attempts: int
    waited_s: float


class Order(msgspec.Struct):
    sku: str


ATTEMPTS: dict[str, list[float]] = {}


def note(request: Request) -> list[float]:
    """Return the times of the attempts of a call, which an Idempotency-Key names."""
    times = ATTEMPTS.setdefault(request.headers["idempotency-key"], [])
    times.append(time.monotonic())
    return times


async def refuse_twice(request: Request, body: Order) -> Outcome:
    """Refuse a call with 503 and with 429, and accept it then."""
    times = note(request)
    if len(times) == 1:
        raise Problem("unavailable", headers={"retry-after": "1"})
    if len(times) == 2:
        raise Problem("rate_limited", headers={"retry-after": "0"})
    return Outcome(len(times), times[1] - times[0])


async def refuse(request: Request, body: Order) -> Outcome:
    """Refuse every attempt."""
    raise Problem("unavailable", f"attempt {len(note(request))}", headers={"retry-after": "0"})


async def refuse_for_an_hour(request: Request, body: Order) -> Outcome:
    """Refuse every attempt, and ask for a long pause."""
    raise Problem("rate_limited", f"attempt {len(note(request))}", headers={"retry-after": "3600"})


REFUSING = tuple(
    route("POST", path, endpoint, scope="users:read", answers=Outcome, idempotent=True)
    for path, endpoint in (
        ("/v1/twice", refuse_twice),
        ("/v1/never", refuse),
        ("/v1/hour", refuse_for_an_hour),
    )
)
