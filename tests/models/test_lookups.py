"""The verbs that read, on both databases."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import MultipleResultsFound, NoResultFound

from latchkey.models import ApiKey, KeySecret, User
from latchkey.models.errors import MissingRowsError, UnknownLookupError
from latchkey.models.lookups import OPERATORS, Q
from latchkey.models.paging import order_of
from latchkey.service.database import SQLAlchemy


@pytest.fixture
async def people(db: SQLAlchemy) -> list[User]:
    async with db.scoped_session() as session:
        for number, (name, status) in enumerate(
            [("Ann", "active"), ("Bob", "blocked"), ("Cid", "active"), ("Dee", "deleted")], 1
        ):
            await User.create(id=number, email=f"{name}@example.com", name=name, status=status)
        await session.commit()
    return await User.filter().order_by("id").all()


@pytest.fixture
async def keys(people: list[User]) -> list[ApiKey]:
    return [
        await ApiKey.create(
            id=number,
            access_key=f"lka_{name}",
            user_id=owner,
            name=name,
            mode="bearer",
            scopes=("users:read", name),
            auto_commit=True,
        )
        for number, (name, owner) in enumerate([("one", 1), ("two", 1), ("three", 2)], 1)
    ]


def paged_by(column: Any) -> Any:
    return order_of(User, column)


MISTAKES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda users: users.order_by(User.id), r"order_by takes names, and .*InstrumentedAttribute: write order_by\('id'\)\."),
    (lambda users: users.order_by(User.id.desc()), r"write order_by\('-id'\)\."),
    (lambda users: users.order_by(None), r"order_by takes names, and the value is of the type NoneType\."),
    (lambda users: users.load(User.keys), r"write load\('keys'\)\."),
    (lambda users: users.load(["keys"]), r"load takes names, and the value is of the type list\."),
    (lambda users: users.filter(True), r"filter takes .* the type bool: write filter\(id=1\) or filter\(User.id == 1\)\."),
    (lambda users: users.filter("id = 1"), r"the type str: write filter"),
    (lambda users: users.filter(Q(User.id == 1)), r"Q takes lookups by name"),
    (lambda users: users.limit("3"), r"limit\('3'\): the number of rows must be an integer\."),
    (lambda users: paged_by(User.id), r"order_by takes names, .* write order_by\('id'\)"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "sentence"), MISTAKES)
def test_a_column_in_place_of_a_name_is_an_error_that_names_it(
    ask: Callable[[Any], Any], sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence):
        ask(User.filter())


async def test_a_condition_of_sqlalchemy_is_accepted(people: list[User]) -> None:
    assert [one.id for one in await User.filter(User.id == 2).all()] == [2]


async def test_get_answers_the_row_or_none(people: list[User]) -> None:
    found = await User.get(2)

    assert found is not None
    assert found.name == "Bob"
    assert await User.get(99) is None


async def test_get_of_several_keeps_the_order_and_the_duplicates(
    people: list[User], wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    with wire() as commands:
        found = await User.get(3, 1, 3, 2)

    assert [one.name for one in found] == ["Cid", "Ann", "Cid", "Bob"]
    assert found[0] is found[2]
    assert len(commands) == 1


async def test_get_of_several_says_which_are_missing(people: list[User]) -> None:
    with pytest.raises(MissingRowsError) as raised:
        await User.get(99, 1, 98)

    assert raised.value.missing == [99, 98]
    assert str(raised.value) == "User has no row for 99, 98"


async def test_get_of_a_key_of_two_columns(db: SQLAlchemy, keys: list[ApiKey]) -> None:
    for version in (1, 2):
        await KeySecret.create(
            api_key_id=1, version=version, secret_sha256=bytes([version]) * 32, auto_commit=True
        )

    found = await KeySecret.get((1, 2), (1, 1))
    assert [one.version for one in found] == [2, 1]
    assert await KeySecret.get((2, 1)) is None
    with pytest.raises(MissingRowsError) as raised:
        await KeySecret.get((1, 1), (2, 1))
    assert raised.value.missing == [(2, 1)]


async def test_get_wants_a_key(db: SQLAlchemy) -> None:
    with pytest.raises(TypeError, match=r"User.get\(\) needs at least one primary key."):
        await User.get()  # type: ignore[call-overload]  # the mistake of this test


FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "equality": ({"name": "Bob"}, "Bob"),
    "eq": ({"name__eq": "Bob"}, "Bob"),
    "ne": ({"name__ne": "Bob"}, "Ann Cid Dee"),
    "lt": ({"id__lt": 2}, "Ann"),
    "lte": ({"id__lte": 2}, "Ann Bob"),
    "gt": ({"id__gt": 3}, "Dee"),
    "gte": ({"id__gte": 3}, "Cid Dee"),
    "like": ({"email__like": "%e@example%"}, "Dee"),
    "in": ({"id__in": [4, 1]}, "Ann Dee"),
    "in, of any iterable": ({"id__in": range(2, 4)}, "Bob Cid"),
    "in nothing": ({"id__in": []}, ""),
    "not_in": ({"id__not_in": {4, 1}}, "Bob Cid"),
    "not_in nothing": ({"id__not_in": []}, "Ann Bob Cid Dee"),
    "all must hold": ({"status": "active", "id__gt": 1}, "Cid"),
    "no condition": ({}, "Ann Bob Cid Dee"),
}


@pytest.mark.parametrize(("lookups", "names"), FILTERS.values(), ids=FILTERS)
async def test_filter(people: list[User], lookups: dict[str, Any], names: str) -> None:
    found = await User.filter(**lookups).order_by("id").all()

    assert " ".join(one.name for one in found) == names


async def test_every_operator_has_its_case() -> None:
    tried = {name.partition("__")[2] for lookups, _ in FILTERS.values() for name in lookups}

    assert tried - {""} | {"is_null"} == set(OPERATORS)


async def test_the_operator_is_null(keys: list[ApiKey]) -> None:
    await keys[1].update(expires_at=keys[1].created_at, auto_commit=True)

    assert [one.name for one in await ApiKey.filter(expires_at__is_null=False).all()] == ["two"]
    assert await ApiKey.filter(expires_at__is_null=True).count() == 2
    assert await ApiKey.filter(expires_at=None).count() == 2


async def test_moments_are_compared_to_the_microsecond(people: list[User]) -> None:
    created = people[0].created_at

    assert await User.filter(id=1, created_at__gte=created).count() == 1
    assert await User.filter(id=1, created_at__gt=created).count() == 0
    assert await User.filter(id=1, created_at__gte=created + timedelta(microseconds=1)).count() == 0


async def test_words_are_compared_as_words_and_searched_as_text(keys: list[ApiKey]) -> None:
    assert [one.name for one in await ApiKey.filter(scopes=("users:read", "two")).all()] == ["two"]
    assert [one.name for one in await ApiKey.filter(scopes__like="users:read t%").order_by("id").all()] == [
        "two",
        "three",
    ]


async def test_filter_by_is_filter(people: list[User]) -> None:
    assert [one.name for one in await User.filter_by(name="Bob", status="blocked").all()] == ["Bob"]


async def test_filters_add_up(people: list[User]) -> None:
    assert await User.filter(status="active").filter(id__gt=1).count() == 1


async def test_a_step_leaves_the_query_that_it_came_from_alone(people: list[User]) -> None:
    everybody = User.filter()
    everybody.filter(id=1)
    everybody.limit(1)

    assert await everybody.count() == 4


UNKNOWN = {
    "a name": (
        lambda: User.filter(nmae="Ann"),
        "User has no column 'nmae'; it has created_at, email, email_key, external_id, id, limits, meta, name, quota, status, updated_at; and the relations keys.",
    ),
    "a name with an operator": (lambda: User.filter_by(nmae__like="A%"), "User has no column 'nmae'; it has"),
    "a relation as a column": (
        lambda: User.filter(keys=[]),
        "'keys': the value must be an instance of ApiKey, not list",
    ),
    "an operator": (
        lambda: User.filter().filter(name__ilike="a%"),
        (
            "'name__ilike': there is no operator 'ilike'; "
            "there are eq, ne, lt, lte, gt, gte, like, in, not_in, is_null."
        ),
    ),
    "like, of bytes": (
        lambda: User.filter(email_key__like="a%"),
        "'email_key__like': there is no operator 'like' for text that is stored as bytes.",
    ),
    "an order": (lambda: User.filter().order_by("-nmae"), "User has no column 'nmae'; it has created_at,"),
    "a relation": (
        lambda: ApiKey.filter().load("owner"),
        "ApiKey has no relation 'owner'; it has secrets, user.",
    ),
    "a column as a relation": (
        lambda: User.filter().load("name"),
        "User has no relation 'name'; it has keys.",
    ),
}


@pytest.mark.parametrize(("slip", "sentence"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_name_lists_the_right_ones(slip: Callable[..., Any], sentence: str) -> None:
    with pytest.raises(UnknownLookupError) as raised:
        slip()

    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("order", "names"),
    [(["name"], "Ann Bob Cid Dee"), (["-id"], "Dee Cid Bob Ann"), (["status", "-name"], "Cid Ann Bob Dee")],
    ids=["up", "down", "two"],
)
async def test_order_by(people: list[User], order: list[str], names: str) -> None:
    assert " ".join(one.name for one in await User.filter().order_by(*order).all()) == names
    steps = User.filter()
    for name in order:
        steps = steps.order_by(name)
    assert " ".join(one.name for one in await steps.all()) == names


async def test_limit_bounds_every_answer(people: list[User]) -> None:
    two = User.filter().order_by("id").limit(2)

    assert [one.name for one in await two.all()] == ["Ann", "Bob"]
    assert await two.count() == 2
    assert await two.exists()
    assert not await two.limit(0).exists()
    assert (await two.limit(1).one()).name == "Ann"
    assert await two.limit(0).first() is None


async def test_first_one_and_exists(people: list[User]) -> None:
    nobody, actives = User.filter(name="Eve"), User.filter(status="active").order_by("-id")

    first = await actives.first()
    assert first is not None
    assert first.name == "Cid"
    assert await nobody.first() is None
    assert (await User.filter(name="Bob").one()).id == 2
    with pytest.raises(NoResultFound):
        await nobody.one()
    with pytest.raises(MultipleResultsFound):
        await actives.one()
    assert await actives.exists()
    assert not await nobody.exists()
    assert await nobody.count() == 0


async def test_load_joins_the_one_and_selects_the_many(
    keys: list[ApiKey], wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    with wire() as commands:
        found = await ApiKey.filter().order_by("id").load("user").all()
    assert [one.user.name for one in found] == ["Ann", "Ann", "Bob"]
    assert len(commands) == 1
    assert "JOIN" in commands[0]

    with wire() as commands:
        owners = await User.filter(id__lt=4).order_by("id").load("keys").all()
    assert [[one.name for one in owner.keys] for owner in owners] == [["one", "two"], ["three"], []]
    assert len(commands) == 2


async def test_loaded_relations_do_not_change_the_count(keys: list[ApiKey]) -> None:
    assert await User.filter().load("keys").count() == 4
    assert await ApiKey.filter().load("user", "secrets").count() == 3
    first = await User.filter().order_by("id").load("keys").first()
    assert first is not None
    assert len(first.keys) == 2


async def test_for_update_makes_a_stale_row_fresh(db: SQLAlchemy, people: list[User]) -> None:
    async with db.scoped_session() as session:
        stale = await User.get(1)
        async with db.engine.begin() as connection:
            await connection.execute(update(User).where(User.id == 1).values(name="Anna"))
        plain = await User.filter(id=1).one()
        name_before = plain.name
        locked = await User.filter(id=1).for_update().one()
        await session.rollback()
        assert locked is plain is stale

    assert name_before == "Ann"
    await stale.refresh()
    assert stale.name == "Anna"


async def test_for_update_reads_afresh_under_the_lock(db: SQLAlchemy, people: list[User]) -> None:
    async with db.scoped_session() as session:
        user = await User.get(1)
        async with db.engine.begin() as connection:
            await connection.execute(update(User).where(User.id == 1).values(name="Anna"))
        await User.filter(id=1).for_update().first()
        name = user.name
        await session.commit()

    assert name == "Anna"


@pytest.mark.parametrize("verb", ["first", "one", "all"])
async def test_for_update_does_not_overwrite_what_is_pending(
    db: SQLAlchemy, people: list[User], verb: str
) -> None:
    async with db.scoped_session() as session:
        user = await User.get(1)
        user.name = "Anna"
        await getattr(User.filter(id=1).for_update(), verb)()
        await session.commit()

    assert user.name == "Anna"
    assert (await User.filter(id=1).one()).name == "Anna"


async def test_for_update_locks(
    db: SQLAlchemy, people: list[User], wire: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    async with db.scoped_session() as session:
        with wire() as commands:
            await User.filter(id=1).for_update().first()
        await session.rollback()

    # SQLite has one lock, which a writing transaction takes at its beginning.
    assert commands[0] == "BEGIN IMMEDIATE" or " FOR UPDATE" in commands[0]
