"""The values that an endpoint may return, and that the default of a field never replaces an attribute that is not loaded."""

import asyncio
import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar, cast

import msgspec
import pytest
from msgspec import UNSET, UnsetType
from sqlalchemy import select
from sqlalchemy.orm import defer, load_only
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from latchkey.models import ApiKey, User
from latchkey.models.errors import NotLoadedError
from latchkey.models.query import Query
from latchkey.service import conversion
from latchkey.service.conversion import AnswerError
from latchkey.service.database import SQLAlchemy
from latchkey.service.endpoints.paging import page
from latchkey.service.operation import Answer, Operation, RouteError, route
from tests.api import HeldKey, assert_problem, call

T = TypeVar("T")


class Named(msgspec.Struct):
    """A user, in which the default of each field but the id would be wrong."""

    id: int
    name: str | None = None
    email: str = "nobody@example.com"


class Stamped(msgspec.Struct):
    """Values that the database generates."""

    updated_at: datetime | None = None


class Held(msgspec.Struct):
    """A key, and the user that owns it."""

    name: str = "none"
    user: Named | None = None


class Page(msgspec.Struct, Generic[T]):
    """A page of anything."""

    data: list[T]
    next_cursor: str | None = None


class Pair(msgspec.Struct, rename="camel"):
    """Structs at every place in a type."""

    first_one: Named
    by_name: dict[str, Named] = {}
    both: tuple[Named, str] | None = None
    some: tuple[Named, ...] = ()
    rest: Named | list[Named] | UnsetType = UNSET


class Tree(msgspec.Struct):
    """A type that contains itself."""

    name: str
    children: list["Tree"] = []


class Cat(msgspec.Struct, tag="cat"):
    name: str


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Short(msgspec.Struct, array_like=True):
    """A Struct that is encoded as an array."""

    id: int
    name: str = "none"


@dataclasses.dataclass
class Card:
    user: Named
    note: str = "none"


class Entry(TypedDict):
    user: Named


class Place(NamedTuple):
    user: Named
    at: int


@pytest.fixture
def ann() -> User:
    return User(id=1, name="Ann", email="ann@example.com")


NAMED = {"id": 1, "name": "Ann", "email": "ann@example.com"}


def shown(found: Any, kind: Any) -> Any:
    return json.loads(msgspec.json.encode(conversion.convert(found, kind)))


# ---------------------------------------------------------------------- valid results


CASES = [
    pytest.param(Named, lambda ann: ann, NAMED, id="a model"),
    pytest.param(Named, lambda ann: {"id": 1, "name": "Ann", "email": "ann@example.com"}, NAMED, id="a dict"),
    pytest.param(Held, lambda ann: Held("k", ann), {"name": "k", "user": NAMED}, id="a Struct with a model inside"),
    pytest.param(Held, lambda ann: {"name": "k", "user": ann}, {"name": "k", "user": NAMED}, id="a dict with a model"),
    pytest.param(Page[Held], lambda ann: Page([Held("k", ann)]),
                 {"data": [{"name": "k", "user": NAMED}], "next_cursor": None}, id="Structs with models inside a page"),
    pytest.param(Page[Named], lambda ann: Page([ann, conversion.convert(ann, Named)]),
                 {"data": [NAMED, NAMED], "next_cursor": None}, id="a page of models and Structs"),
    pytest.param(Page[int], lambda ann: Page([1]), {"data": [1], "next_cursor": None}, id="a page of numbers"),
    pytest.param(list[Named], lambda ann: (one for one in [ann]), [NAMED], id="a generator of models"),
    pytest.param(dict[str, Named], lambda ann: {"a": ann}, {"a": NAMED}, id="a dict of models"),
    pytest.param(Named | None, lambda ann: ann, NAMED, id="a model or nothing"),
    pytest.param(Named | None, lambda ann: None, None, id="nothing"),
    pytest.param(Pair, lambda ann: Pair(ann, {"a": ann}, (ann, "x"), (ann,), [ann]),
                 {"firstOne": NAMED, "byName": {"a": NAMED}, "both": [NAMED, "x"], "some": [NAMED], "rest": [NAMED]},
                 id="models everywhere"),
    pytest.param(Pair, Pair, {"firstOne": NAMED, "byName": {}, "both": None, "some": []},
                 id="what is unset stays out"),
    pytest.param(Pair, lambda ann: {"firstOne": ann, "rest": UNSET},
                 {"firstOne": NAMED, "byName": {}, "both": None, "some": []}, id="unset in a dict"),
    pytest.param(Tree, lambda ann: Tree("a", cast("Any", [{"name": "b"}])),
                 {"name": "a", "children": [{"name": "b", "children": []}]}, id="a type that holds itself"),
    pytest.param(Cat | Dog, lambda ann: Dog("rex"), {"type": "dog", "name": "rex"}, id="one of two Structs"),
    pytest.param(list[Cat | Dog], lambda ann: [Cat("tom"), {"type": "dog", "name": "rex"}],
                 [{"type": "cat", "name": "tom"}, {"type": "dog", "name": "rex"}], id="Structs of two kinds"),
    pytest.param(Short, lambda ann: ann, [1, "Ann"], id="a Struct that is an array"),
    pytest.param(Card, Card, {"user": NAMED, "note": "none"}, id="a dataclass with a model inside"),
    pytest.param(Entry, lambda ann: {"user": ann}, {"user": NAMED}, id="a typed dict with a model inside"),
    pytest.param(Place, lambda ann: Place(ann, 3), [NAMED, 3], id="a named tuple with a model inside"),
    pytest.param(Any, lambda ann: {"a": [1]}, {"a": [1]}, id="anything that is JSON"),
]  # fmt: skip


