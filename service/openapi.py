"""The OpenAPI 3.1 description, made from the routes, the shapes and the list of problems.

`document(operations)` makes it, a team's own routes included, once for an application; `render` gives the
text of `docs/openapi.json`. Bounds come from the types, prose from the docstrings, problems from their list.
"""

import inspect
import json
import re
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.responses import Response

from latchkey import service
from latchkey.service import problems
from latchkey.service.operation import Operation
from latchkey.service.problems import FieldError, known

Json = dict[str, Any]

ABOUT = """\
Users, the API keys they hold, and the calls that partners make with those keys.

- Wherever there is GET there is HEAD, which answers the same headers without a body and is signed as HEAD.
- Every error is a problem (RFC 9457), and `GET /problems/{code}` explains each code.
- A path that is not there answers `not_found`, a method that a path does not take `method_not_allowed`.
- A parameter that an operation does not take is refused, never ignored.
- Times are RFC 3339 in UTC.
- A call with a secret that a rotation has replaced is answered with `Deprecation` (RFC 9745), which is when, and
  `Sunset` (RFC 8594), which is until when the old secret still works.
- A call of a key that is limited, or whose owner is, is answered with `RateLimit-Policy` and `RateLimit`
  (draft-ietf-httpapi-ratelimit-headers-10), whoever answers it."""

INFO = {"title": "Latchkey", "description": ABOUT, "license": {"name": "MIT", "identifier": "MIT"}}

BEARER = "The whole secret of a key of the mode `bearer`."
SIGNED_KEY = """\
The public id of a key of the mode `signed`, in a query that is signed in the header `secret`.

Beside `key` the query carries `timestamp`, in unix seconds and at most a minute off unless the operator says
otherwise. Four more parameters bind what lies outside the query: `method`, as sent, in upper case; `path`, as sent,
with its percent escapes encoded once more; `content_sha256`, the SHA-256 of the body in 64 lower-case hex digits;
`nonce`, 16 to 64 of `[A-Za-z0-9_-]`. Methods other than GET and HEAD need `method`, `path` and, with a body,
`content_sha256`. Each name stands at most once, and no operation has parameters of its own by these names."""
SIGNATURE = """\
The signature of a query that has the parameter `key`: the base64 of the HMAC-SHA256 of the query string as sent,
without the question mark, under the UTF-8 of the key's whole secret. The secret itself is never sent."""

SECURITY_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": BEARER},
    "signed_query_key": {"type": "apiKey", "in": "query", "name": "key", "description": SIGNED_KEY},
    "signed_query_signature": {"type": "apiKey", "in": "header", "name": "secret", "description": SIGNATURE},
}

IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "With it the call has one effect, however often it is sent within 24 hours "
    "(draft-ietf-httpapi-idempotency-key-header-07). It is a string in quotes, or the same text without them.",
    "schema": {"type": "string", "minLength": 1},
    "example": '"8e03978e-40d5-43e8-bc93-6894a57f9324"',
}

HEADERS: Json = {
    "X-Request-ID": {
        "description": "The id of this request: the one that the client sent, if it has this form, otherwise a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Location": {"description": "Where the new row can be read.", "schema": {"type": "string"}},
    "Link": {
        "description": 'The next page, if any, as `rel="next"` (RFC 8288).',
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "`true` when the effect was there before: this is the stored answer once more.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "RateLimit-Policy": {
        "description": "To a key that is limited: its rules, with allowance `q` and window `w` in seconds.",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "To a key that is limited: what is left of each rule, `r`, and `t` seconds until more is.",
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}},
    "Retry-After": {"description": "When to try again, in seconds.", "schema": {"type": "integer"}},
}

CONVERTER = re.compile(r"{(\w+):\w+}")
NOUN = re.compile(r"/v[0-9]+/([^/{]+)")


class Problem(msgspec.Struct, kw_only=True):
    """An error (RFC 9457). `code` is for programs, `detail` for people; `errors` points at faults of a body."""

    type: Annotated[str, Meta(extra_json_schema={"format": "uri-reference"})]
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] | UnsetType = UNSET


