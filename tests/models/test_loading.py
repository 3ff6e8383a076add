"""Reading an attribute that was never loaded names it and the fix, and takes no connection (R11)."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from latchkey.models import ApiKey, User
from latchkey.models.errors import NotLoadedError
from latchkey.service.database import SQLAlchemy


@pytest.fixture
async def key(ann: User) -> ApiKey:
    return await ApiKey.create(
        access_key="lka_1", user_id=ann.id, name="import", mode="bearer", scopes=(), auto_commit=True
    )


COLUMN = (
    "User.updated_at is not loaded: `await instance.refresh()`, or pass refresh=True to the verb that wrote it, "
    "before it is read."
)


async def test_a_column_after_an_unrefreshed_update(
    db: SQLAlchemy, ann: User, wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    async with db.scoped_session() as session:
        user = await User.get(ann.id)
        await user.update(name="Anna", refresh=False)
        with wire() as commands, pytest.raises(NotLoadedError) as attached:
            user.updated_at  # noqa: B018 - reading is the test
        await session.commit()
        with pytest.raises(NotLoadedError) as committed:
            user.updated_at  # noqa: B018 - reading is the test
        assert db.checked_out() == 0
    with pytest.raises(NotLoadedError) as detached:
        user.updated_at  # noqa: B018 - reading is the test

    assert {str(one.value) for one in (attached, committed, detached)} == {COLUMN}
    assert commands == []
    assert user.name == "Anna"
    assert (await user.refresh()).updated_at > user.created_at


@pytest.mark.parametrize(
    ("read", "sentence"),
    [
        (
            lambda key, user: key.user,
            (
                "ApiKey.user is not loaded: name it in the query, `.load('user')`, "
                "or `await instance.refresh('user')` before it is read."
            ),
        ),
        (
            lambda key, user: user.keys,
            (
                "User.keys is not loaded: name it in the query, `.load('keys')`, "
                "or `await instance.refresh('keys')` before it is read."
            ),
        ),
    ],
    ids=["to one", "to many"],
)
async def test_a_relation(
    db: SQLAlchemy,
    ann: User,
    key: ApiKey,
    wire: Callable[[], AbstractContextManager[list[str]]],
    read: Callable[..., Any],
    sentence: str,
) -> None:
    async with db.scoped_session():
        there = await ApiKey.get(key.id), await User.filter(id=ann.id).one()
        with wire() as commands, pytest.raises(NotLoadedError) as attached:
            read(*there)
        assert db.checked_out() == 0
    with pytest.raises(NotLoadedError) as detached:
        read(*there)

    assert str(attached.value) == str(detached.value) == sentence
    assert commands == []


async def test_the_whole_row_after_a_rollback(db: SQLAlchemy, ann: User) -> None:
    async with db.scoped_session() as session:
        user = await User.get(ann.id)
        await user.update(name="Anna")
        await session.rollback()
        with pytest.raises(
            NotLoadedError, match=r"User\.created_at, User\.email, .*User\.updated_at is not loaded"
        ):
            user.name  # noqa: B018 - reading is the test
        assert db.checked_out() == 0
        await user.refresh()

    assert user.name == "Ann"


async def test_the_named_fix_works(db: SQLAlchemy, ann: User, key: ApiKey) -> None:
    loaded = await ApiKey.filter(id=key.id).load("user").one()
    await key.refresh("user")
    await ann.refresh("keys")

    assert loaded.user.name == key.user.name == "Ann"
    assert [one.name for one in ann.keys] == ["import"]


async def test_a_new_instance_has_nothing_to_load() -> None:
    user = User(email="ann@example.com")

    assert user.id is None
    assert user.updated_at is None
