"""The verbs that write, on both databases."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError

from latchkey.models import ApiKey, Base, KeySecret, User
from latchkey.models.errors import (
    LostWriteError,
    NotARowError,
    NotInitialisedError,
    NotLoadedError,
    UnknownLookupError,
)
from latchkey.service.database import SQLAlchemy


async def names_stored(db: SQLAlchemy) -> list[str]:
    """Return the names that another connection sees."""
    async with db.engine.connect() as connection:
        return list((await connection.execute(select(User.name).order_by(User.id))).scalars())


async def test_create_answers_the_row_with_what_the_database_decided(db: SQLAlchemy) -> None:
    before = datetime.now(UTC)

    user = await User.create(email="Ann@Example.com", name="Ann", auto_commit=True)

    assert user.id > 0
    assert (user.email, user.email_key, user.status) == ("Ann@Example.com", "ann@example.com", "active")
    assert abs((user.created_at - before).total_seconds()) < 5
    assert user.updated_at == user.created_at
    assert await names_stored(db) == ["Ann"]


async def test_create_without_auto_commit_waits_for_the_commit(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        user = await User.create(email="ann@example.com", name="Ann")
        assert user.id
        seen_before = await User.filter().count()
        await session.rollback()

    assert seen_before == 1
    assert await names_stored(db) == []


async def test_create_refuses_an_attribute_that_is_not_there(db: SQLAlchemy) -> None:
    with pytest.raises(UnknownLookupError) as raised:
        await User.create(emial="ann@example.com", auto_commit=True)

    assert str(raised.value) == (
        "User has no attribute 'emial'; it has created_at, email, email_key, external_id, id, keys, limits, meta, name, quota, status, updated_at."
    )


@pytest.mark.parametrize(
    "model, values, relation",
    [(ApiKey, {"user": object()}, "ApiKey.user is a relation to User"),
     (User, {"keys": [object()]}, "User.keys is a relation to ApiKey")],
    ids=["to one", "to many"],
)  # fmt: skip
async def test_a_relation_takes_only_rows(
    db: SQLAlchemy, ann: User, model: type[Any], values: dict[str, Any], relation: str
) -> None:
    """As an endpoint does that passes `caller.user`, which is a Struct."""
    said = re.escape(f"{relation}, and builtins.object is not one of its rows: pass the result of ") + ".*"

    with pytest.raises(NotARowError, match=said):
        await model.create(**values, auto_commit=True)
    if model is User:
        with pytest.raises(NotARowError, match=said):
            await ann.update(**values, auto_commit=True)


async def test_create_lets_the_unique_constraint_judge(db: SQLAlchemy, ann: User) -> None:
    with pytest.raises(IntegrityError):
        await User.create(email="ANN@example.com", name="Other", auto_commit=True)

    assert await names_stored(db) == ["Ann"]


async def test_save_writes_a_new_instance_and_a_changed_one(db: SQLAlchemy) -> None:
    user = User(email="ann@example.com", name="Ann")

    assert await user.save(auto_commit=True) is user
    user.name = "Anna"
    assert await user.save(auto_commit=True) is user

    assert await names_stored(db) == ["Anna"]


async def test_save_of_an_unchanged_instance_writes_nothing(
    db: SQLAlchemy, ann: User, wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    with wire() as commands:
        await ann.save(auto_commit=True)

    assert commands == []


async def test_update_changes_what_differs(
    db: SQLAlchemy, ann: User, wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    before = ann.updated_at

    with wire() as commands:
        assert await ann.update(name="Anna", status="active", auto_commit=True) is ann

    (update,) = [one for one in commands if one.startswith("UPDATE")]
    assert "name=" in update
    assert "status=" not in update
    assert ann.updated_at >= before
    assert await names_stored(db) == ["Anna"]


@pytest.mark.parametrize("values", [{}, {"name": "Ann"}, {"name": "Ann", "status": "active"}])
async def test_update_with_nothing_changed_answers_none_and_says_nothing(
    db: SQLAlchemy, ann: User, wire: Callable[[], AbstractContextManager[list[str]]], values: dict[str, Any]
) -> None:
    with wire() as commands:
        assert await ann.update(**values, auto_commit=True) is None
        assert await ann.update(**values) is None

    assert commands == []


async def test_update_needs_no_session_to_find_nothing_changed(db: SQLAlchemy, ann: User) -> None:
    assert await ann.update(name="Ann") is None


async def test_update_writes_what_was_never_loaded(db: SQLAlchemy, ann: User, bob: User) -> None:
    key = await new_key(ann)

    assert await key.update(user=bob, auto_commit=True) is key

    assert (await ApiKey.filter(id=key.id).one()).user_id == bob.id


async def test_update_refuses_an_attribute_that_is_not_there(db: SQLAlchemy, ann: User) -> None:
    with pytest.raises(
        UnknownLookupError, match=re.escape("User has no attribute 'nmae'; it has created_at,")
    ):
        await ann.update(nmae="Anna", auto_commit=True)


async def test_remove_deletes_the_row(db: SQLAlchemy, ann: User, bob: User) -> None:
    await ann.remove(auto_commit=True)

    assert await names_stored(db) == ["Bob"]


async def test_remove_of_an_unsaved_instance_is_an_error_and_saves_nothing(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        with pytest.raises(InvalidRequestError, match="not persisted"):
            await User(email="ann@example.com", name="Ann").remove()
        await session.commit()

    assert await names_stored(db) == []


async def new_key(owner: User, name: str = "import") -> ApiKey:
    return await ApiKey.create(
        access_key=f"lka_{name}", user_id=owner.id, name=name, mode="bearer", scopes=(), auto_commit=True
    )


async def test_the_foreign_key_judges_the_removal_of_an_owner(db: SQLAlchemy, ann: User) -> None:
    key = await new_key(ann)
    await KeySecret.create(api_key_id=key.id, version=1, secret_sha256=b"s" * 32, auto_commit=True)

    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        await ann.remove(auto_commit=True)
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        await key.remove(auto_commit=True)

    assert await ApiKey.filter(user_id=1).count() == 1


async def test_a_write_that_failed_leaves_the_instance_to_be_refreshed(
    db: SQLAlchemy, ann: User, bob: User
) -> None:
    with pytest.raises(IntegrityError):
        await bob.update(email="ann@example.com", auto_commit=True)

    with pytest.raises(NotLoadedError, match=r"User\.email"):
        bob.email  # noqa: B018 - reading is the test
    await bob.refresh()
    assert bob.email == "bob@example.com"


async def test_an_owner_goes_with_its_keys_in_one_commit(db: SQLAlchemy, ann: User) -> None:
    key = await new_key(ann)

    async with db.scoped_session() as session:
        await session.delete(await User.get(ann.id))
        await session.delete(await ApiKey.get(key.id))
        await session.commit()

    assert await User.filter().count() == await ApiKey.filter().count() == 0


async def test_refresh_reads_the_row_again(db: SQLAlchemy, ann: User) -> None:
    await User.filter(id=ann.id).one()
    async with db.engine.begin() as connection:
        await connection.execute(update(User).values(name="Anna", status="blocked"))

    assert await ann.refresh("status") is ann
    assert (ann.name, ann.status) == ("Ann", "blocked")
    await ann.refresh()
    assert ann.name == "Anna"


async def test_refresh_flushes_what_is_pending_instead_of_losing_it(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        user = await User.create(email="ann@example.com", name="Ann")
        user.name = "Anna"
        await user.refresh()
        await session.commit()

    assert user.name == "Anna"
    assert await names_stored(db) == ["Anna"]


async def test_refresh_refuses_to_lose_what_is_pending(db: SQLAlchemy, ann: User) -> None:
    ann.name = "Anna"

    with pytest.raises(
        LostWriteError, match=r"a pending change, which User\.refresh writes first, would be lost"
    ):
        await ann.refresh()

    assert ann.name == "Anna"


async def test_refresh_keeps_loaded_relations_and_loads_named_ones(db: SQLAlchemy, ann: User) -> None:
    key = await new_key(ann)

    await ann.refresh("keys")
    await ann.refresh()
    await key.refresh("user")

    assert [one.name for one in ann.keys] == ["import"]
    assert key.user.name == "Ann"


async def test_refresh_refuses_an_attribute_that_is_not_there(db: SQLAlchemy, ann: User) -> None:
    with pytest.raises(UnknownLookupError, match="User has no attribute 'nmae'"):
        await ann.refresh("nmae")


@pytest.mark.parametrize(
    ("slip", "sentence"),
    [
        pytest.param(
            lambda user: user.create(name="Anna"),
            "create belongs to the class: `await User.create(...)`.",
            id="create on an instance",
        ),
        *(
            pytest.param(
                lambda user, verb=verb: getattr(User, verb)(),
                f"{verb} belongs to an instance: `one = await User.get(...)`, then `await one.{verb}(...)`.",
                id=f"{verb} on the class",
            )
            for verb in ("save", "update", "remove", "refresh")
        ),
    ],
)
def test_a_verb_on_the_other_of_class_and_instance_is_refused(
    slip: Callable[..., Any], sentence: str
) -> None:
    with pytest.raises(TypeError) as raised:
        slip(User())

    assert str(raised.value) == sentence


WRITES = [
    pytest.param("create", lambda user: User.create(email="new@example.com", name="New"), id="create"),
    pytest.param("save", lambda user: User(email="new@example.com", name="New").save(), id="save"),
    pytest.param("update", lambda user: user.update(name="Anna"), id="update"),
    pytest.param("remove", lambda user: user.remove(), id="remove"),
]


@pytest.mark.parametrize(("verb", "write"), WRITES)
async def test_a_write_that_nobody_would_commit_is_refused(
    db: SQLAlchemy,
    ann: User,
    wire: Callable[[], AbstractContextManager[list[str]]],
    verb: str,
    write: Callable[..., Any],
) -> None:
    # `create` saves what it made.
    said = f"User.{'save' if verb == 'create' else verb} would be lost, because nothing commits the session"

    with wire() as commands, pytest.raises(LostWriteError, match=re.escape(said)) as raised:
        await write(ann)

    assert "pass auto_commit=True, or session=, or open `async with db.scoped_session()" in str(raised.value)
    assert commands == []
    assert ann.name == "Ann"
    assert await names_stored(db) == ["Ann"]


@pytest.mark.parametrize(
    "use",
    [
        *(pytest.param(case.values[1], id=case.id) for case in WRITES),
        pytest.param(lambda user: user.refresh(), id="refresh"),
        pytest.param(lambda user: User.get(1), id="get"),
        pytest.param(lambda user: User.filter().all(), id="filter"),
        pytest.param(
            lambda user: User.create(email="new@example.com", name="New", auto_commit=True), id="auto_commit"
        ),
    ],
)
async def test_a_model_without_a_database_says_init_app(use: Callable[..., Any]) -> None:
    assert Base.scoped_session is None

    with pytest.raises(NotInitialisedError) as raised:
        await use(User(id=1, email="ann@example.com", name="Ann"))

    assert str(raised.value) == "no database is open: call `db.init_app(app, settings)` first."


async def test_the_repr_of_a_row_shows_no_value(db: SQLAlchemy, ann: User) -> None:
    assert repr(ann) == "<User (1,)>"
    assert repr(User(email="ann@example.com")) == "<User unsaved>"


async def test_count_of_rows_is_what_the_database_has(db: SQLAlchemy, ann: User, bob: User) -> None:
    async with db.engine.connect() as connection:
        counted = (await connection.execute(select(func.count(User.id)))).scalar_one()

    assert counted == await User.filter().count() == 2
