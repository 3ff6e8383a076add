"""The description is valid, current and complete, and every example in it works."""

import enum
import gzip
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec import UNSET, UnsetType
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from latchkey.models import ApiKey, User
from latchkey.service import openapi, openapi_components, shapes
from latchkey.service.idempotency.key import read_header
from latchkey.service.methods import DESCRIBED_METHODS
from latchkey.service.operation import Operation, route
from latchkey.service.problems import Problem
from latchkey.service.problems.kinds import KINDS
from latchkey.service.routes import KEY, NEW_GATE_RULE, ROLE, ROUTES, SCOPE, USER
from tests.api import HeldKey, call, hold_key
from tests.service.webhooks.rows import hold_webhook

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT = openapi.document(ROUTES)
OPERATIONS = [
    pytest.param(path, method, id=f"{method.upper()} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
]


# ---------------------------------------------------------------------- a team's own routes


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class OrderQuery(shapes.Input, frozen=True, kw_only=True, rename="camel"):
    item_size: Size
    at_most: shapes.Limit = 10
    status: shapes.KeyStatus | UnsetType = UNSET
    user_id: shapes.Id | None = None


class Order(shapes.Output, frozen=True):
    id: int
    size: Size


Nickname = msgspec.defstruct(
    "User", [("nickname", str)], module="team"
)  # the name of one of Latchkey's endpoints


async def list_orders(query: OrderQuery) -> Response:
    """List orders."""
    return Response(query.item_size.value)


async def create_user(body: Order) -> None:
    """Create a user, under the same name as one of Latchkey's endpoints."""


async def read_order(id: int) -> Order:
    """Read an order."""
    return Order(id=id, size=Size.SMALL)


async def read_nickname(request: Request) -> Nickname:  # type: ignore[valid-type]  # it is made when this runs
    """Read a nickname."""
    return Nickname("ann")


TEAM = (
    route("GET", "/v1/orders", list_orders, any_key=True),
    route("GET", "/v1/orders/{id:int}", read_order, public=True, path_example={"id": "7"}),
    route("POST", "/v1/orders", create_user, scope="orders:write", status=204),
    route("GET", "/v1/nickname", read_nickname, scope="orders:read"),
)


# ---------------------------------------------------------------------- reading the document


def resolved(place: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, if it is one."""
    found: Any = DOCUMENT
    for step in place.get("$ref", "#").split("/")[1:]:
        found = found[step]
    return place if found is DOCUMENT else found


def validate(value: Any, schema: dict[str, Any], document: dict[str, Any] = DOCUMENT) -> None:
    """Check a value against a schema that refers to the document's others, formats included."""
    Draft202012Validator(
        {**schema, "components": document["components"]}, format_checker=Draft202012Validator.FORMAT_CHECKER
    ).validate(value)


def problem_responses(operation: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {int(s): resolved(one) for s, one in operation["responses"].items() if int(s) >= 400}


def codes_of(operation: dict[str, Any], document: dict[str, Any]) -> set[str]:
    names = [one["$ref"].rsplit("/", 1)[1] for one in operation["responses"].values() if "$ref" in one]
    bodies = [document["components"]["responses"][name]["content"] for name in names]
    return {code for body in bodies for code in body["application/problem+json"]["examples"]}


def find_all(name: str, place: Any) -> list[Any]:
    """Collect the values of a name, at any depth."""
    if isinstance(place, list):
        return [found for one in place for found in find_all(name, one)]
    if not isinstance(place, dict):
        return []
    here = [place[name]] if name in place else []
    return here + [found for one in place.values() for found in find_all(name, one)]


# ---------------------------------------------------------------------- valid, current, complete


@pytest.mark.parametrize("operations", [ROUTES, (*ROUTES, *TEAM)], ids=["ours", "with a team's"])
def test_it_is_valid_openapi_3_1(operations: tuple[Operation, ...]) -> None:
    document = openapi.document(operations)

    OpenAPIV31SpecValidator(document).validate()
    for schema in find_all("schema", document) + list(document["components"]["schemas"].values()):
        Draft202012Validator.check_schema(schema)


def test_the_committed_copy_is_the_same() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == openapi.render(DOCUMENT), "run `make openapi`"


def test_every_operation_is_described_and_nothing_else() -> None:
    described = {
        (method.upper(), path, one["operationId"])
        for path, methods in DOCUMENT["paths"].items()
        for method, one in methods.items()
    }

    declared = {(one.method, one.path, one.name) for one in ROUTES if not one.any_request}
    of_any_method = {
        (method, one.path, f"{one.name}_by_{method.lower()}")
        for one in ROUTES
        if one.any_request
        for method in DESCRIBED_METHODS
    }
    assert described == declared | of_any_method


def test_every_operation_says_who_may_call_it() -> None:
    for one in ROUTES:
        described = DOCUMENT["paths"][one.path][one.method.lower()]
        scopes = [one.scope] if one.scope else []
        either = [
            {"bearer": scopes},
            {"signed_query_key": scopes, "signed_query_signature": scopes},
            {"message_signature": scopes, "message_signature_input": scopes},
        ]

        assert described["security"] == ([] if one.public else either)
        assert described.get("x-scope") == one.scope
        assert one.scope is None or f"`{one.scope}`" in described["description"]


async def test_the_served_description_is_the_document(app: Starlette) -> None:
    answer = await call(app, "GET", "/openapi.json")

    assert answer.json == json.loads(COMMITTED.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "accepts, is_compressed",
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0, *", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, identity", False),
        ("x-gzipped", False),
        ("identity", False),
        ("", False),
    ],
)
async def test_it_is_compressed_for_those_who_accept_it(
    app: Starlette, accepts: str, is_compressed: bool
) -> None:
    answer = await call(app, "GET", "/openapi.json", headers=[("Accept-Encoding", accepts)])

    text = gzip.decompress(answer.body) if is_compressed else answer.body
    assert json.loads(text) == DOCUMENT
    assert answer.headers.get("content-encoding") == ("gzip" if is_compressed else None)
    assert answer.headers["vary"].lower() == "accept-encoding"


async def test_a_client_that_holds_it_is_answered_304(app: Starlette) -> None:
    first = await call(app, "GET", "/openapi.json")
    compressed = await call(app, "GET", "/openapi.json", headers=[("Accept-Encoding", "gzip")])
    tags = [first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"]

    again = [await call(app, "GET", "/openapi.json", headers=[("If-None-Match", tag)]) for tag in tags]
    changed = await call(app, "GET", "/openapi.json", headers=[("If-None-Match", compressed.headers["etag"])])

    assert [(one.status, one.body, one.headers["etag"]) for one in again] == [
        (304, b"", first.headers["etag"])
    ] * 3
    assert changed.status == 200


# ---------------------------------------------------------------------- the examples


ASKED_PATHS = {one.path for one in ROUTES if one.any_request}
ASKED_OPERATIONS = [one for one in OPERATIONS if one.values[0] in ASKED_PATHS]
# GitHub signs its reports.
CALLED_OPERATIONS = [one for one in OPERATIONS if one.values[0] not in {*ASKED_PATHS, "/v1/leaks/github"}]


@pytest.fixture
async def caller(app: Starlette) -> HeldKey:
    """Return the key that runs the examples, which is not their subject."""
    async with app.state.db.scoped_session() as session:
        user = await User.create(id=int(USER["id"]), email="bob@example.com", name="Bob")
        await ApiKey.create(
            **dict[str, Any](KEY), user_id=user.id, name="import", mode="signed", scopes=("users:read",)
        )
        await session.commit()
    await hold_webhook(app, 1)
    return await hold_key(app, email="bob@example.com")


@pytest.mark.parametrize("path, method", CALLED_OPERATIONS)
async def test_every_example_works(app: Starlette, caller: HeldKey, path: str, method: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    target = path.format(**{one["name"]: one.get("example") for one in operation["parameters"]})
    body = operation.get("requestBody", {"content": {"application/json": {"example": None}}})
    (status, declared), *others = ((s, one) for s, one in operation["responses"].items() if s < "400")
    # A key cannot delete its own owner, unless it is forced.
    key = await hold_key(app) if path == "/v1/users/{id}" else caller
    await call(app, "POST", "/v1/scopes", key=caller, body=SCOPE)
    await call(app, "POST", "/v1/roles", key=caller, body={**ROLE, "scopes": []})
    if path.startswith("/v1/gate/rules") and method != "post":
        await call(app, "POST", "/v1/gate/rules", key=caller, body={"rule": NEW_GATE_RULE})
    if path.endswith("/credits"):
        changed = {"credits": {"remaining": 5}}
        await call(app, "PATCH", target.removesuffix("/credits"), key=caller, body=changed)

    answer = await call(
        app, method.upper(), target, key=key, body=body["content"]["application/json"]["example"]
    )

    assert (str(answer.status), others) == (status, []), answer.body
    assert ("location" in answer.headers) is ("Location" in declared["headers"])
    assert "x-request-id" in answer.headers
    if "content" not in declared:
        assert answer.body == b""
        return
    (kind, content), *further = declared["content"].items()
    pages = [one for one in further if one != ("text/csv", {"schema": {"type": "string"}})]
    assert pages == ([("text/html", {})] if answer.headers.get("vary") == "accept" else [])
    assert kind in (answer.headers["content-type"], "*/*")
    if kind.startswith("text/plain"):
        assert (answer.body.decode().startswith("# HELP "), content) == (True, {})
    else:
        validate(answer.json, content.get("schema", {}))


@pytest.mark.parametrize("path, method", OPERATIONS)
def test_every_example_fits_its_schema(path: str, method: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    body = operation.get("requestBody", {"content": {}})

    for parameter in operation["parameters"]:
        assert not parameter["required"] or "example" in parameter
        for value in find_all("example", parameter) + find_all("default", parameter):
            validate(value, parameter["schema"])
    for content in body["content"].values():
        validate(content["example"], content["schema"])


async def test_a_list_that_goes_on_links_as_described(app: Starlette, caller: HeldKey) -> None:
    described = DOCUMENT["paths"]["/v1/users"]["get"]["responses"]["200"]["headers"]

    answer = await call(app, "GET", "/v1/users?limit=1", key=await hold_key(app))

    assert {"x-request-id", "link"} <= answer.headers.keys()
    assert described.keys() == {"X-Request-ID", "RateLimit-Policy", "RateLimit", "Link"}


# ---------------------------------------------------------------------- the problems


RETURNED = sorted(set().union(*(openapi.problem_codes(one) for one in ROUTES)))


@pytest.mark.parametrize("code", RETURNED)
def test_every_problem_that_an_operation_returns_has_an_example(code: str) -> None:
    example = DOCUMENT["components"]["examples"][code]["value"]

    validate(example, {"$ref": "#/components/schemas/Problem"})
    assert (example["code"], example["status"]) == (code, KINDS[code].status)
    assert example["type"] == f"/problems/{code}"


@pytest.mark.parametrize("path, method", OPERATIONS)
def test_problems_stand_under_their_status(path: str, method: str) -> None:
    for status, response in problem_responses(DOCUMENT["paths"][path][method]).items():
        content = response["content"]["application/problem+json"]
        for code, example in content["examples"].items():
            assert KINDS[code].status == status
            validate(resolved(example)["value"], content["schema"])
        challenged = status == 401 or "scope_missing" in response["description"]
        assert ("WWW-Authenticate" in response["headers"]) is challenged
        waits = status in {402, 429, 503} or "idempotency_in_progress" in content["examples"]
        assert ("Retry-After" in response["headers"]) is waits


PRIVATE_OPERATIONS = [
    one for one in OPERATIONS if DOCUMENT["paths"][one.values[0]][one.values[1]]["security"]
]


@pytest.mark.parametrize("path, method", PRIVATE_OPERATIONS)
async def test_a_call_without_a_key_is_answered_as_described(app: Starlette, path: str, method: str) -> None:
    await assert_answers_as_described(app, path, method, 401, query="")


@pytest.mark.parametrize("path, method", ASKED_OPERATIONS)
async def test_a_question_of_a_stranger_is_answered_as_described(
    app: Starlette, caller: HeldKey, path: str, method: str
) -> None:
    answer = await call(app, method.upper(), f"{path}?colour=red", key=caller)

    described = problem_responses(DOCUMENT["paths"][path][method])[403]
    assert (answer.status, answer.json["code"]) == (403, "gate_caller_refused")
    assert "`gate_caller_refused`" in described["description"]
    validate(answer.json, described["content"]["application/problem+json"]["schema"])


@pytest.mark.parametrize("path, method", CALLED_OPERATIONS)
async def test_an_unknown_parameter_is_answered_as_described(
    app: Starlette, caller: HeldKey, path: str, method: str
) -> None:
    await assert_answers_as_described(app, path, method, 400, query="?colour=red", key=caller)


async def assert_answers_as_described(
    app: Starlette, path: str, method: str, status: int, *, query: str, key: HeldKey | None = None
) -> None:
    operation = DOCUMENT["paths"][path][method]
    target = path.format(**{one["name"]: one.get("example") for one in operation["parameters"]})

    answer = await call(app, method.upper(), target + query, key=key)

    described = problem_responses(operation)[status]
    assert answer.status == status
    assert {name.lower() for name in described["headers"]} <= answer.headers.keys()
    validate(answer.json, described["content"]["application/problem+json"]["schema"])


ALWAYS = {"internal_error", "unavailable", "invalid_parameter"}
PRIVATE = {"two_credentials", "unauthenticated", "key_revoked", "key_expired", "owner_inactive"}
PRIVATE |= {"network_not_allowed", "too_many_failures", "digest_mismatch", "replayed"}
UNSAFE = {
    "body_timeout",
    "conflict",
    "changed_meanwhile",
    "invalid_value",
    "commit_unknown",
    "invalid_idempotency_key",
}
ONCE = {"idempotency_in_progress", "idempotency_mismatch", "too_many_stored_answers"}
CHARGED = {"rate_limited", "quota_exceeded", "credits_used_up"}
PRIVATE |= CHARGED
BODY = {"malformed_json", "unsupported_media_type", "invalid_body", "body_too_large"}


async def read_nothing() -> None:
    """Read nothing."""


async def write_order(body: Order) -> None:
    """Write an order."""


@pytest.mark.parametrize(
    "operation, codes",
    [
        (route("GET", "/v1/x", read_nothing, public=True), ALWAYS),
        (route("GET", "/v1/x/{id}", read_order, public=True), ALWAYS | {"not_found"}),
        (route("GET", "/v1/x", read_nothing, any_key=True), ALWAYS | PRIVATE),
        (route("GET", "/v1/x", read_nothing, optional_key=True), ALWAYS | PRIVATE),
        (route("GET", "/v1/x", read_nothing, any_key=True, cost=0), ALWAYS | PRIVATE - CHARGED),
        (route("GET", "/v1/x", read_nothing, any_key=True, cost=2), ALWAYS | PRIVATE | {"cost_above_limit"}),
        (route("GET", "/v1/x", read_nothing, scope="x:read"), ALWAYS | PRIVATE | {"scope_missing"}),
        (route("DELETE", "/v1/x", read_nothing, public=True), ALWAYS | UNSAFE),
        (route("DELETE", "/v1/x", read_nothing, any_key=True), ALWAYS | PRIVATE | UNSAFE | {"coverage_required"}),
        (route("DELETE", "/v1/x", read_nothing, any_key=True, idempotent=True),
         ALWAYS | PRIVATE | UNSAFE | ONCE | {"coverage_required"}),
        (route("PUT", "/v1/x", write_order, public=True), ALWAYS | UNSAFE | BODY),
        (route("GET", "/v1/x", read_nothing, public=True, problems=("email_taken",)), ALWAYS | {"email_taken"}),
    ],
    ids=["public", "a name in the path", "any key", "a key or none", "free", "dear", "a scope", "unsafe", "unsafe, private", "once",
         "a body", "its own"],
)  # fmt: skip
def test_problems_follow_from_what_an_operation_is(operation: Operation, codes: set[str]) -> None:
    document = openapi.document([operation])
    described = document["paths"][operation.path][operation.method.lower()]

    assert codes_of(described, document) == codes


# ---------------------------------------------------------------------- the schemas


def test_an_answer_is_complete() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    answers = [one.answers for one in ROUTES if one.answers not in (None, Response)]

    assert answers
    structs = (part for one in (*answers, shapes.Key) for part in get_args(one) or (one,))
    for schema in (schemas[one.__name__] for one in structs):
        assert schema["required"] == list(schema["properties"])


def test_moments_and_ids_say_their_format() -> None:
    key = DOCUMENT["components"]["schemas"]["Key"]["properties"]

    moment = {"type": "string", "format": "date-time"}
    assert key["created_at"] == moment
    assert key["expires_at"] == key["last_used_at"] == {"anyOf": [moment, {"type": "null"}]}
    assert key["user_id"]["format"] == "int64"


def test_null_is_never_only_where_a_change_says_so() -> None:
    schemas = DOCUMENT["components"]["schemas"]

    validate({"expires_at": None}, schemas["KeyChange"])
    validate({}, schemas["KeyChange"])
    assert "expires_at" not in schemas["NewKey"]["required"]
    assert "default" not in schemas["KeyChange"]["properties"]["expires_at"]
    assert not Draft202012Validator(schemas["KeyChange"]).is_valid({"name": None})
    assert not Draft202012Validator(schemas["KeyChange"]).is_valid({"colour": "red"})


def test_all_problems_have_one_type() -> None:
    """A generated client has one class for them, not one for each status."""
    schemas = [
        one["content"]["application/problem+json"]["schema"]
        for one in DOCUMENT["components"]["responses"].values()
    ]

    assert {json.dumps(one) for one in schemas} == {'{"$ref": "#/components/schemas/Problem"}'}


def test_a_field_with_a_default_may_be_absent() -> None:
    """Generators of TypeScript take a property with a default for one that is always there."""
    schemas = DOCUMENT["components"]["schemas"]

    assert find_all("default", list(schemas.values())) == []
    networks = schemas["NewKey"]["properties"]["allowed_networks"]
    assert networks["description"].endswith("empty means anywhere. Default: `[]`.")
    assert "allowed_networks" not in schemas["NewKey"]["required"]


@pytest.mark.parametrize(
    "text",
    [
        '"8e03978e"', "8e03978e", '"a b"', r'"a \" b \\"', "a b", '"', '""', "", '"a', 'a"b', "a,b", "a;b", "a:b", "ä", "a\n",
        "a" * 255, "a" * 256, f'"{"a" * 255}"', f'"{"a" * 256}"', '"' + r"\\" * 255 + '"', r'"\a"',
    ],
)  # fmt: skip
def test_the_pattern_of_idempotency_keys_is_what_is_accepted(text: str) -> None:
    pattern = openapi_components.IDEMPOTENCY_KEY["schema"]["pattern"]
    try:
        is_accepted = read_header([(b"idempotency-key", text.encode("latin-1"))]) is not None
    except Problem:
        is_accepted = False

    assert bool(re.search(pattern, text)) is is_accepted


def test_every_tag_has_a_description() -> None:
    tags = openapi.document([*ROUTES, *TEAM])["tags"]

    assert {one["name"] for one in tags} >= {*openapi_components.TAGS, "orders"}
    assert all(one["description"].endswith(".") for one in tags)


def test_the_query_says_its_bounds_its_default_and_its_values() -> None:
    parameters = DOCUMENT["paths"]["/v1/keys"]["get"]["parameters"]
    limit, cursor, status, role, environment, expires_before, user_id, external_id = parameters

    assert (limit["name"], limit["in"], limit["required"]) == ("limit", "query", False)
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
    assert (cursor["name"], cursor["schema"]) == ("cursor", {"type": "string"})
    assert (user_id["name"], user_id["schema"]["maximum"]) == ("user_id", 2**63 - 1)
    assert (external_id["name"], external_id["schema"]["maxLength"]) == ("external_id", 255)
    assert (role["name"], role["schema"]["maxLength"]) == ("role", 40)
    assert (environment["name"], environment["schema"]["maxLength"]) == ("environment", 16)
    assert (expires_before["name"], expires_before["schema"]) == (
        "expires_before",
        {"type": "string", "format": "date-time"},
    )
    assert (status["name"], status["schema"]) == ("status", {"$ref": "#/components/schemas/KeyStatus"})
    assert resolved(status["schema"])["enum"] == ["active", "revoked"]


def test_no_type_without_a_name_is_described_twice() -> None:
    """A generator makes a class for each description of an enumeration or of an open object."""
    found: Counter[str] = Counter()

    def count(place: Any) -> None:
        for one in place.values() if isinstance(place, dict) else place if isinstance(place, list) else ():
            if isinstance(one, dict) and ("enum" in one or one.get("type") == "object"):
                found[json.dumps({**one, "description": "", "default": ""}, sort_keys=True)] += 1
            count(one)

    for schema in DOCUMENT["components"]["schemas"].values():
        count(schema)
    for path, method in (one.values for one in OPERATIONS):
        count([one["schema"] for one in DOCUMENT["paths"][path][method]["parameters"]])

    assert [one for one, times in found.items() if times > 1] == []


def test_an_object_says_that_it_may_have_any_property() -> None:
    """Without it `openapi-typescript` makes a type without properties."""
    assert DOCUMENT["components"]["schemas"]["JsonObject"]["additionalProperties"] is True
    assert DOCUMENT["components"]["schemas"]["Key"]["properties"]["meta"] == {
        "$ref": "#/components/schemas/JsonObject"
    }


def test_a_type_of_a_team_keeps_its_name() -> None:
    """Latchkey's own description of a type with this name stays where it is used."""
    made = msgspec.defstruct("KeyStatus", [("light", str)], module="team")

    async def read_light(query: OrderQuery) -> made:  # type: ignore[valid-type]  # it is made when this runs
        """Read a light."""
        return made("green")

    team = openapi.document([route("GET", "/v1/light", read_light, public=True)])
    (status,) = (one for one in team["paths"]["/v1/light"]["get"]["parameters"] if one["name"] == "status")

    assert list(team["components"]["schemas"]["KeyStatus"]["properties"]) == ["light"]
    assert status["schema"] == {"type": "string", "enum": ["active", "revoked"]}


# Features that ECMA-262 does not have, or interprets differently than Python.
ONLY_PYTHON = re.compile(r"\\[AZz]|\(\?(?:[aiLmsux-]+[:)]|P|>|#|\()|[*+?}]\+|\\U|\\N|\[:")


def test_patterns_mean_the_same_to_clients() -> None:
    patterns = set(find_all("pattern", DOCUMENT))

    email: Any = shapes.Email
    assert email.__metadata__[0].pattern in patterns
    assert [one for one in patterns if ONLY_PYTHON.search(one)] == []


def test_no_address_passes_here_that_a_client_refuses() -> None:
    (pattern,) = (
        one for one in find_all("pattern", DOCUMENT["components"]["schemas"]["NewUser"]) if "@" in one
    )
    white_to_ecma = "\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff"

    assert re.search(pattern, "ann@example.com")
    assert [one for one in white_to_ecma if re.search(pattern, f"an{one}n@example.com")] == []


# ---------------------------------------------------------------------- a team's own


class TestATeamsRoutes:
    @pytest.fixture
    def routes(self) -> Sequence[Operation]:
        return TEAM

    async def test_they_are_served_beside_ours(self, app: Starlette) -> None:
        document = (await call(app, "GET", "/openapi.json")).json

        assert document["paths"].keys() - DOCUMENT["paths"].keys() == {
            "/v1/orders",
            "/v1/orders/{id}",
            "/v1/nickname",
        }
        assert document == json.loads(openapi.render(openapi.document((*ROUTES, *TEAM))))

    def test_an_endpoint_of_the_same_name_gets_an_id_of_its_own(self) -> None:
        paths = openapi.document((*ROUTES, *TEAM))["paths"]

        assert paths["/v1/users"]["post"]["operationId"] == "create_user"
        assert paths["/v1/orders"]["post"]["operationId"] == "create_user_2"

    def test_a_class_of_the_same_name_gets_a_schema_of_its_own(self) -> None:
        document = openapi.document((*ROUTES, *TEAM))
        answers = [
            document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            for path in ("/v1/nickname", "/v1/users/{id}")
        ]

        validate({"nickname": "ann"}, answers[0], document)
        assert answers[0] != answers[1]

    def test_the_names_in_a_query_are_those_on_the_wire(self) -> None:
        parameters = openapi.document(TEAM)["paths"]["/v1/orders"]["get"]["parameters"]

        assert [(one["name"], one["required"]) for one in parameters] == [
            ("itemSize", True),
            ("atMost", False),
            ("status", False),
            ("userId", False),
        ]
        assert parameters[1]["schema"]["default"] == 10
        assert [one for one in parameters[1:] if "null" in str(one)] == []

    @pytest.mark.parametrize(
        ("path", "tag", "expected"),
        [
            ("/v2/orders/{id}", None, "orders"),
            ("/articles/{slug}", None, "articles"),
            ("/{slug}", None, "service"),
            ("/articles/{slug}", "reading", "reading"),
        ],
    )
    def test_a_path_has_the_tag_of_its_first_word(self, path: str, tag: str | None, expected: str) -> None:
        async def read_id(id: str) -> None: ...

        async def read_slug(slug: str) -> None: ...

        endpoint = read_id if "{id}" in path else read_slug
        described = openapi.document([*TEAM, route("GET", path, endpoint, public=True, tag=tag)])

        assert described["paths"][path]["get"]["tags"] == [expected]
        assert expected in [one["name"] for one in described["tags"]]

    def test_an_answer_of_its_own_making_is_of_any_type(self) -> None:
        described = openapi.document(TEAM)["paths"]["/v1/orders"]["get"]

        assert described["responses"]["200"]["content"] == {"*/*": {}}
        assert described["tags"] == ["orders"]
