"""`allowed_networks` of a key: its values, its form in answers, and its inheritance by other keys."""

from typing import Any

import pytest
from starlette.applications import Starlette

from tests.api import HeldKey, assert_problem, call, hold_key, key_row, stored
from tests.requests import Answer

NETWORKS = ["10.0.0.0/8", "2001:db8::/32"]
NIGHTLY = {"name": "nightly import", "mode": "bearer", "scopes": []}
HERE = "127.0.0.1"


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    """A key of another owner."""
    return await hold_key(app, email="partner@example.com", scopes=[], allowed_networks=["192.0.2.0/24"])


async def write(app: Starlette, operator: HeldKey, partner: HeldKey, method: str, networks: Any) -> Answer:
    if method == "POST":
        body = {"user_id": operator.user_id, **NIGHTLY, "allowed_networks": networks}
        return await call(app, "POST", "/v1/keys", key=operator, body=body)
    path = f"/v1/keys/{partner.access_key}"
    return await call(app, "PATCH", path, key=operator, body={"allowed_networks": networks})


@pytest.mark.parametrize(
    "given, shown",
    [
        pytest.param([], [], id="anywhere"),
        pytest.param(NETWORKS, NETWORKS, id="both kinds"),
        pytest.param(["10.1.2.3", "::1"], ["10.1.2.3/32", "::1/128"], id="bare addresses"),
        pytest.param(["2001:DB8:0:0::/33"], ["2001:db8::/33"], id="another spelling"),
        pytest.param([f"10.0.{n}.0/24" for n in range(100)], None, id="a hundred"),
        pytest.param(["0000:0000:0000:0000:0000:0000:255.255.255.255/128"], ["::ffff:ffff/128"], id="the longest"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_networks_are_stored_and_shown_in_their_canonical_form(
    app: Starlette,
    operator: HeldKey,
    partner: HeldKey,
    method: str,
    given: list[Any],
    shown: list[Any] | None,
) -> None:
    answer = await write(app, operator, partner, method, given)
    access_key = answer.json["access_key"]
    read = await call(app, "GET", f"/v1/keys/{access_key}", key=operator)

    assert answer.status in {200, 201}
    assert (
        answer.json["allowed_networks"]
        == read.json["allowed_networks"]
        == (given if shown is None else shown)
    )
    assert list((await key_row(access_key)).allowed_networks) == read.json["allowed_networks"]


async def test_without_networks_a_key_is_for_anywhere_and_a_change_leaves_them(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    body = {"user_id": operator.user_id, **NIGHTLY}
    made = await call(app, "POST", "/v1/keys", key=operator, body=body)
    path = f"/v1/keys/{partner.access_key}"
    renamed = await call(app, "PATCH", path, key=operator, body={"name": "renamed"})

    assert made.json["allowed_networks"] == []
    assert renamed.json["allowed_networks"] == ["192.0.2.0/24"]


async def test_the_same_networks_are_no_change(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    before = await stored(app.state.db.reader)

    answer = await write(app, operator, partner, "PATCH", ["192.0.2.0/24"])

    assert answer.status == 200
    assert await stored(app.state.db.reader) == before


FAULTS = [
    pytest.param(["10.0.0.0/8", "10.0.0.1/8"], "/allowed_networks/1", id="host bits"),
    pytest.param(["0.0.0.0/0"], "/allowed_networks/0", id="all of IPv4"),
    pytest.param(["::/0"], "/allowed_networks/0", id="all of IPv6"),
    pytest.param(["::1", "10.0.0.1", "::1/128"], "/allowed_networks/2", id="twice"),
    pytest.param(["::ffff:10.0.0.1"], "/allowed_networks/0", id="IPv4 as IPv6"),
    pytest.param(["fe80::1%eth0"], "/allowed_networks/0", id="a zone"),
    pytest.param([""], "/allowed_networks/0", id="nothing"),
    pytest.param(["10.0.0.0/8 10.0.0.0/9"], "/allowed_networks/0", id="two in one"),
    pytest.param(["anywhere"], "/allowed_networks/0", id="garbage"),
    pytest.param(["1" * 51], "/allowed_networks/0", id="too long"),
    pytest.param(["10.0.0.1", 5], "/allowed_networks/1", id="a number"),
    pytest.param([None], "/allowed_networks/0", id="null in it"),
    pytest.param(None, "/allowed_networks", id="null"),
    pytest.param("10.0.0.0/8", "/allowed_networks", id="a text"),
    pytest.param([f"10.0.{n}.0/24" for n in range(101)], "/allowed_networks", id="a hundred and one"),
]


@pytest.mark.parametrize("networks, pointer", FAULTS)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_invalid_list_of_blocks_is_422_with_the_place(
    app: Starlette,
    operator: HeldKey,
    partner: HeldKey,
    method: str,
    networks: str | list[Any] | None,
    pointer: str,
) -> None:
    before = await stored(app.state.db.reader)

    answer = await write(app, operator, partner, method, networks)

    assert_problem(answer, 422, "invalid_body")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert await stored(app.state.db.reader) == before


# ---------------------------------------------------------------------- never from wider networks


@pytest.fixture
async def mine(app: Starlette) -> HeldKey:
    """Return a key that manages the keys of its owner, from this machine and the two halves of a network."""
    return await hold_key(
        app, scopes=["me.keys:write", "me.keys:read"], allowed_networks=[HERE, "10.0.0.0/9", "10.128.0.0/9"]
    )


WITHIN = [
    pytest.param([HERE], id="one of them"),
    pytest.param(["10.0.0.0/8"], id="two of them as one"),
    pytest.param(["10.64.0.0/10", "10.200.0.1"], id="parts of them"),
]
WIDER = [
    pytest.param([], id="anywhere"),
    pytest.param(["10.0.0.0/7"], id="wider"),
    pytest.param([HERE, "192.0.2.1"], id="one more"),
    pytest.param(["::1"], id="another kind"),
]


async def write_mine(app: Starlette, mine: HeldKey, method: str, networks: Any) -> Answer:
    if method == "POST":
        body = {**NIGHTLY, "allowed_networks": networks}
        return await call(app, "POST", "/v1/me/keys", key=mine, body=body)
    path = f"/v1/me/keys/{mine.access_key}"
    return await call(app, "PATCH", path, key=mine, body={"allowed_networks": networks})


@pytest.mark.parametrize("networks", WITHIN)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_owner_gives_a_key_networks_within_those_of_the_key_that_asks(
    app: Starlette, mine: HeldKey, method: str, networks: list[str]
) -> None:
    answer = await write_mine(app, mine, method, networks)

    assert answer.status in {200, 201}, answer.body


@pytest.mark.parametrize("networks", WIDER)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_owner_never_gives_a_key_wider_networks(
    app: Starlette, mine: HeldKey, method: str, networks: list[Any]
) -> None:
    before = await stored(app.state.db.reader)

    answer = await write_mine(app, mine, method, networks)

    assert_problem(answer, 422, "invalid_body")
    assert [error["pointer"] for error in answer.json["errors"]] == ["/allowed_networks"]
    assert await stored(app.state.db.reader) == before


async def test_a_body_without_networks_asks_for_any_network(app: Starlette, mine: HeldKey) -> None:
    answer = await call(app, "POST", "/v1/me/keys", key=mine, body=NIGHTLY)

    assert_problem(answer, 422, "invalid_body")
    assert [error["pointer"] for error in answer.json["errors"]] == ["/allowed_networks"]


@pytest.mark.parametrize("networks", [[], ["10.0.0.0/8", "192.0.2.1"]], ids=["anywhere", "one more"])
@pytest.mark.parametrize("step", ["PATCH", "POST"], ids=["change", "rotate"])
async def test_a_key_with_wider_networks_is_out_of_reach(
    app: Starlette, mine: HeldKey, networks: list[Any], step: str
) -> None:
    wide = await hold_key(app, scopes=[], allowed_networks=networks)
    before = await stored(app.state.db.reader)
    path = f"/v1/me/keys/{wide.access_key}" + ("/rotate" if step == "POST" else "")
    body = {"grace_s": 0} if step == "POST" else {"allowed_networks": [HERE]}

    answer = await call(app, step, path, key=mine, body=body)

    assert_problem(answer, 403, "key_wider")
    assert await stored(app.state.db.reader) == before


async def test_a_key_without_networks_gives_any(app: Starlette) -> None:
    free = await hold_key(app, scopes=["me.keys:write"])

    assert (await write_mine(app, free, "POST", NETWORKS)).status == 201
    assert (await write_mine(app, free, "POST", [])).status == 201


@pytest.mark.parametrize("networks", [["x"], ["10.0.0.1", "10.0.0.1"]])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_invalid_block_is_reported_before_a_wider_one(
    app: Starlette, mine: HeldKey, method: str, networks: list[str]
) -> None:
    answer = await write_mine(app, mine, method, networks)

    assert_problem(answer, 422, "invalid_body")
    assert answer.json["errors"][0]["pointer"] == f"/allowed_networks/{len(networks) - 1}"