@pytest.mark.parametrize("kind, found, answered", CASES)
def test_objects_with_the_fields_are_answered(
    ann: User, kind: Any, found: Callable[..., Any] | type[Any], answered: list[Any] | dict[str, Any] | None
) -> None:
    assert shown(found(ann), kind) == answered


def test_a_struct_with_nothing_to_convert_is_answered_as_it_is() -> None:
    found = Page([Named(1)])

    assert conversion.convert(found, Page[Named]) is found


@pytest.mark.parametrize(
    "kind, found, sentence",
    [
        pytest.param(Named, object(), "object has no attribute 'id', which Named requires.", id="a field is missing"),
        pytest.param(Named, {"id": "x"}, "dict cannot be converted to Named: Expected `int`, got `str` - at `$.id`.",
                     id="a value of another type"),
        pytest.param(Held, Held("k", cast("Any", object())), "object has no attribute 'id', which Named requires.",
                     id="inside a Struct"),
        pytest.param(Cat | Dog, object(), "object matches several of the types Cat, Dog: return one of them.",
                     id="which of two Structs"),
        pytest.param(list[Named], 7, "int cannot be converted to list: Expected `array`, got `int`.", id="no list"),
    ],
)  # fmt: skip
def test_objects_without_the_fields_are_an_error_with_a_sentence(
    kind: Any, found: Any, sentence: str
) -> None:
    with pytest.raises(AnswerError) as refused:
        conversion.convert(found, kind)

    assert str(refused.value) == sentence


