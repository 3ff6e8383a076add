"""The declaration of a route, and the declarations that the service refuses at the start."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from latchkey.models import User
from latchkey.service import shapes
from latchkey.service.app import create_app
from latchkey.service.operation import Answer, Operation, RouteError, route
from latchkey.service.routes import ROUTES, declared_scopes
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import KEYRING


class Greeting(msgspec.Struct):
    """The answer of a team's own endpoint."""

    text: str


class Reserved(msgspec.Struct):
    """A query with a name that belongs to signed queries."""

    nonce: str


class Renamed(msgspec.Struct, rename={"size": "page-size"}):
    """A query whose parameter has another name than its field."""

    size: int = 1


async def greet(request: Request) -> Greeting:
    """Greet."""
    return Greeting("hello")


async def greet_by_name(name: str, times: Annotated[int, msgspec.Meta(ge=1, le=9)]) -> Greeting:
    """Greet by name."""
    return Greeting(" ".join([name] * times))


async def greet_name(name: str) -> Greeting:
    """Greet once."""
    return Greeting(name)


async def measure(query: Renamed) -> Greeting:
    """Read a query whose name is not a Python name."""
    return Greeting(str(query.size))


async def take_body(body: Greeting) -> Greeting:
    """Return the body."""
    return body


async def show(id: int) -> Response:
    """Return a response object."""
    return PlainTextResponse(str(id))


async def show_user(id: shapes.PathId) -> User | None:
    """Return a model, which is answered as the Struct of the route."""
    return await User.get(int(id))


def greet_in_a_thread(request: Request) -> Greeting:
    return Greeting("hello")


async def take_more(request: Request, session: object, db: object) -> Greeting:
    return Greeting("hello")


async def take_reserved(query: Reserved) -> Greeting:
    return Greeting(query.nonce)


async def take_a_mapping(query: dict[str, str]) -> Greeting:
    return Greeting(query["name"])


class Cost(msgspec.Struct):
    """A body."""

    units: int


class Bound(msgspec.Struct):
    """A body with a bound that msgspec does not have."""

    price: Annotated[Decimal, msgspec.Meta(ge=0)]


async def take_a_bound_decimal(body: Bound) -> Greeting:
    return Greeting(str(body.price))


async def take_a_struct_in_the_path(id: Cost) -> Greeting:
    return Greeting(str(id.units))


async def take_a_cost(body: Cost) -> Greeting:
    return Greeting(str(body.units))


async def take_untyped(body) -> Greeting:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the case
    return Greeting(body)


async def say_nothing(request: Request):  # type: ignore[no-untyped-def]  # noqa: ANN201 - the case
    return Greeting("hello")


async def say_something(request: Request) -> str:
    return "hello"


async def say_an_answer(request: Request) -> Answer:
    return Answer(content=None)


async def say_many(request: Request) -> list[Greeting]:
    return [Greeting("hello")]


async def say_by_name(request: Request) -> dict[str, list[Greeting]]:
    return {"ann": [Greeting("hello")]}


async def say_rows(request: Request) -> list[User]:
    return list(await User.filter().all())


@pytest.mark.parametrize(
    "endpoint, answers",
    [(say_many, list[Greeting]), (say_by_name, dict[str, list[Greeting]])],
    ids=["a list", "a dict of lists"],
)
def test_a_collection_of_structs_is_declared_by_the_return_type(endpoint: Any, answers: Any) -> None:
    assert route("GET", "/x", endpoint, public=True).answers == answers


METHODS = "the method must be one of DELETE, GET, PATCH, POST, PUT."
COST = "cost must be 0 or more units, and a public route has none."
ONLY = "but it can only take request, caller, body, query, a Struct with the query parameters, and the parameters of the path."
ONE_OF = "set exactly one of scope=, any_key=True, optional_key=True and public=True."


