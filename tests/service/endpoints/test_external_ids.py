"""`external_id` and `meta` of users and keys."""

from typing import Any

import pytest
from starlette.applications import Starlette

from tests.api import HeldKey, assert_problem, call

KINDS = pytest.mark.parametrize("path", ["/v1/users", "/v1/keys"])


def new(path: str, operator: HeldKey, n: int, **fields: Any) -> dict[str, Any]:
    if path == "/v1/users":
        return {"email": f"u{n}@example.com", "name": "U", **fields}
    return {"user_id": operator.user_id, "name": "k", "mode": "bearer", "scopes": [], **fields}


def place(path: str, row: dict[str, Any]) -> str:
    return f"{path}/{row['id'] if path == '/v1/users' else row['access_key']}"


@KINDS
async def test_they_are_stored_filtered_and_changed(app: Starlette, operator: HeldKey, path: str) -> None:
    meta = {"plan": "gold", "tags": ["a", None, 1.5], "nested": {"deep": True}}
    made = await call(
        app, "POST", path, key=operator, body=new(path, operator, 1, external_id="crm:7", meta=meta)
    )
    await call(app, "POST", path, key=operator, body=new(path, operator, 2, external_id="crm:8"))

    found = await call(app, "GET", f"{path}?external_id=crm:7", key=operator)
    changed = await call(
        app,
        "PATCH",
        place(path, made.json),
        key=operator,
        body={"external_id": None, "meta": {"plan": "free"}},
    )
    gone = await call(app, "GET", f"{path}?external_id=crm:7", key=operator)

    assert (made.status, made.json["external_id"], made.json["meta"]) == (201, "crm:7", meta)
    assert [one["meta"] for one in found.json["data"]] == [meta]
    assert (changed.json["external_id"], changed.json["meta"]) == (None, {"plan": "free"})
    assert gone.json["data"] == []


@KINDS
async def test_an_external_id_is_unique_and_case_sensitive(
    app: Starlette, operator: HeldKey, path: str
) -> None:
    first = await call(app, "POST", path, key=operator, body=new(path, operator, 1, external_id="crm-7"))
    again = await call(app, "POST", path, key=operator, body=new(path, operator, 2, external_id="crm-7"))
    other = await call(app, "POST", path, key=operator, body=new(path, operator, 3, external_id="CRM-7"))
    taken = await call(app, "PATCH", place(path, other.json), key=operator, body={"external_id": "crm-7"})

    assert (first.status, other.status) == (201, 201)
    assert_problem(again, 409, "external_id_taken")
    assert_problem(taken, 409, "external_id_taken")


async def test_many_have_no_external_id(app: Starlette, operator: HeldKey) -> None:
    answers = [
        await call(app, "POST", "/v1/users", key=operator, body=new("/v1/users", operator, n))
        for n in range(3)
    ]

    assert [(one.status, one.json["external_id"], one.json["meta"]) for one in answers] == [
        (201, None, {})
    ] * 3


async def test_a_taken_email_is_still_named(app: Starlette, operator: HeldKey) -> None:
    body = new("/v1/users", operator, 1, external_id="external_id")
    await call(app, "POST", "/v1/users", key=operator, body=body)

    again = await call(app, "POST", "/v1/users", key=operator, body={**body, "external_id": "email_key"})

    assert_problem(again, 409, "email_taken")


@KINDS
@pytest.mark.parametrize(
    "fields",
    [
        {"external_id": ""},
        {"external_id": "a b"},
        {"external_id": "\u00fc"},
        {"external_id": "x" * 256},
        {"meta": None},
        {"meta": []},
        {"meta": {"a": "x" * 4096}},
    ],
    ids=["empty", "a space", "not ASCII", "too long", "null", "a list", "too large"],
)
async def test_others_are_refused(
    app: Starlette, operator: HeldKey, path: str, fields: dict[str, Any]
) -> None:
    refused = await call(app, "POST", path, key=operator, body=new(path, operator, 1, **fields))

    assert_problem(refused, 422, "invalid_body")
    assert refused.json["errors"][0]["pointer"].startswith(f"/{next(iter(fields))}")


@KINDS
async def test_four_kibibytes_of_metadata_fit(app: Starlette, operator: HeldKey, path: str) -> None:
    meta = {"a": "x" * (4096 - len('{"a":""}'))}

    made = await call(app, "POST", path, key=operator, body=new(path, operator, 1, meta=meta))

    assert (made.status, made.json["meta"]) == (201, meta)
