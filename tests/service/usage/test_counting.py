"""Every answered call is counted once, by what a bill and a bad day need."""

import pytest
from starlette.applications import Starlette

from latchkey.models.limit import RateLimit
from latchkey.models.usage import NO_KEY
from latchkey.service.usage import counting
from latchkey.service.usage.counting import Usage
from latchkey.service.usage.series import ANYTHING, OVERFLOW, UNKNOWN_ROUTE, Series
from latchkey.service.usage.store import Store
from tests.api import HeldKey, call, hold_key
from tests.service.usage.counted import rows, stored, usage_of


async def flushed(app: Starlette, key_id: int | None = None) -> dict[tuple[str, int, str, str], int]:
    await usage_of(app).flush()
    return dict(await stored(app, key_id))


async def test_calls_of_a_key_are_counted_by_route_status_and_code(app: Starlette, operator: HeldKey) -> None:
    for _ in range(3):
        await call(app, "GET", "/v1/me", key=operator)
    await call(app, "GET", "/v1/users/999", key=operator)
    await call(app, "GET", "/v1/users/998", key=operator)

    assert await flushed(app, operator.id) == {
        ("GET /v1/me", 200, "", ""): 3,
        ("GET /v1/users/{id}", 404, "not_found", ""): 2,
    }


async def test_a_second_flush_adds_to_the_first(app: Starlette, operator: HeldKey) -> None:
    for _ in range(2):
        await call(app, "GET", "/v1/me", key=operator)
        await usage_of(app).flush()

    assert await flushed(app, operator.id) == {("GET /v1/me", 200, "", ""): 2}


async def test_refused_calls_of_a_known_key_are_counted_with_their_code(app: Starlette) -> None:
    narrow = await hold_key(app, scopes=["users:read"])
    revoked = await hold_key(app, status="revoked")
    limited = await hold_key(app, limits=[RateLimit(name="few", limit=1, window_s=60)])
    await call(app, "GET", "/v1/keys", key=narrow)
    await call(app, "GET", "/v1/me", key=revoked)
    await call(app, "GET", "/v1/me", key=limited)
    await call(app, "GET", "/v1/me", key=limited)

    assert await flushed(app, narrow.id) == {("GET /v1/keys", 403, "scope_missing", ""): 1}
    assert await flushed(app, revoked.id) == {("GET /v1/me", 401, "key_revoked", ""): 1}
    assert sorted(await rows(app, limited.id)) == [
        ("GET /v1/me", 200, "", "", 1, 1),
        ("GET /v1/me", 429, "rate_limited", "", 1, 0),
    ]


async def test_a_wrong_signature_counts_for_the_key_that_it_names(app: Starlette, signer: HeldKey) -> None:
    path = f"/v1/me?key={signer.access_key}&timestamp=1700000000"

    await call(app, "GET", path, headers=[("secret", "3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")])

    assert await flushed(app, signer.id) == {("GET /v1/me", 401, "unauthenticated", ""): 1}


async def test_calls_without_a_known_key_share_one_key_and_unknown_paths_one_route(app: Starlette) -> None:
    for path in ("/nothing", "/v1/nothing", "/v1/users/1/2/3"):
        await call(app, "GET", path)
    await call(app, "PATCH", "/v1/me")
    await call(app, "GET", "/v1/me")

    assert await flushed(app, NO_KEY) == {
        (UNKNOWN_ROUTE, 404, "not_found", ""): 3,
        (UNKNOWN_ROUTE, 405, "method_not_allowed", ""): 1,
        ("GET /v1/me", 401, "unauthenticated", ""): 1,
    }


async def test_what_verify_charges_is_counted_for_the_verified_key_by_its_tags(
    app: Starlette, operator: HeldKey
) -> None:
    partner = await hold_key(app, email="partner@example.com", scopes=["users:read"])
    body = {"credential": partner.secret, "cost": 3, "tags": ["blue", "api", "blue"]}
    await call(app, "POST", "/v1/keys/verify", key=operator, body=body)
    await call(app, "POST", "/v1/keys/verify", key=operator, body=body | {"charge": False})
    await call(app, "POST", "/v1/keys/verify", key=operator, body=body | {"scopes": ["keys:read"]})
    await usage_of(app).flush()

    assert sorted(await rows(app, partner.id)) == [
        ("verify", 200, "", "api blue", 1, 3),
        ("verify", 403, "scope_missing", "api blue", 1, 0),
    ]
    assert await flushed(app, operator.id) == {("POST /v1/keys/verify", 200, "", ""): 3}


async def test_a_replay_is_a_call_without_units(app: Starlette, operator: HeldKey) -> None:
    body = {"email": "ann@example.com", "name": "Ann"}
    for _ in range(2):
        await call(app, "POST", "/v1/users", key=operator, body=body, headers=[("idempotency-key", "a" * 20)])
    await usage_of(app).flush()

    assert await rows(app, operator.id) == [("POST /v1/users", 201, "", "", 2, 1)]


def counter(minute: float = 0) -> Usage:
    """Return a counter that is not connected to a database, at a minute since 1970."""

    def nothing() -> None:
        raise AssertionError

    return Usage(Store(nothing, nothing), flush_s=1, clock=lambda: minute * 60)  # type: ignore[arg-type]


def test_beyond_the_bound_calls_are_counted_by_hour_and_then_without_their_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "MOST_CELLS", 6)
    usage, series = counter(61.5), Series("GET /", 200)

    for key_id in (1, 2, 3, 4, 5, 6, 7, 8, 1, 5, 8):
        usage.note(key_id, series, units=2)

    assert usage._live == {
        (61, 1, series): [2, 4],
        (61, 2, series): [1, 2],
        (61, 3, series): [1, 2],
        (60, 4, series): [1, 2],
        (60, 5, series): [2, 4],
        (60, 6, series): [1, 2],
        (60, NO_KEY, ANYTHING): [3, 6],
    }
    assert ANYTHING.route == OVERFLOW
