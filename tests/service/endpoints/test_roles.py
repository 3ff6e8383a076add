"""`/v1/roles`: names for several scopes, which keys have like the scopes themselves."""

import asyncio
import itertools
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models import Role
from latchkey.service.keys import roles as rules
from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key, key_row
from tests.conftest import on_mariadb

READER = {"name": "reader", "scopes": ["users:read", "keys:read"], "description": "Read everything."}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Let five calls at once wait for a connection, on a slow machine as well."""
    return msgspec.structs.replace(settings, pool_timeout_s=10.0)


@pytest.fixture
async def reader(app: Starlette, operator: HeldKey) -> dict[str, Any]:
    """Return the answer to creating a role."""
    return (await call(app, "POST", "/v1/roles", key=operator, body=READER)).json


async def hold_role(app: Starlette, operator: HeldKey, *roles: str, scopes: tuple[str, ...] = ()) -> HeldKey:
    """Create a key with roles over HTTP."""
    body = {"user_id": operator.user_id, "name": "n", "mode": "bearer", "scopes": scopes, "roles": roles}
    made = (await call(app, "POST", "/v1/keys", key=operator, body=body)).json
    return HeldKey(
        id=(await key_row(made["access_key"])).id,
        user_id=operator.user_id,
        access_key=made["access_key"],
        secret=made["secret"],
        mode="bearer",
    )


async def test_a_role_is_created_read_changed_and_removed(app: Starlette, operator: HeldKey) -> None:
    made = await call(app, "POST", "/v1/roles", key=operator, body=READER)
    read = await call(app, "GET", "/v1/roles/reader", key=operator)
    listed = await call(app, "GET", "/v1/roles", key=operator)
    changed = await call(app, "PATCH", "/v1/roles/reader", key=operator, body={"description": "Look."})
    removed = await call(app, "DELETE", "/v1/roles/reader", key=operator)
    gone = await call(app, "GET", "/v1/roles/reader", key=operator)

    assert (made.status, made.headers["location"]) == (201, "/v1/roles/reader")
    assert {name: made.json[name] for name in READER} == READER
    assert read.json == made.json
    assert listed.json == {"data": [made.json], "next_cursor": None}
    assert (changed.json["scopes"], changed.json["description"]) == (READER["scopes"], "Look.")
    assert removed.status == 204
    assert_problem(gone, 404, "not_found")


@pytest.mark.parametrize(
    "body, status, code",
    [
        pytest.param(READER, 409, "role_taken", id="a name that is taken"),
        pytest.param({**READER, "name": "Reader"}, 422, "invalid_body", id="a capital"),
        pytest.param({**READER, "name": "a:b"}, 422, "invalid_body", id="a colon"),
        pytest.param({**READER, "name": "a b"}, 422, "invalid_body", id="a space"),
        pytest.param({**READER, "name": "r" * 41}, 422, "invalid_body", id="a long name"),
        pytest.param({"name": "x", "scopes": ["nothing:read"]}, 422, "invalid_body", id="no such scope"),
        pytest.param({"name": "x", "scopes": ["users:r*"]}, 422, "invalid_body", id="a part of a verb"),
        pytest.param({"name": "x", "scopes": ["*"]}, 422, "invalid_body", id="everything"),
        pytest.param({"name": "x", "scopes": ["users:read"] * 2}, 422, "invalid_body", id="a scope twice"),
        pytest.param(
            {"name": "x", "scopes": ["users:*"]}, 403, "scope_not_held", id="more than the caller holds"
        ),
    ],
)
async def test_a_role_that_cannot_be_is_refused(
    app: Starlette, operator: HeldKey, reader: dict[str, Any], body: Any, status: int, code: str
) -> None:
    assert_problem(await call(app, "POST", "/v1/roles", key=operator, body=body), status, code)


async def test_a_key_has_the_scopes_of_its_roles(
    app: Starlette, operator: HeldKey, reader: dict[str, Any]
) -> None:
    key = await hold_role(app, operator, "reader", scopes=("scopes:read",))

    me = await call(app, "GET", "/v1/me", key=key)
    users = await call(app, "GET", "/v1/users", key=key)
    roles = await call(app, "GET", "/v1/roles", key=key)
    verified = await call(
        app, "POST", "/v1/keys/verify", key=operator, body={"credential": key.secret, "scopes": ["keys:read"]}
    )

    assert me.json["key"]["scopes"] == ["scopes:read"]
    assert (me.json["key"]["roles"], me.json["key"]["role_scopes"]) == (["reader"], READER["scopes"])
    assert users.status == 200
    assert_problem(roles, 403, "scope_missing")
    assert verified.json["valid"]
    assert (verified.json["scopes"], verified.json["roles"]) == (
        ["scopes:read", *READER["scopes"]],
        ["reader"],
    )


async def test_all_keys_of_a_role_follow_its_change(
    app: Starlette, operator: HeldKey, reader: dict[str, Any]
) -> None:
    await call(
        app,
        "POST",
        "/v1/roles",
        key=operator,
        body={"name": "lister", "scopes": ["scopes:read", "users:read"]},
    )
    one = await hold_role(app, operator, "reader")
    both = await hold_role(app, operator, "lister", "reader")
    other = await hold_role(app, operator, "lister")

    await call(app, "PATCH", "/v1/roles/reader", key=operator, body={"scopes": ["roles:read"]})

    assert (await key_row(one.access_key)).role_scopes == ("roles:read",)
    assert (await key_row(both.access_key)).role_scopes == ("scopes:read", "users:read", "roles:read")
    assert (await key_row(other.access_key)).role_scopes == ("scopes:read", "users:read")
    assert_problem(await call(app, "GET", "/v1/users", key=one), 403, "scope_missing")
    assert (await call(app, "GET", "/v1/roles", key=one)).status == 200


async def test_a_key_that_is_created_while_its_role_changes_gets_the_new_scopes(
    app: Starlette, operator: HeldKey, reader: dict[str, Any]
) -> None:
    async with asyncio.TaskGroup() as group:
        keys = [group.create_task(hold_role(app, operator, "reader")) for _ in range(4)]
        change = {"scopes": ["roles:read"]}
        changed = group.create_task(call(app, "PATCH", "/v1/roles/reader", key=operator, body=change))

    assert changed.result().status == 200
    assert {(await key_row(one.result().access_key)).role_scopes for one in keys} == {("roles:read",)}


async def test_a_role_in_use_is_not_removed_and_its_holders_are_named(
    app: Starlette, operator: HeldKey, reader: dict[str, Any]
) -> None:
    key = await hold_role(app, operator, "reader")
    other = await hold_role(app, operator)

    refused = await call(app, "DELETE", "/v1/roles/reader", key=operator)
    await call(app, "PATCH", f"/v1/keys/{key.access_key}", key=operator, body={"roles": []})
    removed = await call(app, "DELETE", "/v1/roles/reader", key=operator)

    assert_problem(refused, 409, "role_in_use")
    assert key.access_key in refused.json["detail"]
    assert other.access_key not in refused.json["detail"]
    assert removed.status == 204


async def test_a_scope_that_a_role_has_is_not_removed(app: Starlette) -> None:
    operator = await hold_key(app, scopes=[*sorted(app.state.latchkey.key_rules.scopes), "orders:read"])
    await call(app, "POST", "/v1/scopes", key=operator, body={"name": "orders:read"})
    await call(app, "PATCH", f"/v1/keys/{operator.access_key}", key=operator, body={"name": "n"})
    await call(app, "POST", "/v1/roles", key=operator, body={"name": "clerk", "scopes": ["orders:read"]})
    async with app.state.db.scoped_session() as session:
        await (await key_row(operator.access_key)).update(scopes=("scopes:write",))
        await session.commit()

    refused = await call(app, "DELETE", "/v1/scopes/orders:read", key=operator)

    assert_problem(refused, 409, "scope_in_use")
    assert refused.json["detail"] == "These roles have the scope orders:read: clerk."


@pytest.mark.parametrize("roles, pointer", [(["nobody"], "/roles/0"), (["reader", "reader"], "/roles/1")])
async def test_a_key_cannot_have_another_role(
    app: Starlette, operator: HeldKey, reader: dict[str, Any], roles: list[str], pointer: str
) -> None:
    body = {"user_id": operator.user_id, "name": "n", "mode": "bearer", "scopes": [], "roles": roles}
    answers = [
        await call(app, "POST", "/v1/keys", key=operator, body=body),
        await call(app, "PATCH", f"/v1/keys/{operator.access_key}", key=operator, body={"roles": roles}),
    ]

    for answer in answers:
        assert_problem(answer, 422, "invalid_body")
        assert answer.json["errors"][0]["pointer"] == pointer


async def test_nobody_gives_more_than_its_own(
    app: Starlette, operator: HeldKey, reader: dict[str, Any]
) -> None:
    """By giving a role, by widening one, or by the secret of a key with one."""
    mine = ["me.keys:write", "keys:write", "roles:write", "users:read"]
    caller = await hold_key(app, scopes=mine)
    holder = await hold_role(app, operator, "reader")
    await call(app, "POST", "/v1/roles", key=operator, body={"name": "small", "scopes": ["users:read"]})
    key = {"name": "n", "mode": "bearer", "scopes": []}

    refused = [
        await call(
            app, "POST", "/v1/keys", key=caller, body={**key, "user_id": caller.user_id, "roles": ["reader"]}
        ),
        await call(app, "POST", "/v1/me/keys", key=caller, body={**key, "roles": ["reader"]}),
        await call(app, "PATCH", f"/v1/me/keys/{caller.access_key}", key=caller, body={"roles": ["reader"]}),
        await call(app, "PATCH", f"/v1/keys/{holder.access_key}", key=caller, body={"name": "x"}),
        await call(app, "POST", f"/v1/me/keys/{holder.access_key}/rotate", key=caller, body={"grace_s": 0}),
        await call(app, "PATCH", "/v1/roles/small", key=caller, body={"scopes": ["users:read", "keys:read"]}),
        await call(app, "PATCH", "/v1/roles/reader", key=caller, body={"scopes": []}),
        await call(app, "DELETE", "/v1/roles/reader", key=caller),
    ]
    given = await call(app, "POST", "/v1/me/keys", key=caller, body={**key, "roles": ["small"]})

    for answer in refused:
        assert_problem(answer, 403, "scope_not_held")
    assert (given.status, given.json["role_scopes"]) == (201, ["users:read"])


async def test_a_key_with_a_role_gives_what_the_role_has(
    app: Starlette, operator: HeldKey, reader: dict[str, Any]
) -> None:
    key = await hold_role(app, operator, "reader", scopes=("me.keys:write",))

    made = await call(
        app, "POST", "/v1/me/keys", key=key, body={"name": "n", "mode": "bearer", "scopes": ["users:read"]}
    )

    assert made.status == 201


@on_mariadb
async def test_a_read_with_a_role_costs_one_round_trip(
    app: Starlette, operator: HeldKey, reader: dict[str, Any]
) -> None:
    key = await hold_role(app, operator, "reader")
    await call(app, "GET", "/v1/me", key=key)

    with wire.listening() as commands:
        await call(app, "GET", "/v1/me", key=key)

    assert len(commands) == 1, commands


class TestWithTheKeyCache:
    """A change of a role takes effect at once."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, key_cache_ttl_s=60)

    async def test_a_cached_key_follows_its_role(
        self, app: Starlette, operator: HeldKey, reader: dict[str, Any]
    ) -> None:
        key = await hold_role(app, operator, "reader")
        before = await call(app, "GET", "/v1/users", key=key)

        await call(app, "PATCH", "/v1/roles/reader", key=operator, body={"scopes": []})

        assert before.status == 200
        assert_problem(await call(app, "GET", "/v1/users", key=key), 403, "scope_missing")


