"""The metrics: what a scrape shows after some calls."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from asyncmy.errors import OperationalError as DriverError
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.middleware.measured import measurement
from latchkey.models.limit import RateLimit
from latchkey.models.webhook import Webhook, WebhookDelivery
from latchkey.service.operation import Operation, route
from latchkey.service.settings import Settings
from latchkey.service.shapes import Health
from tests.api import HeldKey, assert_problem, call, hold_key


def samples_of(text: bytes) -> dict[str, float]:
    """Return the samples of a scrape, as `name{label=value}`."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for one in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(one.labels.items()))
            found[f"{one.name}{{{labels}}}" if labels else one.name] = one.value
    return found


@pytest.fixture
async def scraper(app: Starlette) -> HeldKey:
    return await hold_key(app, scopes=["metrics:read"])


async def scrape(app: Starlette, scraper: HeldKey) -> dict[str, float]:
    answer = await call(app, "GET", "/metrics", key=scraper)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return samples_of(answer.body)


async def test_requests_are_counted_by_template_and_status(
    app: Starlette, operator: HeldKey, scraper: HeldKey
) -> None:
    for _ in range(3):
        await call(app, "GET", f"/v1/users/{operator.user_id}", key=operator)
    await call(app, "GET", "/v1/users/77777", key=operator)
    await call(app, "GET", "/secret-path-1")
    await call(app, "BREW", "/secret-path-2")

    found = await scrape(app, scraper)

    assert found["latchkey_requests_total{route=GET /v1/users/{id},status=200}"] == 3
    assert found["latchkey_requests_total{route=GET /v1/users/{id},status=404}"] == 1
    assert found["latchkey_request_duration_seconds_count{route=GET /v1/users/{id}}"] == 4
    assert found["latchkey_requests_total{route=(unknown path),status=404}"] == 2
    assert found["latchkey_problems_total{code=not_found}"] == 3
    assert "secret-path" not in str(found)
    assert "latchkey_requests_total{route=GET /metrics,status=200}" not in found  # it is not answered yet
    assert "latchkey_requests_total{route=GET /metrics,status=200}" in await scrape(app, scraper)


async def test_the_state_of_sessions_and_pools(app: Starlette, settings: Settings, scraper: HeldKey) -> None:
    async with app.state.db.engine.connect():
        found = await scrape(app, scraper)

    assert found["latchkey_sessions_open"] == 1  # that of the scrape
    assert found["latchkey_pool_size{pool=writer}"] == settings.pool_size
    assert found["latchkey_pool_checked_out{pool=writer}"] == 1
    assert found["latchkey_pool_waiting{pool=reader}"] == 0


async def test_round_trips_are_those_on_the_wire(
    app: Starlette, operator: HeldKey, scraper: HeldKey, database_url: str
) -> None:
    name = "latchkey_round_trips_total{route=GET /v1/users}"
    await call(app, "GET", "/v1/users", key=operator)
    before = (await scrape(app, scraper))[name]  # it connected

    for _ in range(2):
        await call(app, "GET", "/v1/users", key=operator)

    expected = 0 if "sqlite" in database_url else 4
    assert (await scrape(app, scraper))[name] - before == expected
    assert measurement.get() is None


async def test_limits_that_refuse_are_counted(app: Starlette, scraper: HeldKey) -> None:
    limited = await hold_key(app, limits=[RateLimit(name="minute", limit=1, window_s=60)])
    await call(app, "GET", "/v1/me", key=limited)
    assert_problem(await call(app, "GET", "/v1/me", key=limited), 429, "rate_limited")

    assert (await scrape(app, scraper))["latchkey_limits_refused_total{code=rate_limited}"] == 1