class Schemas:
    """The JSON schemas of every type that operations take and answer, each named once."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        kinds: dict[Any, None] = {Problem: None}
        for one in operations:
            kinds |= dict.fromkeys([*one.parameters.values(), *(field.type for field in query_fields(one))])
            kinds |= dict.fromkeys(kind for kind in (one.body, one.answers) if kind not in (None, Response))
        # All in one call: two classes of the same name then get two names.
        made = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
        found, components = json.loads(msgspec.json.encode(made), object_hook=tidied)
        components["Problem"]["properties"]["code"] = {"type": "string", "enum": list(known())}
        self.components: Json = dict(sorted(components.items()))
        self._of: dict[Any, Json] = dict(zip(kinds, found, strict=True))

    def of(self, kind: Any) -> Json:
        """Return the schema of a type, which is a reference for a Struct."""
        return dict(self._of[kind])


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Describe the operations."""
    schemas = Schemas(operations)
    paths: Json = {}
    responses: Json = {}
    met: Counter[str] = Counter()
    for one in operations:
        met[one.name] += 1
        again = f"_{met[one.name]}" if met[one.name] > 1 else ""
        methods = paths.setdefault(CONVERTER.sub(r"{\1}", one.path), {})
        methods[one.method.lower()] = {"operationId": one.name + again, **describe(one, schemas)}
        for codes in problem_groups(one).values():
            responses[problem_name(codes)] = problem_response(codes, schemas)
    return {
        "openapi": "3.1.0",
        "info": {**INFO, "version": service.__version__},
        "tags": [{"name": noun} for noun in dict.fromkeys(noun_of(one) for one in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": responses,
            "headers": HEADERS,
            "examples": {code: problem_example(code) for code in known()},
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def render(document: Json) -> str:
    """Write the document as in `docs/openapi.json`."""
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False) + "\n"


def describe(operation: Operation, schemas: Schemas) -> Json:
    """Describe one method on one path."""
    described: Json = {
        "tags": [noun_of(operation)],
        "summary": operation.summary,
        "description": "\n\n".join(filter(None, [operation.description, who_may(operation)])),
        "security": security(operation),
        "parameters": [
            *path_parameters(operation, schemas),
            *query_parameters(operation, schemas),
            *([IDEMPOTENCY_KEY] if operation.idempotent else ()),
        ],
    }
    if operation.cost != 1:
        described["x-cost"] = operation.cost
    if operation.scope is not None:
        described["x-scope"] = operation.scope
    if operation.body is not None:
        described["requestBody"] = request_body(operation, schemas)
    described["responses"] = {str(operation.status): success(operation, schemas)}
    for status, codes in problem_groups(operation).items():
        described["responses"][str(status)] = {"$ref": f"#/components/responses/{problem_name(codes)}"}
    return described


def noun_of(operation: Operation) -> str:
    """Return what the path is about; what stands outside `/v1` is about the service itself."""
    found = NOUN.match(operation.path)
    return found[1] if found else "service"


def who_may(operation: Operation) -> str:
    """Return a sentence that names the callers."""
    if operation.public:
        return "Anybody may call it; a credential that is sent is not looked at."
    if operation.optional_key:
        return "Anybody may call it, with a key or without one; a credential that is sent must be right."
    return f"Needs the scope `{operation.scope}`." if operation.scope else "Any key may call it."


def security(operation: Operation) -> list[Json]:
    """List the credentials that work, each with the scope that the key must hold; an empty one is none."""
    if operation.public:
        return []
    anonymous: list[Json] = [{}] if operation.optional_key else []
    scopes = [operation.scope] if operation.scope else []
    return [*anonymous, {"bearer": scopes}, {"signed_query_key": scopes, "signed_query_signature": scopes}]


def path_parameters(operation: Operation, schemas: Schemas) -> list[Json]:
    """Describe the names in the path."""
    described = []
    for name, kind in operation.parameters.items():
        parameter = {"name": name, "in": "path", "required": True, "schema": schemas.of(kind)}
        if name in operation.path_example:
            parameter["example"] = operation.path_example[name]
        described.append(parameter)
    return described


def query_parameters(operation: Operation, schemas: Schemas) -> list[Json]:
    """Describe the fields of the query; none can be null, for a query cannot say so."""
    described = []
    for field in query_fields(operation):
        schema = without_null(schemas.of(field.type))
        parameter = {"name": field.encode_name, "in": "query", "required": field.required}
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        if field.default not in (msgspec.NODEFAULT, UNSET, None):
            schema["default"] = msgspec.to_builtins(field.default)
        described.append({**parameter, "schema": schema})
    return described


def query_fields(operation: Operation) -> tuple[msgspec.structs.FieldInfo, ...]:
    """List the fields of the query."""
    return () if operation.query is None else msgspec.structs.fields(operation.query)


def request_body(operation: Operation, schemas: Schemas) -> Json:
    """Describe the body."""
    content: Json = {"schema": schemas.of(operation.body)}
    if operation.example is not None:
        content["example"] = msgspec.to_builtins(operation.example)
    return {"required": True, "content": {"application/json": content}}


def success(operation: Operation, schemas: Schemas) -> Json:
    """Describe the answer when all went well."""
    names = ["X-Request-ID"]
    if not operation.public:
        names += ["RateLimit-Policy", "RateLimit"]
    if operation.status == HTTPStatus.CREATED:
        names.append("Location")
    if "next_cursor" in operation.answered_fields:
        names.append("Link")
    if operation.idempotent:
        names.append("Idempotent-Replayed")
    answer: Json = {"description": HTTPStatus(operation.status).phrase, "headers": headers(names)}
    if operation.answers is Response:
        answer["content"] = {"*/*": {}}
    elif operation.answers is not None:
        answer["content"] = {"application/json": {"schema": schemas.of(operation.answers)}}
    return answer


def problem_groups(operation: Operation) -> dict[int, list[str]]:
    """Return the codes that an operation can answer, by status; in the order of the list of problems."""
    groups: dict[int, list[str]] = {}
    for code in sorted(problem_codes(operation), key=list(known()).index):
        groups.setdefault(known()[code].status, []).append(code)
    return groups


def problem_name(codes: Sequence[str]) -> str:
    """Name a group of problems after them, so that operations share it."""
    return "-".join(codes)


def problem_response(codes: Sequence[str], schemas: Schemas) -> Json:
    """Describe the problems of one status."""
    sent = {name for code in codes for name in problems.Problem(code).response(None).headers}
    return {
        "description": "\n".join(f"- `{code}`: {known()[code].title}." for code in codes),
        "headers": headers(["X-Request-ID", *(name for name in HEADERS if name.lower() in sent)]),
        "content": {
            "application/problem+json": {
                "schema": {"allOf": [schemas.of(Problem), {"properties": {"code": {"enum": list(codes)}}}]},
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
            }
        },
    }


def problem_codes(operation: Operation) -> set[str]:
    """Collect the codes that an operation can answer: its own, and what its properties bring along."""
    brought = [
        (True, {"internal_error", "unavailable"}),
        (True, {"invalid_parameter"}),  # where a path takes none, any is refused
        (operation.parameters, {"not_found"}),
        (operation.body, {"malformed_json", "unsupported_media_type", "invalid_body", "body_too_large"}),
        (not operation.safe, {"body_timeout", "commit_unknown", "invalid_idempotency_key"}),
        (not operation.safe, {"conflict", "changed_meanwhile"}),
        (
            operation.idempotent,
            {"idempotency_in_progress", "idempotency_mismatch", "too_many_stored_answers"},
        ),
        (not operation.public, {"two_credentials", "unauthenticated", "digest_mismatch"}),
        (not operation.public, {"key_revoked", "key_expired", "owner_inactive"}),
        (not operation.public, {"network_not_allowed", "too_many_failures"}),
        (not operation.public and not operation.safe, {"coverage_required"}),
        (not operation.public and operation.cost, {"rate_limited", "quota_exceeded"}),
        (not operation.public and operation.cost > 1, {"cost_above_limit"}),
        (operation.scope, {"scope_missing"}),
    ]
    return {*operation.problems}.union(*(codes for holds, codes in brought if holds))


def problem_example(code: str) -> Json:
    """Show a problem as it is answered."""
    faults = [FieldError("/name", "Expected `str`, got `int`")] if code == "invalid_body" else []
    answer = problems.Problem(code, errors=faults).response("9f86d081884c7d65")
    return {"summary": known()[code].title, "value": json.loads(bytes(answer.body))}


def headers(names: Sequence[str]) -> Json:
    """Refer to headers."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def without_null(schema: Json) -> Json:
    """Leave null out of what a value may be."""
    kept = [one for one in schema.get("anyOf", [schema]) if one != {"type": "null"}]
    return dict(kept[0]) if len(kept) == 1 else {**schema, "anyOf": kept}


def tidied(schema: Json) -> Json:
    """Return a schema with clean prose, and with the type `string` for an enumeration of texts.

    Docstrings keep the indentation of their source before Python 3.13, and lose it from then on. Generators of
    clients look at the type first.
    """
    if isinstance(text := schema.get("description"), str):
        schema["description"] = inspect.cleandoc(text)
    texts = schema.get("enum")
    is_text = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    return {"type": "string", **schema} if is_text else schema
