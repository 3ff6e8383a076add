"""The personal data of a user is erased everywhere; the audit log can still be verified."""

from contextlib import suppress

import pytest
from sqlalchemy import text
from starlette.applications import Starlette

from latchkey.models import ApiKey, User
from latchkey.service.audit.verification import Report, Verification
from latchkey.service.owners import erasure, slices
from latchkey.service.owners.erasure import Erasure, NotSealedError
from latchkey.service.parts import parts_of
from tests.api import assert_problem, call
from tests.service.audit.events import events
from tests.service.owners.world import OTHER_EMAIL, World


@pytest.fixture
async def world(app: Starlette) -> World:
    world = World(app)
    await world.fill()
    return world


async def verified(app: Starlette) -> Report:
    await parts_of(app).sealer.seal()
    async with app.state.db.reader.connect() as connection:
        return await Verification(parts_of(app).keyring).run(connection)


async def test_nothing_personal_is_left_in_the_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_ROWS", 3)
    assert {table for table, _ in await world.left()} == {
        "api_keys", "audit_events", "idempotency_keys", "usage_series", "users", "webhook_deliveries",
    }  # fmt: skip

    done = await world.erase()

    assert await world.left() == []
    assert (done.users, done.keys, done.usage_series, done.answers) == (1, 3, 2, 4)
    assert done.deliveries > 0
    user = await User.get(world.user_id)
    assert user is not None
    assert (user.status, user.email, user.name) == (
        "deleted",
        f"erased-{world.user_id}@erased.invalid",
        "erased",
    )
    assert {key.status for key in await ApiKey.filter_by(user_id=world.user_id).all()} == {"revoked"}


async def test_the_audit_log_is_intact(app: Starlette, world: World) -> None:
    before = await verified(app)
    assert (before.erased, before.faults) == (0, [])

    done = await world.erase()

    after = await verified(app)
    assert after.faults == []
    assert after.sealed == before.sealed + 2
    by_action = {event.action: event for event in await events() if event.target_id == str(world.user_id)}
    assert list(by_action) == ["user.created", "user.changed", "user.deleted", "user.erased"]
    assert list(by_action["user.created"].after or ()) == ["erased"]
    assert by_action["user.deleted"].after == {"status": "deleted"}
    assert by_action["user.erased"].after == {}
    of_own_call = [event for event in await events() if event.actor_user_id == world.user_id]
    assert [(event.address or "").partition(":")[0] for event in of_own_call] == ["erased"]
    assert (after.erased, done.audit_values, done.audit_addresses) == (5, 5, 1)


NOTHING = f'{{"erased":"{32 * "0"}"}}'
CREATED = f"WHERE target_id = {{target}} AND action = x'{b'user.created'.hex()}'"
TAMPERED = {
    "another erased value": f"UPDATE audit_events SET values_after = '{NOTHING}' {CREATED}",
    "the action": f"UPDATE audit_events SET action = x'41' {CREATED}",
    "a value again": f"UPDATE audit_events SET values_after = '{{}}' {CREATED}",
    "an address again": "UPDATE audit_events SET address = x'41' WHERE actor_user_id = {user_id}",
    "an event of another user": (
        f"UPDATE audit_events SET values_before = NULL, values_after = '{NOTHING}' WHERE position = 1"
    ),
}


@pytest.mark.parametrize("statement", TAMPERED.values(), ids=TAMPERED)
async def test_a_change_of_an_erased_event_is_named(app: Starlette, world: World, statement: str) -> None:
    await world.erase()
    assert (await verified(app)).faults == []

    async with app.state.db.engine.begin() as connection:
        target = f"x'{str(world.user_id).encode().hex()}'"
        await connection.exec_driver_sql(
            statement.replace("{target}", target).replace("{user_id}", str(world.user_id))
        )

    faults = (await verified(app)).faults
    assert len(faults) == 1
    assert "it was changed." in faults[0]


async def test_other_users_stay(app: Starlette, world: World) -> None:
    await world.erase()

    bob = await User.filter_by(email=OTHER_EMAIL).one()
    assert (bob.name, bob.external_id) == ("Bob", "ext-of-bob")
    created = [event for event in await events() if event.target_id == str(bob.id)]
    assert (created[0].after or {})["email"] == OTHER_EMAIL
    again = await call(
        app,
        "POST",
        "/v1/users",
        key=world.operator,
        body={"email": OTHER_EMAIL, "name": "Bob", "external_id": "ext-of-bob"},
        headers=[("idempotency-key", "bob")],
    )
    assert (again.status, again.headers["idempotent-replayed"]) == (201, "true")


async def test_a_repeated_call_does_not_create_the_user_again(app: Starlette, world: World) -> None:
    await world.erase()

    assert_problem(await world.make_user(), 409, "idempotency_in_progress")

    assert await User.filter_by(name="Petra").count() == 0


async def interrupted(world: World, monkeypatch: pytest.MonkeyPatch, *, after: int) -> int:
    """Run erasures, each of which ends after some writes, until nothing is left to do; return their number."""
    write = Erasure._write_batch
    left = 0

    async def stop_after(self: Erasure, *args: object) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionAbortedError
        return await write(self, *args)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(Erasure, "_write_batch", stop_after)
    rounds = 0
    while left <= 0:
        rounds += 1
        left = after
        with suppress(ConnectionAbortedError):
            await world.erasure().run()
    return rounds


async def test_an_erasure_that_ended_anywhere_is_continued(
    app: Starlette, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement that writes is the last one, until there is none left."""
    await world.delete()
    rounds = await interrupted(world, monkeypatch, after=2)

    assert rounds > 2
    assert await world.left() == []
    assert (await verified(app)).faults == []
    assert (await world.erasure().run()).users == 0
    assert [one.action for one in await events()].count("user.erased") == 1


async def test_a_key_that_the_housekeeping_deleted_is_erased_too(
    app: Starlette, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its creation names its owner, so this event is the last one of the key."""
    changed = await call(
        app, "PATCH", f"/v1/keys/{world.of_key}", key=world.operator, body={"name": "key-private again"}
    )
    assert changed.status == 200
    await world.delete()
    of_user = f"SELECT id FROM (SELECT id FROM api_keys WHERE user_id = {world.user_id}) AS some"
    async with app.state.db.engine.begin() as connection:
        await connection.execute(text(f"DELETE FROM key_secrets WHERE api_key_id IN ({of_user})"))
        await connection.execute(text(f"DELETE FROM api_keys WHERE id IN ({of_user})"))
    monkeypatch.setattr(erasure, "BATCH_ROWS", 1)

    await interrupted(world, monkeypatch, after=1)

    assert ("audit_events", "key-private") not in await world.left()
    assert (await verified(app)).faults == []


async def test_an_event_without_a_seal_is_named(
    app: Starlette, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "SEAL_WITHIN_S", 0.1)
    await world.delete()
    target = f"x'{str(world.user_id).encode().hex()}'"
    async with app.state.db.engine.begin() as connection:
        await connection.exec_driver_sql(
            f"UPDATE audit_events SET seal = NULL {CREATED}".format(target=target)
        )

    with pytest.raises(NotSealedError, match="the seal of event"):
        await world.erasure().run()