async def test_signatures_that_fail_are_counted_by_reason(
    app: Starlette, signer: HeldKey, operator: HeldKey, scraper: HeldKey
) -> None:
    wrong = msgspec.structs.replace(signer, secret=operator.secret)
    unknown = msgspec.structs.replace(signer, access_key="lka_0000000000000000000000")
    await call(app, "GET", "/v1/me", key=wrong)
    await call(app, "GET", "/v1/me", key=unknown)
    await call(app, "GET", "/v1/me?key=x", headers=[("secret", "x")])
    await call(app, "GET", "/v1/me", headers=[("authorization", "Bearer x")])

    found = await scrape(app, scraper)

    assert found["latchkey_signatures_failed_total{reason=wrong_signature}"] == 1
    assert found["latchkey_signatures_failed_total{reason=unknown_key}"] == 1
    assert found["latchkey_signatures_failed_total{reason=ill_formed}"] == 1
    assert sum(n for name, n in found.items() if name.startswith("latchkey_signatures_failed_total")) == 3


async def test_keys_that_expire_soon_are_counted(app: Starlette, scraper: HeldKey) -> None:
    now = datetime.now(UTC)
    for days in (-1, 1, 29, 31):
        await hold_key(app, expires_at=now + timedelta(days=days))
    await hold_key(app, expires_at=now + timedelta(days=1), status="revoked")

    assert (await scrape(app, scraper))["latchkey_keys_expiring"] == 2


async def test_the_age_of_the_oldest_event_that_waits(
    app: Starlette, operator: HeldKey, scraper: HeldKey
) -> None:
    none = await scrape(app, scraper)
    async with app.state.db.scoped_session() as session:
        hooks = [
            Webhook(url=f"https://example.com/{n}", sealed=b"x", enabled=n == 0, secret_version=1)
            for n in (0, 1)
        ]
        session.add_all(hooks)
        await session.flush()
        now = datetime.now(UTC)
        for hook, minutes, status in ((0, 5, "pending"), (0, 9, "delivered"), (1, 20, "pending")):
            session.add(
                WebhookDelivery(
                    webhook_id=hooks[hook].id,
                    event_id=f"e{minutes}",
                    type="key.created",
                    payload=b"{}",
                    status=status,
                    created_at=now - timedelta(minutes=minutes),
                    expires_at=now + timedelta(days=1),
                )
            )
        await session.commit()

    assert none["latchkey_outbox_age_seconds"] == 0
    assert 300 <= (await scrape(app, scraper))["latchkey_outbox_age_seconds"] < 400


async def test_a_scrape_needs_its_scope(app: Starlette) -> None:
    other = await hold_key(app, scopes=["users:read"])

    assert_problem(await call(app, "GET", "/metrics"), 401, "unauthenticated")
    assert_problem(await call(app, "GET", "/metrics", key=other), 403, "scope_missing")


async def lose_once(request: Request) -> Health:
    """Lose a conflict at the first attempt."""
    if not getattr(request.app.state, "has_lost", False):
        request.app.state.has_lost = True
        raise OperationalError("", None, DriverError(1213, "Deadlock found"))
    return Health(status="ok")


class TestRetries:
    @pytest.fixture
    def routes(self) -> Sequence[Operation]:
        return [route("POST", "/v1/lose", lose_once, any_key=True)]

    async def test_a_repetition_is_counted_and_the_request_once(
        self, app: Starlette, operator: HeldKey, scraper: HeldKey
    ) -> None:
        assert (await call(app, "POST", "/v1/lose", key=operator)).status == 200

        found = await scrape(app, scraper)

        assert found["latchkey_retries_total"] == 1
        assert found["latchkey_requests_total{route=POST /v1/lose,status=200}"] == 1


class TestWithACache:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, key_cache_ttl_s=60)

    async def test_hits_and_misses_are_counted(
        self, app: Starlette, operator: HeldKey, scraper: HeldKey
    ) -> None:
        for _ in range(3):
            await call(app, "GET", "/v1/me", key=operator)

        found = await scrape(app, scraper)

        assert found["latchkey_key_cache_lookups_total{result=miss}"] == 1
        assert found["latchkey_key_cache_lookups_total{result=hit}"] == 2
