"""Environments of keys: shown in the secret and in every answer, and never crossed by a key."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from starlette.applications import Starlette

from latchkey.service.authentication.wire.advice import contains_secret
from latchkey.service.authentication.wire.credentials import new_secret, parse_secret
from latchkey.service.commands import LIKE_A_SECRET
from latchkey.service.explanation.checks import hide_secrets
from latchkey.service.explanation.shapes import SignedText
from latchkey.service.settings import Settings, SettingsError, read_environments
from tests.api import HeldKey, assert_problem, call, hold_key, key_row

KEY = {"name": "n", "mode": "bearer", "scopes": []}
ALL = ["me.keys:write", "me.keys:read", "keys:write", "keys:read", "keys:verify"]


async def make(app: Starlette, caller: HeldKey, path: str = "/v1/me/keys", **fields: Any) -> Any:
    owner = {"user_id": caller.user_id} if path == "/v1/keys" else {}
    return await call(app, "POST", path, key=caller, body={**KEY, **owner, **fields})


@pytest.fixture
async def tester(app: Starlette) -> HeldKey:
    """Return a key of the second environment."""
    return await hold_key(app, scopes=ALL, environment="test")


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_the_secret_and_every_answer_show_it(app: Starlette, mode: str) -> None:
    key = await hold_key(app, scopes=ALL, environment="test", mode=mode)
    live = await hold_key(app, scopes=ALL, mode=mode)
    path = f"/v1/me/keys/{key.access_key}"

    answers = [
        (await call(app, "GET", "/v1/me", key=key)).json["key"],
        (await call(app, "GET", path, key=key)).json,
        (await call(app, "PATCH", path, key=key, body={"name": "x"})).json,
        (await call(app, "GET", "/v1/me/keys", key=key)).json["data"][0],
        (await call(app, "POST", f"{path}/rotate", key=key, body={"grace_s": 60})).json,
    ]

    assert [one["environment"] for one in answers] == ["test"] * 5
    assert key.secret.startswith("lks_test_")
    assert answers[-1]["secret"].startswith("lks_test_")
    assert live.secret.startswith("lks_")
    assert live.secret.count("_") == 1
    assert (await call(app, "GET", "/v1/me", key=live)).json["key"]["environment"] == "live"


async def test_a_verification_shows_it(app: Starlette, operator: HeldKey, tester: HeldKey) -> None:
    answers = [
        await call(app, "POST", "/v1/keys/verify", key=operator, body={"credential": secret})
        for secret in (tester.secret, operator.secret, new_secret("lk", environment="test"))
    ]

    assert [one.json["environment"] for one in answers] == ["test", "live", None]


async def test_a_key_creates_keys_of_its_own_environment(
    app: Starlette, operator: HeldKey, tester: HeldKey
) -> None:
    made = [
        await make(app, tester),
        await make(app, tester, environment="test"),
        await make(app, tester, "/v1/keys"),
        await make(app, operator),
        await make(app, operator, "/v1/keys", environment="live"),
    ]
    refused = [
        await make(app, tester, environment="live"),
        await make(app, tester, "/v1/keys", environment="live"),
        await make(app, operator, environment="test"),
        await make(app, operator, "/v1/keys", environment="test"),
    ]
    unknown = await make(app, operator, environment="staging")

    assert [one.json["environment"] for one in made] == ["test"] * 3 + ["live"] * 2
    assert [one.json["secret"].startswith("lks_test_") for one in made] == [True] * 3 + [False] * 2
    for answer in refused:
        assert_problem(answer, 403, "other_environment")
    assert_problem(unknown, 422, "invalid_body")
    assert unknown.json["errors"][0]["pointer"] == "/environment"


async def test_a_key_changes_and_rotates_none_of_another(
    app: Starlette, operator: HeldKey, tester: HeldKey
) -> None:
    """A rotation shows the secret."""
    for path in (f"/v1/keys/{operator.access_key}", f"/v1/me/keys/{operator.access_key}"):
        rotated = await call(app, "POST", f"{path}/rotate", key=tester, body={"grace_s": 0})
        changed = await call(app, "PATCH", path, key=tester, body={"name": "x"})

        assert_problem(rotated, 403, "other_environment")
        assert_problem(changed, 403, "other_environment")


async def test_it_cannot_be_changed(app: Starlette, operator: HeldKey) -> None:
    answer = await call(
        app, "PATCH", f"/v1/keys/{operator.access_key}", key=operator, body={"environment": "test"}
    )

    assert_problem(answer, 422, "invalid_body")


class TestOwnNames:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, environments="production, staging")

    async def test_an_older_key_is_in_the_first(self, app: Starlette) -> None:
        key = await hold_key(app, scopes=ALL)
        async with app.state.db.engine.begin() as connection:
            await connection.execute(text("UPDATE api_keys SET environment = NULL"))

        me = await call(app, "GET", "/v1/me", key=key)
        made = await make(app, key)
        other = await make(app, key, environment="staging")

        found = [
            (await call(app, "GET", f"{path}?environment={name}", key=key)).json["data"]
            for path in ("/v1/me/keys", "/v1/keys")
            for name in ("production", "staging", "live")
        ]

        assert [[one["access_key"] for one in data] for data in found] == [
            [key.access_key, made.json["access_key"]], [], [],
        ] * 2  # fmt: skip
        assert (await key_row(key.access_key)).environment is None
        assert me.json["key"]["environment"] == made.json["environment"] == "production"
        assert_problem(other, 403, "other_environment")


SECRET = new_secret("lk", environment="test")


def test_a_secret_with_an_environment_is_parsed_whole() -> None:
    assert parse_secret(SECRET, "lk") == SECRET
    for wrong in (
        SECRET.replace("test", "live"),
        SECRET.replace("_test_", "_Test_"),
        SECRET.replace("_test_", "_"),
        SECRET.replace("_test_", "__"),
        SECRET.replace("_test_", "_te_st_"),
        SECRET.replace("_test_", "_test_test_"),
        SECRET.replace("lks_", "xks_"),
        SECRET[:-1],
        f"{SECRET}\n",
    ):
        assert parse_secret(wrong, "lk") is None


def test_what_hides_secrets_knows_those_with_an_environment() -> None:
    for written in (SECRET, SECRET.replace("_", "%5F")):
        [hidden] = hide_secrets((SignedText(what="query_as_received", lines=(f"key={written}&a=1",)),), "lk")

        assert hidden.lines == ("key=lks_…&a=1",)
        assert contains_secret(written)
    assert LIKE_A_SECRET.fullmatch(SECRET)


@pytest.mark.parametrize(
    "names, expected",
    [("live,test", ("live", "test")), ("a", ("a",)), (" one , two ", ("one", "two"))],
)
def test_the_setting_lists_them(names: str, expected: tuple[str, ...]) -> None:
    assert read_environments(names) == expected


@pytest.mark.parametrize(
    "names", ["", "live,", "Live", "a_b", "1a", "a" * 17, "a,a", ",".join("abcdefghijk")]
)
def test_a_wrong_list_is_refused(names: str) -> None:
    with pytest.raises(SettingsError, match="LATCHKEY_ENVIRONMENTS"):
        read_environments(names)
