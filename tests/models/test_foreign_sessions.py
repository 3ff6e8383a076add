"""A plain session as `session=`: the promises of the verbs hold there too, or the call is refused (R9, R10)."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from latchkey.models import User
from latchkey.models.errors import ForeignSessionError
from latchkey.service.database import SQLAlchemy
from tests.models.refresh_models import Fresh, Hooked, Named, Plain

pytestmark = pytest.mark.usefixtures("refresh_tables")


@pytest.mark.parametrize(
    ("model", "refresh", "is_loaded"),
    [(Plain, None, False), (Plain, True, True), (Fresh, None, True), (Fresh, False, False)],
)
@pytest.mark.parametrize("auto_commit", [True, False])
async def test_it_refreshes_as_the_verb_or_the_model_says(
    db: SQLAlchemy, model: type[Any], refresh: bool | None, is_loaded: bool, auto_commit: bool
) -> None:
    async with AsyncSession(db.engine, expire_on_commit=False) as foreign:
        row = await model.create(name="one", session=foreign)
        assert row.served
        await row.update(name="two", refresh=refresh, auto_commit=auto_commit)
        await foreign.commit()

        assert ("stamped_at" in row.__dict__) is is_loaded
    row.set_session()
    assert (await model.filter().one()).name == "two"


async def test_it_reads_again_what_a_model_names(db: SQLAlchemy) -> None:
    async with AsyncSession(db.engine) as foreign:
        row = await Named.create(name="one ", session=foreign)
        assert row.name == "one "
        assert (await row.save(refresh=True)) is row
        await foreign.rollback()


@pytest.mark.parametrize("verb", ["create", "save", "update", "remove"])
async def test_a_hook_that_it_would_not_run_is_refused_by_name(db: SQLAlchemy, verb: str) -> None:
    row = await Hooked.create(name="one", auto_commit=True)

    async with AsyncSession(db.engine) as foreign:
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "create": lambda: Hooked.create(name="two", session=foreign),
            "save": lambda: row.save(session=foreign),
            "update": lambda: row.update(name="two", session=foreign),
            "remove": lambda: row.remove(session=foreign),
        }
        with pytest.raises(ForeignSessionError, match="Hooked has an after-commit hook"):
            await verbs[verb]()
        assert not foreign.in_transaction()


async def test_models_whose_changes_nobody_watches_are_written(db: SQLAlchemy) -> None:
    async with AsyncSession(db.engine) as foreign:
        ann = await User.create(email="ann@example.com", name="Ann", session=foreign)
        assert ann.served
        await foreign.commit()
    assert await User.filter(name="Ann").exists()


async def test_writes_that_would_bypass_the_key_cache_are_refused(db: SQLAlchemy) -> None:
    async def watch(_table: str, _identity: int) -> None: ...

    db.watch(watch)
    async with AsyncSession(db.engine) as foreign:
        with pytest.raises(ForeignSessionError, match="User has an after-commit hook"):
            await User.create(email="ann@example.com", name="Ann", session=foreign)