@on_mariadb
async def test_two_roles_of_a_key_that_change_at_once_both_take_effect(
    app: Starlette, operator: HeldKey, reader: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change must see the other one, or the key would keep scopes that a role has lost."""
    writer = {"name": "writer", "scopes": ["users:write", "keys:write"]}
    await call(app, "POST", "/v1/roles", key=operator, body=writer)
    key = await hold_role(app, operator, "reader", "writer")
    follow, arrived, both = rules.follow, itertools.count(1), asyncio.Event()

    async def follow_together(role: Role) -> None:
        if next(arrived) >= 2:  # also in the second run of a unit that has lost a conflict
            both.set()
        await both.wait()
        await follow(role)

    monkeypatch.setattr(rules, "follow", follow_together)
    other = await hold_key(app, email="other@example.com", scopes=[*writer["scopes"], "roles:write"])
    changes = ((operator, "reader", "users:read"), (other, "writer", "users:write"))
    async with asyncio.timeout(20):
        answers = await asyncio.gather(
            *(
                asyncio.create_task(
                    call(app, "PATCH", f"/v1/roles/{name}", key=caller, body={"scopes": [scope]})
                )
                for caller, name, scope in changes
            )
        )

    assert [answer.status for answer in answers] == [200, 200]
    assert (await key_row(key.access_key)).role_scopes == ("users:read", "users:write")


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/me/keys"])
async def test_keys_are_listed_by_a_role(app: Starlette, operator: HeldKey, path: str) -> None:
    """A name that contains another one, or a wildcard of LIKE, is not that role."""
    for name in ("read", "reader", "re_d"):
        await call(app, "POST", "/v1/roles", key=operator, body={"name": name, "scopes": ["users:read"]})
    made = {
        names: (
            await call(
                app, "POST", "/v1/me/keys", key=operator,
                body={"name": "n", "mode": "bearer", "scopes": [], "roles": names.split()},
            )
        ).json["access_key"]
        for names in ("read", "reader read", "reader", "re_d", "")
    }  # fmt: skip

    async def listed(role: str) -> list[str]:
        shown: list[str] = []
        target: str | None = f"{path}?limit=1&role={role}"
        while target is not None:
            answer = await call(app, "GET", target, key=operator)
            shown += [
                names
                for one in answer.json["data"]
                for names, key in made.items()
                if key == one["access_key"]
            ]
            target = answer.headers["link"][1:].partition(">")[0] if answer.json["next_cursor"] else None
        return shown

    assert await listed("read") == ["read", "reader read"]
    assert await listed("reader") == ["reader read", "reader"]
    assert await listed("re_d") == ["re_d"]
    assert await listed("nobody") == []
    assert_problem(await call(app, "GET", f"{path}?role=Read", key=operator), 400, "invalid_parameter")