class Failing:
    """Attributes that fail, each with a default in the Struct."""

    id = 1

    @property
    def name(self) -> str:
        return self.nothing  # type: ignore[attr-defined]  # the fault

    @property
    def email(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize("names, error", [({"name"}, AttributeError), ({"email"}, ZeroDivisionError)])
def test_an_attribute_that_fails_is_no_default(names: set[str], error: type[Exception]) -> None:
    kind = msgspec.defstruct("Kind", [(name, str, "default") for name in sorted(names)])

    with pytest.raises(error):
        conversion.convert(Failing(), kind)


# ---------------------------------------------------------------------- attributes that are not loaded


async def half_loaded() -> User:
    statement = select(User).options(load_only(User.name)).execution_options(populate_existing=True)
    assert User.scoped_session is not None
    return (await User.scoped_session().execute(statement)).scalar_one()


async def answer_model(request: Request) -> Any:
    return await half_loaded()


async def answer_inside(request: Request) -> Held:
    return Held("k", cast("Any", await half_loaded()))


async def answer_dict(request: Request) -> Any:
    return {"user": await half_loaded()}


async def answer_page(request: Request) -> Any:
    class HalfLoaded(Query[User]):
        async def all(self) -> list[User]:
            return [await half_loaded()]

    query = HalfLoaded(User, None)
    return await page(
        query, path="/x", filters={}, limit=5, cursor=None, keyring=request.app.state.latchkey.keyring
    )


async def answer_relation(request: Request) -> Any:
    return await ApiKey.filter().first()


async def answer_after_write(request: Request) -> Any:
    user = await User.filter().one()
    await user.update(name="Anna", refresh=False)
    return Answer(content=user)


@pytest.fixture
def routes() -> Sequence[Operation]:
    unloaded: list[tuple[Callable[..., Any], Any, dict[str, Any]]] = [
        (answer_model, Named, {}),
        (answer_inside, Held, {}),
        (answer_dict, Held, {}),
        (answer_page, Page[Named], {}),
        (answer_relation, Held, {}),
        (answer_after_write, Stamped, {}),
    ]
    return [
        *(
            route(method, f"/{endpoint.__name__}", endpoint, answers=kind, any_key=True, **options)
            for endpoint, kind, options in unloaded
            for method in ("GET", "POST")
        ),
        *(
            route("PUT", f"/{endpoint.__name__}", endpoint, answers=kind, any_key=True, idempotent=True)
            for endpoint, kind, _ in unloaded
        ),
        route("GET", "/generic", answer_generic, public=True),
        route("GET", "/generic-declared", answer_generic, answers=Page[Named], public=True),
    ]


async def answer_generic() -> Page[Named]:
    """Return a page of a generic Struct."""
    return Page(cast("Any", [await User.filter().one()]), "more")


@pytest.fixture
def errors(log_lines: list[logging.LogRecord]) -> Any:
    return lambda: [one.exc_info[1] for one in log_lines if one.exc_info]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize(
    "name, attribute",
    [
        ("answer_model", "User.email"),
        ("answer_inside", "User.email"),
        ("answer_dict", "User.email"),
        ("answer_page", "User.email"),
        ("answer_relation", "ApiKey.user"),
        ("answer_after_write", "User.updated_at"),
    ],
)
async def test_an_unloaded_attribute_is_an_error_by_name_and_no_default(
    app: Starlette, operator: HeldKey, errors: Any, method: str, name: str, attribute: str
) -> None:
    key = (("idempotency-key", '"abc"'),) if method == "PUT" else ()

    answer = await call(app, method, f"/{name}", key=operator, headers=key)

    assert_problem(answer, 500, "internal_error")
    (error,) = errors()
    assert isinstance(error, NotLoadedError)
    assert attribute in str(error)
    assert await app.state.db.scoped_session().scalar(select(User.name)) == "Operator"
    await app.state.db.scoped_session.remove()


@pytest.mark.parametrize("option", [load_only(User.name), defer(User.email)], ids=["load_only", "deferred"])
async def test_an_unloaded_attribute_is_an_error_in_a_block_too(db: SQLAlchemy, option: Any) -> None:
    await User.create(email="ann@example.com", name="Ann", auto_commit=True)
    async with db.scoped_session() as session:
        user = (await session.execute(select(User).options(option))).scalar_one()
        with pytest.raises(NotLoadedError, match=r"^User\.email is not loaded"):
            conversion.convert(user, Named)

    with pytest.raises(NotLoadedError, match=r"^User\.email is not loaded"):
        conversion.convert([user], list[Named])


@pytest.mark.parametrize("path", ["/generic", "/generic-declared"])
async def test_a_generic_struct_is_answered_and_described(
    app: Starlette, operator: HeldKey, path: str
) -> None:
    answer = await call(app, "GET", path)

    assert (answer.status, answer.json["next_cursor"]) == (200, "more")
    assert [one["email"] for one in answer.json["data"]] == ["operator@example.com"]
    described = json.loads(app.state.latchkey.openapi)["paths"][path]["get"]["responses"]["200"]
    assert described["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Page_Named_"}
    assert "Link" in described["headers"]


# ---------------------------------------------------------------------- refusals at the start


async def nothing() -> None:
    """Return nothing."""


class WithModel(msgspec.Struct):
    user: User


@pytest.mark.parametrize(
    "options, sentence",
    [
        pytest.param({"answers": WithModel}, "cannot be encoded as JSON", id="a model in the type"),
        pytest.param({"answers": Page[User]}, "cannot be encoded as JSON", id="a model in a generic type"),
        pytest.param({"answers": User}, "cannot be encoded as JSON", id="a model"),
        pytest.param({"answers": complex}, "cannot be encoded as JSON", id="no JSON"),
        pytest.param({"answers": Named, "status": 204}, "has no content", id="content where there is none"),
        pytest.param({"answers": Named, "status": 999}, "status=999", id="no status"),
        pytest.param({"answers": Named, "status": 404}, "raise a Problem", id="a problem's status"),
    ],
)
def test_types_that_cannot_be_answered_are_refused_at_the_start(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RouteError, match=sentence):
        route("GET", "/x", nothing, public=True, **options)


@pytest.mark.parametrize("kind", [PlainTextResponse, StreamingResponse, Response])
def test_any_response_is_a_response(kind: type[Any]) -> None:
    assert route("GET", "/x", nothing, public=True, answers=kind).answers is Response


async def test_conversion_in_children_is_the_same(db: SQLAlchemy) -> None:
    user = User(id=1, name="Ann", email="a@b")

    async def child() -> Named:
        return conversion.convert(user, Named)

    assert await asyncio.create_task(child()) == Named(1, "Ann", "a@b")
