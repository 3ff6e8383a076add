"""The OpenAPI 3.1 description, generated from the routes, the shapes and the list of problems.

`document(operations)` generates it once for an application, including a team's own routes; `render` returns the text
of `docs/openapi.json`. Bounds come from the types, texts from the docstrings, problems from their list.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.responses import Response

from latchkey import service
from latchkey.service import problems
from latchkey.service.methods import DESCRIBED_METHODS
from latchkey.service.openapi_components import (
    BEARER,
    CREDENTIALS,
    HEADERS,
    IDEMPOTENCY_KEY,
    INFO,
    SECURITY_SCHEMES,
    SERVER,
    TAGS,
    JsonObject,
    ProblemDocument,
)
from latchkey.service.openapi_schemas import Schemas, query_fields
from latchkey.service.operation import NO_CONTENT, Operation
from latchkey.service.problems import FieldError
from latchkey.service.problems.registry import known

CONVERTER = re.compile(r"{(\w+):\w+}")


def document(
    operations: Sequence[Operation], *, key_headers: Sequence[str] = (), root_path: str | None = None
) -> dict[str, Any]:
    """Return the description of the operations.

    Args:
        operations: of the application.
        key_headers: the headers that may carry the secret of a bearer key, beside `Authorization`.
        root_path: the path under which a proxy publishes the service, if there is one.
    """
    schemas = Schemas(operations)
    paths: JsonObject = {}
    responses: JsonObject = {}
    returned: set[str] = set()
    met: Counter[str] = Counter()
    for one in operations:
        methods = paths.setdefault(CONVERTER.sub(r"{\1}", one.path), {})
        for method in DESCRIBED_METHODS if one.any_request else (one.method,):
            name = f"{one.name}_by_{method.lower()}" if one.any_request else one.name
            met[name] += 1
            again = f"_{met[name]}" if met[name] > 1 else ""
            described = methods[method.lower()] = {"operationId": name + again, **describe(one, schemas)}
            if not one.public:
                scopes = [one.scope] if one.scope else []
                described["security"] += [{header_scheme(header): scopes} for header in key_headers]
        for codes in problem_groups(one).values():
            if (name := problem_name(codes)) not in responses:
                responses[name] = problem_response(codes, schemas)
                returned.update(codes)
    return {
        "openapi": "3.1.0",
        "info": {**INFO, "version": service.__version__},
        "servers": [{"url": root_path or "/", "description": SERVER}],
        "tags": [tag(name) for name in dict.fromkeys(one.tag for one in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": responses,
            "headers": HEADERS,
            "examples": {code: problem_example(code) for code in known() if code in returned},
            "securitySchemes": SECURITY_SCHEMES
            | {
                header_scheme(name): {"type": "apiKey", "in": "header", "name": name, "description": BEARER}
                for name in key_headers
            },
        },
    }


def header_scheme(name: str) -> str:
    """Return the name of the security scheme of a header that may carry a key."""
    return f"key_header_{name.lower().replace('-', '_')}"


def render(document: JsonObject) -> str:
    """Return the document as the text of `docs/openapi.json`."""
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False) + "\n"


def describe(operation: Operation, schemas: Schemas) -> JsonObject:
    """Return the description of one method on one path."""
    described: JsonObject = {
        "tags": [operation.tag],
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


def tag(name: str) -> JsonObject:
    """Return the description of a tag."""
    return {"name": name, "description": TAGS.get(name, f"The operations on {name}.")}


def who_may(operation: Operation) -> str:
    """Return a sentence about the permitted callers."""
    if operation.any_request:
        return "Only a trusted proxy may make this request, with any method."
    if operation.public:
        return "No credential is required; one that is sent is ignored."
    if operation.optional_key:
        return "No credential is required; one that is sent must be valid."
    return (
        f"Requires the scope `{operation.scope}`."
        if operation.scope
        else "Every valid key may make this call."
    )


def security(operation: Operation) -> list[JsonObject]:
    """Return the accepted credentials, each with the required scope; an empty one means none."""
    if operation.public:
        return []
    anonymous: list[JsonObject] = [{}] if operation.optional_key else []
    scopes = [operation.scope] if operation.scope else []
    return [*anonymous, *(dict.fromkeys(schemes, scopes) for schemes in CREDENTIALS)]


def path_parameters(operation: Operation, schemas: Schemas) -> list[JsonObject]:
    """Return the descriptions of the path parameters."""
    described = []
    for name, kind in operation.parameters.items():
        parameter = {"name": name, "in": "path", "required": True, "schema": schemas.of(kind)}
        if name in operation.path_example:
            parameter["example"] = operation.path_example[name]
        described.append(parameter)
    return described


def query_parameters(operation: Operation, schemas: Schemas) -> list[JsonObject]:
    """Return the descriptions of the query parameters, none of which can be null."""
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


def request_body(operation: Operation, schemas: Schemas) -> JsonObject:
    """Return the description of the body."""
    content: JsonObject = {"schema": schemas.of(operation.body)}
    if operation.example is not None:
        content["example"] = msgspec.to_builtins(operation.example)
    return {"required": True, "content": {"application/json": content}}


def success(operation: Operation, schemas: Schemas) -> JsonObject:
    """Return the description of the successful response."""
    names = ["X-Request-ID"]
    if not operation.public:
        names += ["RateLimit-Policy", "RateLimit"]
    if operation.status == HTTPStatus.CREATED:
        names.append("Location")
    if "next_cursor" in operation.answered_fields:
        names.append("Link")
    if operation.idempotent:
        names.append("Idempotent-Replayed")
    if operation.any_request:
        names += [
            "RateLimit-Policy",
            "RateLimit",
            *(name for name in HEADERS if name.startswith("X-Latchkey-")),
        ]
    answer: JsonObject = {"description": HTTPStatus(operation.status).phrase, "headers": headers(names)}
    if operation.status in NO_CONTENT:
        return answer
    if operation.answers is Response:
        answer["content"] = {operation.media_type: {}}
    elif operation.answers is not None:
        answer["content"] = {operation.media_type: {"schema": schemas.of(operation.answers)}} | {
            media_type: {"schema": {"type": "string"}} for media_type in operation.also
        }
    if operation.page is not None:
        answer["content"]["text/html"] = {}
    return answer


def problem_groups(operation: Operation) -> dict[int, list[str]]:
    """Return the codes that an operation can return, by status, in the order of the list of problems."""
    groups: dict[int, list[str]] = {}
    codes = problem_codes(operation)
    for code, kind in known().items():
        if code in codes:
            groups.setdefault(kind.status, []).append(code)
    return groups


def problem_name(codes: Sequence[str]) -> str:
    """Return the name of a group of problems, so that operations share it."""
    return "-".join(codes)


def problem_response(codes: Sequence[str], schemas: Schemas) -> JsonObject:
    """Return the description of the problems of one status."""
    sent = {name for code in codes for name in problems.Problem(code).response(None).headers}
    if "unauthenticated" in codes:
        sent.add("accept-signature")
    if "credits_used_up" in codes:
        sent.add("retry-after")
    return {
        "description": "\n".join(f"- `{code}`: {known()[code].title}." for code in codes),
        "headers": headers(["X-Request-ID", *(name for name in HEADERS if name.lower() in sent)]),
        "content": {
            "application/problem+json": {
                # One type for all problems: a type for each status would fill a generated client with copies.
                "schema": schemas.of(ProblemDocument),
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
            }
        },
    }


def problem_codes(operation: Operation) -> set[str]:
    """Return the codes that an operation can return: its own, and those that follow from its properties."""
    brought = [
        (True, {"internal_error", "unavailable"}),
        (
            not operation.any_request,
            {"invalid_parameter"},
        ),  # an operation without parameters refuses any parameter
        (operation.parameters, {"not_found"}),
        (operation.body, {"malformed_json", "unsupported_media_type", "invalid_body", "body_too_large"}),
        (not operation.safe, {"body_timeout", "commit_unknown", "invalid_idempotency_key"}),
        (not operation.safe, {"conflict", "changed_meanwhile", "invalid_value"}),
        (
            operation.idempotent,
            {"idempotency_in_progress", "idempotency_mismatch", "too_many_stored_answers"},
        ),
        (not operation.public, {"two_credentials", "unauthenticated", "digest_mismatch", "replayed"}),
        (not operation.public, {"key_revoked", "key_expired", "owner_inactive"}),
        (not operation.public, {"network_not_allowed", "too_many_failures"}),
        (not operation.public and not operation.safe, {"coverage_required"}),
        (not operation.public and operation.cost, {"rate_limited", "quota_exceeded", "credits_used_up"}),
        (not operation.public and operation.cost > 1, {"cost_above_limit"}),
        (operation.scope, {"scope_missing"}),
    ]
    return {*operation.problems}.union(*(codes for holds, codes in brought if holds))


def problem_example(code: str) -> JsonObject:
    """Return a problem in the form of a response."""
    faults = [FieldError("/name", "Expected `str`, got `int`")] if code == "invalid_body" else []
    answer = problems.Problem(code, errors=faults).response("9f86d081884c7d65")
    return {"summary": known()[code].title, "value": json.loads(bytes(answer.body))}


def headers(names: Sequence[str]) -> JsonObject:
    """Return references to headers."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def without_null(schema: JsonObject) -> JsonObject:
    """Return a schema that excludes null."""
    kept = [one for one in schema.get("anyOf", [schema]) if one != {"type": "null"}]
    return dict(kept[0]) if len(kept) == 1 else {**schema, "anyOf": kept}