@pytest.mark.parametrize(
    "arguments, options, sentence",
    [
        pytest.param(("GET", "/x", greet), {}, ONE_OF, id="no scope"),
        pytest.param(("GET", "/x", greet), {"scope": "a:b", "public": True}, ONE_OF, id="a scope and public"),
        pytest.param(("GET", "/x", greet), {"any_key": True, "public": True}, ONE_OF, id="any key and public"),
        pytest.param(("GET", "/x", greet), {"scope": "ab"}, "the scope 'ab' is not of the form noun:verb.",
                     id="a scope of another form"),
        pytest.param(("GET", "/x", greet), {"scope": "a:b\n"}, r"the scope 'a:b\n' is not of the form noun:verb.",
                     id="a scope with a newline"),
        pytest.param(("GET", "/x", greet), {"scope": ""}, "the scope '' is not of the form noun:verb.",
                     id="an empty scope"),
        pytest.param(("HEAD", "/x", greet), {"public": True}, METHODS, id="HEAD, which GET brings along"),
        pytest.param(("get", "/x", greet), {"public": True}, METHODS, id="a method in lower case"),
        pytest.param(("GET", "/x", greet_in_a_thread), {"public": True},
                     "'greet_in_a_thread' is not `async def`; "
                     "any other function would run in a thread or a task without the request's session.",
                     id="not async"),
        pytest.param(("GET", "/x", take_more), {"public": True},
                     f"the endpoint takes db, session, {ONLY}", id="unknown arguments"),
        pytest.param(("GET", "/x", greet_by_name), {"public": True},
                     f"the endpoint takes name, times, {ONLY}", id="names that are not in the path"),
        pytest.param(("GET", "/x/{id}/{place}", show), {"public": True},
                     "the endpoint does not take place, which is in its path.", id="a name only in the path"),
        pytest.param(("GET", "/x", take_a_mapping), {"public": True},
                     "the endpoint's query is dict[str, str]; declare a Struct with the query parameters.",
                     id="a query that is no Struct"),
        pytest.param(("GET", "/x", take_reserved), {"public": True}, "nonce is reserved for signed queries.",
                     id="a reserved name in the query"),
        pytest.param(("POST", "/x", take_untyped), {"public": True},
                     "the endpoint's body has no type.", id="a body of no type"),
        pytest.param(("GET", "/x", say_nothing), {"public": True},
                     "the response is not declared: set the endpoint's return type or answers=.",
                     id="no return type"),
        pytest.param(("GET", "/x", say_something), {"public": True},
                     "the endpoint returns <class 'str'>; declare the Struct of the response with answers=.",
                     id="a return type that is no Struct"),
        pytest.param(("GET", "/x", say_rows), {"public": True},
                     "the endpoint returns list[latchkey.models.user.User]; declare the Struct of the response with answers=.",
                     id="a list of rows"),
        pytest.param(("GET", "/x", say_an_answer), {"public": True},
                     "the endpoint returns <class 'latchkey.service.operation.Answer'>; "
                     "declare the Struct of the response with answers=.", id="an Answer alone"),
        pytest.param(("GET", "x", greet), {"public": True}, "the path must begin with a slash.", id="no slash"),
        pytest.param(("GET", "/x", greet), {"public": True, "problems": "not_found"},
                     "problems='not_found' is one text; declare a tuple, ('not_found',).", id="one problem as a text"),
        pytest.param(("POST", "/x", take_a_bound_decimal), {"public": True},
                     "the type of body cannot be decoded: Can only set `ge` on a numeric type - type "
                     "`typing.Annotated[decimal.Decimal, msgspec.Meta(ge=0)]` is invalid.",
                     id="a body that cannot be decoded"),
        pytest.param(("GET", "/x/{id}", take_a_struct_in_the_path), {"public": True},
                     "id is in the path, so its type cannot be the Struct Cost.", id="a Struct in the path"),
        pytest.param(("POST", "/x", take_a_cost), {"public": True, "example": {"units": "many"}},
                     "the example is no valid body: Expected `int`, got `str` - at `$.units`.", id="a wrong example"),
        pytest.param(("POST", "/x", greet), {"public": True, "example": {"units": 1}},
                     "it has an example of a body, and the endpoint takes no body.", id="an example without a body"),
        pytest.param(("GET", "/x", greet), {"any_key": True, "cost": -1}, COST, id="a cost below 0"),
        pytest.param(("GET", "/x", greet), {"public": True, "cost": 2}, COST, id="a cost that nobody pays"),
    ],
)  # fmt: skip
def test_a_route_that_cannot_work_is_refused_with_a_sentence(
    arguments: tuple[str, str, Callable[..., Any]], options: dict[str, Any], sentence: str
) -> None:
    method, path, _ = arguments

    with pytest.raises(RouteError) as refused:
        route(*arguments, **options)

    assert str(refused.value) == f"{method} {path}: {sentence}"


