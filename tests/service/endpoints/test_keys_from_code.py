"""Keys from Python: in a call by the rules of the endpoints, in a script without bounds."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey import (
    ApiKey,
    Problem,
    Quota,
    RateLimit,
    User,
    issue_key,
    open_session,
    revoke_key,
    rotate_key,
    route,
)
from latchkey.models.errors import LostWriteError
from latchkey.service.app import create_app
from latchkey.service.database import SQLAlchemy
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key, key_row, stored
from tests.conftest import opened

SOON = datetime.now(UTC) + timedelta(hours=1)
LATER = SOON + timedelta(hours=1)
LIMIT = RateLimit(name="burst", limit=10, window_s=60)


class Wish(msgspec.Struct):
    """The arguments that the endpoints below pass on; the tests set them without the body."""

    what: str
    target: Any = None
    options: dict[str, Any] = {}


class Made(msgspec.Struct):
    access_key: str
    secret: str | None = None
    ends_at: datetime | None = None


class SignUp(msgspec.Struct):
    email: str
    fails: bool = False


WISHES: list[Wish] = []


async def fulfil() -> Made:
    return await do(WISHES[-1])


async def do(wish: Wish) -> Made:
    if wish.what == "issue":
        options = {"name": "made", "scopes": ["items:read"]} | wish.options
        issued = await issue_key(wish.target, **options)
    elif wish.what == "rotate":
        issued = await rotate_key(wish.target, **wish.options)
    else:
        return Made(access_key=(await revoke_key(wish.target, **wish.options)).access_key)
    return Made(access_key=issued.key.access_key, secret=issued.secret, ends_at=issued.old_secret_expires_at)


async def sign_up(body: SignUp) -> Made:
    user = await User.create(email=body.email, name="New")
    issued = await issue_key(user, name="first", scopes=["items:read", "me.keys:write"])
    if body.fails:
        raise Problem("conflict")
    return Made(access_key=issued.key.access_key, secret=issued.secret)


async def revoke_and_issue(request: Request) -> Made:
    await revoke_key(request.user.key.access_key)
    return await do(Wish("issue", request.user.user.id))


ROUTES = [
    route("POST", "/wish", fulfil, scope="items:write"),
    route("POST", "/v1/items", fulfil, scope="items:read"),
    route("POST", "/sign-up", sign_up, public=True),
    route("POST", "/revoke-and-issue", revoke_and_issue, scope="items:write"),
]


@pytest.fixture
async def app(settings: Settings, loggers: None) -> AsyncIterator[Starlette]:
    async with opened(lambda: create_app(settings, routes=ROUTES), settings) as app:
        yield app


async def wish(app: Starlette, key: HeldKey, what: str, target: Any = None, **options: Any) -> Any:
    WISHES.append(Wish(what, key.user_id if target is None else target, options))
    return await call(app, "POST", "/wish", key=key)


async def partner(app: Starlette, **options: Any) -> HeldKey:
    return await hold_key(app, **{"scopes": ["items:read", "items:write"], **options})


async def operator(app: Starlette) -> HeldKey:
    return await hold_key(app, scopes=["items:read", "items:write", "keys:write"], email="ops@example.com")


class TestWithoutACaller:
    async def test_a_public_endpoint_gives_a_new_user_a_key_that_works(self, app: Starlette) -> None:
        made = (await call(app, "POST", "/sign-up", body={"email": "ann@example.com"})).json

        bearer = ("authorization", f"Bearer {made['secret']}")
        me = await call(app, "GET", "/v1/me", headers=[bearer])

        assert me.json["user"]["email"] == "ann@example.com"
        assert me.json["key"]["scopes"] == ["items:read", "me.keys:write"]

    async def test_one_whose_endpoint_fails_is_not_there(self, app: Starlette) -> None:
        before = await stored(app.state.db.engine)

        failed = await call(app, "POST", "/sign-up", body={"email": "ann@example.com", "fails": True})

        assert_problem(failed, 409, "conflict")
        assert await stored(app.state.db.engine) == before

    async def test_a_script_makes_rotates_and_revokes(
        self, settings: Settings, app: Starlette, loggers: None
    ) -> None:
        await SQLAlchemy().close()
        async with open_session(create_app(settings, routes=ROUTES)) as session:
            user = await User.create(email="ann@example.com", name="Ann")
            first = await issue_key(user, name="first", scopes=["items:read"], mode="signed")
            second = await issue_key(user.id, name="second", scopes=[])
            rotated = await rotate_key(first.key, grace=timedelta(days=1), version=1)
            revoked = await revoke_key(second.key.access_key)
            await session.commit()

        assert first.secret not in repr(first)
        assert rotated.secret != first.secret
        assert rotated.key is first.key
        assert rotated.key.secret_version == 2
        assert rotated.old_secret_expires_at is not None
        assert timedelta(hours=23) < rotated.old_secret_expires_at - datetime.now(UTC) <= timedelta(days=1)
        assert revoked.status == "revoked"
        assert not SQLAlchemy().is_open

    async def test_outside_of_a_session_nothing_is_made_in_silence(self, app: Starlette) -> None:
        key = await partner(app)

        with pytest.raises(LostWriteError):
            await issue_key(key.user_id, name="n", scopes=[])
        with pytest.raises(LostWriteError):
            await revoke_key(key.access_key)

    async def test_without_an_application_it_says_what_to_do(self, db: SQLAlchemy) -> None:
        async with db.scoped_session():
            with pytest.raises(RuntimeError, match=r"open_session\(create_app\(\)\)"):
                await issue_key(1, name="n", scopes=[])


class TestByTheRulesOfAnyKey:
    async def test_it_gives_its_owner_a_key_of_its_scopes_limits_and_quota(self, app: Starlette) -> None:
        quota = Quota(limit=5, per="day")
        key = await partner(app, limits=[LIMIT], quota=quota, expires_at=LATER)

        made = await wish(app, key, "issue", expires_at=SOON)

        row = await key_row(made.json["access_key"])
        assert (row.user_id, row.scopes, row.limits, row.quota) == (
            key.user_id,
            ("items:read",),
            (LIMIT,),
            quota,
        )
        assert row.expires_at == SOON

    @pytest.mark.parametrize(
        ("held", "options", "code"),
        [
            pytest.param({}, {"scopes": ["items:read", "users:read"]}, "scope_not_held", id="scope"),
            pytest.param({"expires_at": SOON}, {}, "key_wider", id="end"),
            pytest.param({"expires_at": SOON}, {"expires_at": LATER}, "key_wider", id="later"),
            pytest.param({"allowed_networks": ["127.0.0.0/8"]}, {}, "key_wider", id="networks"),
            pytest.param({"limits": [LIMIT]}, {"limits": []}, "key_wider", id="limits"),
            pytest.param(
                {"quota": Quota(limit=5, per="day")},
                {"quota": Quota(limit=6, per="day")},
                "key_wider",
                id="quota",
            ),
        ],
    )
    async def test_it_makes_none_that_is_wider_but_the_code_may(
        self, app: Starlette, held: dict[str, Any], options: dict[str, Any], code: str
    ) -> None:
        key = await partner(app, **held)
        before = len(await ApiKey.filter().all())

        refused = await wish(app, key, "issue", **options)
        allowed = await wish(app, key, "issue", **options, as_operator=True)

        assert_problem(refused, 403, code)
        assert allowed.status == 200
        assert len(await ApiKey.filter().all()) == before + 1

    async def test_it_acts_on_the_keys_of_its_owner_alone(self, app: Starlette) -> None:
        key = await partner(app)
        other = await hold_key(app, email="other@example.com", scopes=[])

        assert_problem(await wish(app, key, "issue", other.user_id), 403, "scope_not_held")
        assert_problem(await wish(app, key, "rotate", other.access_key), 404, "not_found")
        assert_problem(await wish(app, key, "revoke", other.access_key), 404, "not_found")
        assert (await key_row(other.access_key)).status == "active"

    async def test_it_rotates_none_that_is_wider(self, app: Starlette) -> None:
        key = await partner(app)
        more = await hold_key(app, scopes=["users:read"])
        narrow = await partner(app, expires_at=SOON)

        assert_problem(await wish(app, key, "rotate", more.access_key), 403, "scope_not_held")
        assert_problem(await wish(app, narrow, "rotate", key.access_key), 403, "key_wider")

    async def test_one_that_is_revoked_meanwhile_makes_nothing(self, app: Starlette) -> None:
        key = await partner(app)

        refused = await call(app, "POST", "/revoke-and-issue", key=key)

        assert_problem(refused, 401, "key_revoked")
        assert len(await ApiKey.filter().all()) == 1


class TestByTheRulesOfAnOperator:
    async def test_it_gives_any_owner_a_key_but_no_scope_that_it_lacks(self, app: Starlette) -> None:
        ops = await operator(app)
        other = await hold_key(app, email="other@example.com", scopes=[])

        made = await wish(app, ops, "issue", other.user_id)
        refused = await wish(app, ops, "issue", other.user_id, scopes=["users:read"])

        assert (made.status, (await key_row(made.json["access_key"])).user_id) == (200, other.user_id)
        assert_problem(refused, 403, "scope_not_held")

    async def test_it_rotates_and_revokes_any_key(self, app: Starlette) -> None:
        ops = await operator(app)
        other = await hold_key(app, email="other@example.com", scopes=["items:read"], expires_at=SOON)

        rotated = await wish(app, ops, "rotate", other.access_key, grace=timedelta(days=9))
        again = await wish(app, ops, "rotate", other.access_key, version=1)
        revoked = await wish(app, ops, "revoke", other.access_key)
        ended = await wish(app, ops, "rotate", other.access_key)

        assert datetime.fromisoformat(rotated.json["ends_at"]) == SOON
        assert_problem(again, 409, "version_changed")
        assert revoked.status == 200
        assert_problem(ended, 409, "key_not_active")


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"scopes": ["items:fly"]}, "/scopes/0"),
        ({"scopes": ["items:read", "items:read"]}, "/scopes/1"),
        ({"name": ""}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"mode": "basic"}, "/mode"),
        ({"expires_at": datetime(2100, 1, 1)}, "/expires_at"),  # noqa: DTZ001 - which is the point
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "/expires_at"),
        ({"allowed_networks": ["10.0.0.1/8"]}, "/allowed_networks/0"),
        ({"limits": [RateLimit(name="a", limit=0, window_s=1)]}, "/limits"),
        ({"limits": [LIMIT, LIMIT]}, "/limits/1/name"),
        ({"quota": Quota(limit=0, per="day")}, "/quota"),
    ],
)
async def test_values_that_no_key_can_have_are_refused_as_in_a_body(
    app: Starlette, options: dict[str, Any], pointer: str
) -> None:
    ops = await operator(app)

    refused = await wish(app, ops, "issue", **options)

    assert_problem(refused, 422, "invalid_body")
    assert [one["pointer"] for one in refused.json["errors"]] == [pointer]


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(days=31)])
async def test_a_grace_is_bounded(app: Starlette, grace: timedelta) -> None:
    ops = await operator(app)

    assert_problem(await wish(app, ops, "rotate", ops.access_key, grace=grace), 422, "invalid_body")


async def test_an_owner_that_is_unknown_or_not_active_gets_none(app: Starlette) -> None:
    ops = await operator(app)
    other = await hold_key(app, email="other@example.com", scopes=[])
    async with app.state.db.scoped_session() as session:
        await (await User.filter(id=other.user_id).one()).update(status="blocked")
        await session.commit()

    assert_problem(await wish(app, ops, "issue", other.user_id), 409, "user_not_active")
    assert_problem(await wish(app, ops, "issue", 77), 422, "invalid_body")
