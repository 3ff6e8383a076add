"""The fixture `latchkey` of a team's tests: keys, the clock, round trips, and an empty database after each test."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from httpx2 import Response

from latchkey import Problem, Quota, RateLimit, User, rotate_key, sign_call
from latchkey.service.testing.running_app import run_app
from latchkey.testing import RunningApp
from tests.conftest import MARIADB
from tests.mariadb import PrivateMariaDB
from tests.service.testing.application import APP

HOUR = timedelta(hours=1)
USER = {"email": "bob@example.com", "name": "Bob"}


@pytest.fixture(scope="module", params=["sqlite", MARIADB])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('plugin') / 'tests.db'}"
    server: PrivateMariaDB = request.getfixturevalue("mariadb")
    server.create_database("plugin")
    return server.url_of("plugin")


@pytest.fixture(scope="module")
def running(url: str) -> Iterator[RunningApp]:
    with run_app(APP, url, {"LATCHKEY_AUTH_FAILURES_PER_MIN": "2"}) as running:
        yield running


@pytest.fixture
def latchkey(running: RunningApp) -> Iterator[RunningApp]:
    yield running
    running.reset()


def code_of(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize(
    ("mode", "form"), [("bearer", "query"), ("signed", "query"), ("signed", "message")], ids=str
)
def test_a_client_has_the_scopes_of_its_key(latchkey: RunningApp, mode: str, form: str) -> None:
    client = latchkey.client("users:write", mode=mode, form=form)  # type: ignore[arg-type]  # one of the cases

    me = client.get("/v1/me").json()
    created = client.post("/v1/users", json=USER, headers={"idempotency-key": "1"})
    again = client.post("/v1/users", json=USER, headers={"idempotency-key": "1"})

    assert (me["user"]["id"], me["user"]["email"]) == (client.user_id, client.email)
    assert (me["key"]["access_key"], me["key"]["mode"]) == (client.access_key, mode)
    assert (created.status_code, again.json()) == (201, created.json())
    assert code_of(client.get("/v1/users")) == (403, "scope_missing")


def test_clients_have_owners_of_their_own_unless_they_share_an_email(latchkey: RunningApp) -> None:
    first, second = latchkey.client("users:read"), latchkey.client("users:read")
    third = latchkey.client("users:read", email=first.email)

    assert first.user_id != second.user_id
    assert first.user_id == third.user_id
    assert first.access_key != third.access_key


def test_a_key_that_cannot_be_is_refused(latchkey: RunningApp) -> None:
    with pytest.raises(Problem) as refusal:
        latchkey.client("nothing:read")
    assert refusal.value.code == "invalid_body"


def test_a_key_ends_when_the_clock_is_moved(latchkey: RunningApp) -> None:
    ends = latchkey.client("users:read", mode="signed", expires_at=latchkey.clock.now() + HOUR)
    lasts = latchkey.client("users:read", mode="signed")

    assert [one.get("/v1/me").status_code for one in (ends, lasts)] == [200, 200]
    latchkey.clock.move(HOUR)
    assert code_of(ends.get("/v1/me")) == (401, "key_expired")
    assert lasts.get("/v1/me").status_code == 200
    with pytest.raises(ValueError, match="only moves forward"):
        latchkey.clock.move(-HOUR)


def test_a_signature_is_too_old_when_the_clock_is_moved(latchkey: RunningApp) -> None:
    client = latchkey.client("users:read", mode="signed")
    anybody = latchkey.client_without_key()
    signed = [
        sign_call("GET", "http://testserver/v1/me", access_key=client.access_key, secret=client.secret)
        for _ in range(2)
    ]

    first = anybody.get(signed[0].url, headers=signed[0].headers)
    latchkey.clock.move(timedelta(minutes=2))
    late = anybody.get(signed[1].url, headers=signed[1].headers)

    assert first.status_code == 200
    assert code_of(late) == (401, "unauthenticated")


def test_a_secret_that_was_replaced_ends_after_its_grace(latchkey: RunningApp) -> None:
    latchkey.clock.move(24 * HOUR)  # the grace begins at the moved time
    old = latchkey.client("users:read")
    rotated = latchkey.call(lambda: rotate_key(old.access_key, grace=HOUR))

    assert old.get("/v1/me").status_code == 200
    latchkey.clock.move(HOUR)
    assert code_of(old.get("/v1/me")) == (401, "unauthenticated")
    assert latchkey.client_with(rotated.secret).get("/v1/me").status_code == 200


def test_a_limit_and_a_quota_have_room_again_when_their_time_has_passed(latchkey: RunningApp) -> None:
    limited = latchkey.client("users:read", limits=[RateLimit(name="h", limit=1, window_s=3600)])
    counted = latchkey.client("users:read", quota=Quota(limit=1, per="day"))

    for client, wait in ((limited, HOUR), (counted, 24 * HOUR)):
        assert client.get("/v1/me").status_code == 200
        assert client.get("/v1/me").status_code == 429
        latchkey.clock.move(wait)
        assert client.get("/v1/me").status_code == 200


def test_an_idempotency_key_is_forgotten_after_a_day(latchkey: RunningApp) -> None:
    client = latchkey.client("users:write", mode="signed")

    first = client.post("/v1/users", json=USER, headers={"idempotency-key": "1"})
    latchkey.clock.move(24 * HOUR)
    late = client.post("/v1/users", json=USER, headers={"idempotency-key": "1"})

    assert first.status_code == 201
    assert code_of(late) == (409, "email_taken")


def test_the_database_has_the_time_of_the_clock(latchkey: RunningApp) -> None:
    anybody = latchkey.client_without_key()

    for _ in range(2):
        latchkey.clock.move(100 * HOUR)
        for time in anybody.get("/v1/times").json().values():
            read = datetime.fromisoformat(time).replace(tzinfo=latchkey.clock.now().tzinfo)
            assert abs(read - latchkey.clock.now()) < HOUR / 60
    latchkey.clock.reset()
    read = datetime.fromisoformat(anybody.get("/v1/times").json()["of_latchkey"])
    assert abs(read - latchkey.clock.now()) < HOUR / 60


def test_round_trips_are_counted_alike_on_all_databases(latchkey: RunningApp) -> None:
    client = latchkey.client("users:write")
    latchkey.clock.move(HOUR)  # what moves the time of a server is not counted

    with latchkey.assert_round_trips(1):
        client.get("/v1/me")
    with latchkey.assert_round_trips(0):
        client.get("/healthz")
    with latchkey.assert_round_trips(4, mysql=5):
        client.post("/v1/users", json=USER)
    with (
        pytest.raises(AssertionError, match=r"1 round trips, not 2:\n +SELECT"),
        latchkey.assert_round_trips(2),
    ):
        client.get("/v1/me")


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_begins_with_an_empty_database_at_the_right_time(latchkey: RunningApp, turn: int) -> None:
    assert latchkey.call(User.filter().count) == 0
    assert latchkey.clock.ahead_s == 0
    wrong = [latchkey.client_with("nonsense").get("/v1/me").status_code for _ in range(2)]
    assert wrong == [401, 401], "failures of another test are counted"

    latchkey.client("users:read", email="ann@example.com").get("/v1/me")
    latchkey.clock.move(HOUR)