GREETING = route("GET", "/x", greet, public=True)
TWICE = [
    pytest.param((GREETING, GREETING), "GET /x", id="the same"),
    pytest.param((route("GET", "/v1/me", greet, public=True),), "GET /v1/me", id="as one of ours"),
    pytest.param((route("GET", "/v1/users/{name}", greet_name, public=True),), "GET /v1/users/{name}",
                 id="as one of ours, otherwise named"),
]  # fmt: skip


@pytest.mark.parametrize("routes, place", TWICE)
def test_two_routes_in_one_place_are_refused(
    routes: tuple[Operation, ...], place: str, loggers: None
) -> None:
    with pytest.raises(RouteError) as refused:
        create_app(Settings(keyring=KEYRING), routes=routes)

    assert str(refused.value) == f"{place} is declared twice."


@pytest.mark.parametrize("thing", [greet, ("GET", "/x"), None])
def test_objects_that_are_no_operation_are_refused(thing: Any, loggers: None) -> None:
    with pytest.raises(
        RouteError,
        match=r"was not created by `latchkey.service.operation.route`, so its callers are not declared",
    ):
        create_app(Settings(keyring=KEYRING), routes=[thing])


def noun_of(operation: Operation) -> str:
    """Return the noun of a path: `/v1/me/keys/{access_key}` is `me.keys`."""
    return operation.path.removeprefix("/v1/").partition("/{")[0].strip("/").replace("/", ".")


def test_every_route_of_ours_says_who_may_call_it() -> None:
    public = {one.path for one in ROUTES if one.public and not one.any_request}
    asked = {one.path for one in ROUTES if one.any_request}
    any_key = {one.path for one in ROUTES if one.scope is None and not one.public}

    assert public == {
        "/",
        "/healthz",
        "/livez",
        "/readyz",
        "/openapi.json",
        "/problems/{code}",
        "/v1/leaks/github",
    }
    assert any_key == {"/v1/me"}
    assert asked == {"/v1/gate", "/v1/gate/nginx", "/v1/gate/envoy"}
    assert declared_scopes(ROUTES) == {
        *(
            f"{noun}:{verb}"
            for noun in ("users", "keys", "me.keys", "scopes", "roles", "gate.rules", "webhooks")
            for verb in ("read", "write")
        ),
        "audit:read",
        "keys:import",
        "keys:verify",
        "leaks:write",
        "me.keys:verify",
        "me.usage:read",
        "metrics:read",
    }
    explaining = {one.scope for one in ROUTES if one.path == "/v1/signatures/explain"}
    assert explaining == {"keys:read"}  # it reads keys, and changes none
    assert all(
        one.scope == f"{noun_of(one)}:{'read' if one.method == 'GET' else 'write'}"
        for one in ROUTES
        if one.scope is not None
        and not noun_of(one).endswith((".explain", ".import", ".verify", ".verify-batch"))
    )


def test_a_route_with_a_parameter_lists_not_found_once() -> None:
    """A value in the path that no row can have is answered with 404 before the endpoint runs."""
    listed = [
        route("GET", "/v1/greetings/{name}", greet_name, public=True, problems=problems).problems
        for problems in ((), ("title_taken",), ("not_found", "title_taken"))
    ]

    assert listed == [("not_found",), ("title_taken", "not_found"), ("not_found", "title_taken")]
    assert route("GET", "/v1/greetings", greet, public=True).problems == ()


