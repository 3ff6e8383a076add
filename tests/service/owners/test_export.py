"""Everything that is stored about a user is exported, without secrets and without the data of other users."""

from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models import User
from latchkey.service.owners import export
from latchkey.service.owners.export import exported
from tests.service.owners.world import OTHER_EMAIL, World


async def lines_of(app: Starlette, user_id: int) -> list[Any]:
    """Return the lines of an export as they are printed."""
    db = app.state.db
    async with db.scoped_session(), db.reader.connect() as connection:
        user = await User.get(user_id)
        assert user is not None
        return [
            msgspec.json.decode(msgspec.json.encode(line))
            async for line in exported(user, connection, ["live", "test"])
        ]


@pytest.fixture
async def world(app: Starlette) -> World:
    world = World(app)
    await world.fill()
    return world


async def test_the_export_has_everything_of_a_user(
    app: Starlette, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BATCH_ROWS", 1)

    lines = await lines_of(app, world.user_id)

    kinds = [line["type"] for line in lines]
    assert kinds[0] == "user"
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "user": 1,
        "key": 3,
        "secret": 3,
        "usage": 2,
        "audit_event": 5,
    }
    assert lines[0]["data"]["meta"] == {"note": "meta-private"}
    assert [line["data"]["tags"] for line in lines if line["type"] == "usage"] == [
        ["tag-private"],
        ["tag-private", "blue"],
    ]
    seen = [line["data"] for line in lines if line["type"] == "audit_event"]
    assert [event["action"] for event in seen] == ["user.created", "user.changed", *["key.created"] * 3]
    assert [event["address"] for event in seen if event["actor"]["user_id"] != world.user_id] == [None] * 4
    assert len({event["id"] for event in seen}) == len(seen)


async def test_the_export_has_no_secret_and_nothing_of_others(app: Starlette, world: World) -> None:
    text = str(await lines_of(app, world.user_id))

    for one in (
        OTHER_EMAIL,
        "Bob",
        "ext-of-bob",
        world.key.secret,
        world.operator.secret,
        "sealed",
        "sha256",
    ):
        assert one not in text


async def test_calls_of_a_user_elsewhere_are_shown_without_values(app: Starlette, world: World) -> None:
    lines = await lines_of(app, world.operator.user_id)

    elsewhere = [
        line["data"]
        for line in lines
        if line["type"] == "audit_event" and line["data"]["target"]["id"] == str(world.user_id)
    ]
    assert [event["action"] for event in elsewhere] == ["user.created", "user.changed"]
    assert {(event["before"], event["after"]) for event in elsewhere} == {(None, None)}
    assert {event["address"] for event in elsewhere} == {"127.0.0.1"}


async def test_after_an_erasure_nothing_personal_is_exported(app: Starlette, world: World) -> None:
    await world.erase()

    text = str(await lines_of(app, world.user_id))

    assert "private" not in text
    assert "Petra" not in text
