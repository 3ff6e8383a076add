"""Sealed events: each change of the log that somebody makes in the database is named."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.applications import Starlette

from latchkey.models import Scope
from latchkey.service.audit.seal import Head
from latchkey.service.audit.sealer import ChangedHeadError, Sealer, read_heads
from latchkey.service.audit.verification import Report, Verification
from latchkey.service.parts import parts_of
from tests.service.audit.events import events

ROWS = "audit_events"
TAMPERED = {
    "changed": (["UPDATE audit_events SET request_id = x'41' WHERE position = 3"], "position 3, event"),
    "values changed": (["UPDATE audit_events SET values_after = '{}' WHERE position = 3"], "it was changed."),
    "unreadable": (
        ["UPDATE audit_events SET target_id = x'ff' WHERE position = 3"],
        "position 3: the event was changed",
    ),
    "seal removed": (["UPDATE audit_events SET seal = NULL WHERE position = 3"], "its seal was removed"),
    "removed": (["DELETE FROM audit_events WHERE position = 3"], "position 3: the event was removed"),
    "first removed": (["DELETE FROM audit_events WHERE position = 1"], "position 1: the event was removed"),
    "last removed": (["DELETE FROM audit_events WHERE position = 5"], "position 5: the event was removed"),
    "truncated": (["DELETE FROM audit_events"], "positions 1 to 5: the events were removed"),
    "moved": (
        [
            "DELETE FROM audit_events WHERE position = 2",
            "UPDATE audit_events SET position = 2 WHERE position = 5",
        ],
        "position 2, event",
    ),
    "swapped": (
        [
            "UPDATE audit_events SET position = 99 WHERE position = 2",
            "UPDATE audit_events SET position = 2 WHERE position = 3",
            "UPDATE audit_events SET position = 3 WHERE position = 99",
        ],
        "it was moved from another position.",
    ),
    "position removed": (
        ["UPDATE audit_events SET position = NULL WHERE position = 3"],
        "position 3: the event was removed",
    ),
    "position negative": (
        ["UPDATE audit_events SET position = -3 WHERE position = 3"],
        "1 events: their position",
    ),
    "head removed": (["DELETE FROM audit_heads"], "the head was removed."),
    "head moved back": (
        ["DELETE FROM audit_events WHERE position = 5", "UPDATE audit_heads SET position = 4"],
        "the head was changed.",
    ),
}


async def add_scopes(app: Starlette, *names: str) -> None:
    """Make a change for each name."""
    async with app.state.db.scoped_session() as session:
        for name in names:
            await Scope.create(name=f"orders:{name}", noun="orders")
        await session.commit()


async def verified(app: Starlette, outside: Sequence[Head] = ()) -> Report:
    async with app.state.db.reader.connect() as connection:
        return await Verification(parts_of(app).keyring, outside).run(connection)


@pytest.fixture
async def sealed(app: Starlette) -> Report:
    """Seal five events, in two rounds."""
    await add_scopes(app, "a", "b", "c")
    assert await parts_of(app).sealer.seal() == 3
    await add_scopes(app, "d", "e")
    assert await parts_of(app).sealer.seal() == 2
    return await verified(app)


async def run(app: Starlette, statements: Sequence[str]) -> None:
    async with app.state.db.engine.begin() as connection:
        for one in statements:
            await connection.execute(text(one))


async def test_sealed_events_are_numbered_without_a_gap(app: Starlette, sealed: Report) -> None:
    await add_scopes(app, "f")

    report = await verified(app)

    assert (report.sealed, report.unsealed, report.faults) == (5, 1, [])
    assert sorted(one.position or 0 for one in await events()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("statements, named", TAMPERED.values(), ids=TAMPERED)
async def test_each_change_of_the_log_is_named(
    app: Starlette, sealed: Report, statements: list[str], named: str
) -> None:
    await run(app, statements)

    report = await verified(app)

    assert any(named in fault for fault in report.faults), report.faults


async def test_a_changed_head_ends_the_sealing(app: Starlette, sealed: Report) -> None:
    await run(app, ["UPDATE audit_heads SET position = 4"])
    await add_scopes(app, "f")

    with pytest.raises(ChangedHeadError):
        await parts_of(app).sealer.seal()


async def test_a_head_outside_shows_a_log_that_was_sealed_anew(
    app: Starlette, sealed: Report, tmp_path: Path
) -> None:
    file = tmp_path / "heads"
    await add_scopes(app, "f")
    sealer = Sealer(app.state.db, parts_of(app).keyring, str(file))
    await sealer.seal()
    outside = read_heads(f"12:00 INFO audit head: {file.read_text()}")
    assert (await verified(app, outside)).faults == []

    # As somebody who has the database and the key ring.
    await run(
        app,
        [
            "DELETE FROM audit_heads",
            "DELETE FROM audit_events WHERE position = 2",
            "UPDATE audit_events SET position = NULL, seal = NULL",
        ],
    )
    await add_scopes(app, "g")
    await sealer.seal()

    assert (await verified(app)).faults == []
    assert (await verified(app, outside)).faults == [
        "position 6: the event is not the one that a head outside names."
    ]