def test_an_operation_describes_itself_by_its_docstring() -> None:
    (made,) = (one for one in ROUTES if one.name == "create_user")

    assert isinstance(made, Operation)
    assert made.summary == "Create a user."
    assert made.description == "The email is stored as given and must be unique, regardless of letter case."
    assert (made.safe, made.status, made.body) == (False, 201, shapes.NewUser)


# ---------------------------------------------------------------------- a team's own routes, through the same middleware

SCOPES = tuple(f"things:verb{n}" for n in range(96))


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("GET", "/v1/greeting", greet, scope="greetings:read"),
        route("GET", "/greetings/{name}/{times}", greet_by_name, public=True),
        route("GET", "/measure", measure, public=True),
        route("POST", "/echo", take_body, public=True, retry=False),
        route("GET", "/show/{id:int}", show, public=True),
        route("GET", "/users/{id}", show_user, public=True, answers=shapes.User),
        *(route("GET", f"/{scope}", greet, scope=scope) for scope in SCOPES),
    )


async def test_a_teams_own_route_asks_for_its_scope(app: Starlette, operator: HeldKey) -> None:
    modest = await hold_key(app, scopes=["users:read"])

    allowed = await call(app, "GET", "/v1/greeting", key=operator)
    refused = await call(app, "GET", "/v1/greeting", key=modest)

    assert (allowed.status, allowed.json) == (200, {"text": "hello"})
    assert_problem(refused, 403, "scope_missing")
    assert "greetings:read" in refused.json["detail"]


async def test_a_teams_scope_can_be_given_to_a_key_up_to_100(app: Starlette, operator: HeldKey) -> None:
    scopes = ["greetings:read", "users:read", "users:write", "keys:read", *SCOPES]
    body = {"user_id": operator.user_id, "name": "n", "mode": "bearer", "scopes": scopes}

    answer = await call(app, "POST", "/v1/keys", key=operator, body=body)

    assert (answer.status, answer.json["scopes"]) == (201, scopes)
    assert len(scopes) == 100


@pytest.mark.parametrize(
    "target, answered",
    [
        pytest.param("/greetings/ann/2", {"text": "ann ann"}, id="names in the path, each with its type"),
        pytest.param("/greetings/%C3%A9%20/1", {"text": "é "}, id="a name with escapes"),
        pytest.param("/measure?page-size=7", {"text": "7"}, id="a parameter called otherwise"),
        pytest.param("/measure", {"text": "1"}, id="a parameter left out"),
    ],
)
async def test_an_endpoint_gets_what_its_signature_asks_for(
    app: Starlette, target: str, answered: dict[str, str]
) -> None:
    answer = await call(app, "GET", target)

    assert (answer.status, answer.json) == (200, answered)


@pytest.mark.parametrize(
    "target, status, code",
    [
        pytest.param("/greetings/ann/0", 404, "not_found", id="a name in the path out of its bounds"),
        pytest.param("/greetings/ann/x", 404, "not_found", id="a name in the path of another type"),
        pytest.param("/measure?size=7", 400, "invalid_parameter", id="a parameter by its field's name"),
        pytest.param(
            "/measure?page-size=1e0", 400, "invalid_parameter", id="a parameter not in its plain form"
        ),
    ],
)
async def test_input_that_does_not_fit_the_signature_is_a_problem(
    app: Starlette, target: str, status: int, code: str
) -> None:
    assert_problem(await call(app, "GET", target), status, code)


async def test_a_response_is_sent_as_it_is(app: Starlette) -> None:
    answer = await call(app, "GET", "/show/7")

    assert (answer.status, answer.body, answer.headers["content-type"]) == (
        200,
        b"7",
        "text/plain; charset=utf-8",
    )


async def test_a_model_is_answered_as_the_declared_struct(app: Starlette, operator: HeldKey) -> None:
    answer = await call(app, "GET", f"/users/{operator.user_id}")

    assert answer.status == 200
    assert list(answer.json) == list(shapes.User.__struct_fields__)


async def test_a_body_is_answered_back(app: Starlette) -> None:
    assert (await call(app, "POST", "/echo", body={"text": "ö"})).json == {"text": "ö"}
