"""A call with an Idempotency-Key has one effect and one answer, however often it is sent."""

import asyncio
import time
from collections import Counter
from itertools import count
from urllib.parse import quote

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models import User
from latchkey.models.limit import Credits
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.operation import Operation
from latchkey.service.routes import ROUTES
from tests.api import HeldKey, assert_problem, call, hold_key, stored
from tests.service.idempotency.endpoints import (
    ANN,
    BOB,
    COPIES,
    control,
    is_replay,
    send,
)
from tests.service.test_matrix import BODIES, Target, hold_other_rows, name_in_path

ONCE = [one for one in ROUTES if one.idempotent]


def test_every_operation_of_ours_that_may_change_something_takes_a_key() -> None:
    """A ping and a verification are sent each time, an import passes over what exists, and a public call has no key."""
    changing = [
        one.name
        for one in ROUTES
        if not (
            one.safe or one.public or one.path.rpartition("/")[2].startswith(("verify", "ping", "import"))
        )
    ]

    assert changing == [one.name for one in ONCE]
    assert {one.method for one in ONCE} == {"POST", "PUT", "PATCH", "DELETE"}


@pytest.mark.parametrize("operation", ONCE, ids=lambda one: one.name)
async def test_the_second_call_changes_nothing_and_is_answered_as_the_first(
    app: Starlette, operator: HeldKey, operation: Operation
) -> None:
    scopes = () if operation.scope is None else (operation.scope,)
    own_credits = Credits(remaining=5) if operation.name == "change_credits" else None
    held = await hold_key(app, scopes=scopes, credits=own_credits)
    target = Target(user_id=held.user_id, access_key=held.access_key, scopes=scopes)
    path = operation.path.format(
        id=target.user_id, access_key=target.access_key, name=quote(name_in_path(operation, target), safe="")
    )
    await hold_other_rows(app, operation, target)
    if operation.name == "delete_user":
        path = f"/v1/users/{(await hold_key(app, email='gone@example.com')).user_id}"
    once = {"method": operation.method, "key": operator, "body": BODIES[operation.name](target)}

    first = await send(app, path, **once)
    before = await stored(app.state.db.reader)
    second = await send(app, path, **once)

    assert first.status == second.status == operation.status, first.body
    assert (is_replay(first), is_replay(second)) == (False, True)
    assert await stored(app.state.db.reader) == before
    own = {"x-request-id", "idempotent-replayed", "content-length"}
    assert {name: second.headers[name] for name in second.headers.keys() - own} == {
        name: first.headers[name] for name in first.headers.keys() - own
    }
    if operation.one_time:
        assert second.json == first.json | dict.fromkeys(operation.one_time)
    else:
        assert second.body == first.body


@pytest.mark.parametrize(
    "first, second",
    [('"a b"', '"a b"'), ("abc", '"abc"'), ('"abc"', "abc"), (r'"a\"b"', r'"a\"b"'), (" abc ", "abc")],
)
async def test_the_same_key_may_be_spelled_in_two_ways(
    app: Starlette, operator: HeldKey, first: str, second: str
) -> None:
    await send(app, key=operator, once=first)

    assert is_replay(await send(app, key=operator, once=second))


@pytest.mark.parametrize(
    "query, body",
    [
        pytest.param("?note=b", ANN, id="another query"),
        pytest.param("", ANN, id="no query"),
        pytest.param("?note=a", BOB, id="another body"),
        pytest.param("?note=a", b'{"email": "ann@example.com",  "name": "Ann"}', id="another spelling of it"),
    ],
)
@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_another_call_under_the_same_key_is_refused(
    app: Starlette, mode: str, query: str, body: dict[str, str] | bytes
) -> None:
    caller = await hold_key(app, mode=mode)
    app.state.latchkey.verifier.clock = count(int(time.time())).__next__
    await send(app, "/asked?note=a", key=caller)
    before = [rows for table, rows in (await stored(app.state.db.reader)).items() if table != "nonces"]

    assert_problem(await send(app, f"/asked{query}", key=caller, body=body), 422, "idempotency_mismatch")

    after = [rows for table, rows in (await stored(app.state.db.reader)).items() if table != "nonces"]
    assert after == before
    assert is_replay(await send(app, "/asked?note=a", key=caller))


async def test_a_key_belongs_to_one_access_key_one_method_and_one_path(
    app: Starlette, operator: HeldKey
) -> None:
    other = await hold_key(app)
    user = (await send(app, key=operator)).json["id"]
    change = {"name": "Anna"}

    answers = [
        await send(app, key=other, body=BOB),
        await send(app, "/write", key=operator, body={"email": "cat@example.com", "name": "Cat"}),
        await send(app, f"/v1/users/{user}", key=operator, body=change, method="PATCH"),
        await send(app, f"/v1/users/{operator.user_id}", key=operator, body=change, method="PATCH"),
        await send(app, f"/v1/users/{user}", key=operator, body=None, method="DELETE"),
    ]

    assert [(one.status, is_replay(one)) for one in answers] == [
        (201, False), (200, False), (200, False), (200, False), (204, False),
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["query", "message"])
async def test_a_retry_is_signed_anew(app: Starlette, signer: HeldKey, form: str) -> None:
    """A signature is valid for one call, and its parameters are not part of the call."""
    answers = []
    for second in range(2):
        app.state.latchkey.verifier.clock = lambda second=second: time.time() + second
        if form == "query":
            answers.append(await send(app, key=signer))
            continue
        body = msgspec.json.encode(ANN)
        headers = sign_message(
            signer.secret,
            signer.access_key,
            app.state.latchkey.verifier.clock(),
            method="POST",
            scheme="http",
            authority="testserver",
            raw_path="/v1/users",
            nonce=f"nonce-0123456789-{second}",
            body=body,
            content_type="application/json",
            idempotency_key='"5"',
        )
        answers.append(await call(app, "POST", "/v1/users", body=body, headers=list(headers.items())))

    assert [one.status for one in answers] == [201, 201]
    assert [is_replay(one) for one in answers] == [False, True]


async def test_the_very_same_signed_call_is_no_retry(app: Starlette, signer: HeldKey) -> None:
    now = time.time()
    app.state.latchkey.verifier.clock = lambda: now

    await send(app, key=signer)

    assert_problem(await send(app, key=signer), 401, "replayed")


async def test_a_message_must_sign_its_key(app: Starlette, signer: HeldKey) -> None:
    body = msgspec.json.encode(ANN)
    headers = sign_message(
        signer.secret,
        signer.access_key,
        time.time(),
        method="POST",
        scheme="http",
        authority="testserver",
        raw_path="/v1/users",
        nonce="nonce-0123456789",
        body=body,
        content_type="application/json",
    )

    answer = await call(
        app, "POST", "/v1/users", body=body, headers=[*headers.items(), ("idempotency-key", "5")]
    )

    assert_problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize("path", ["/v1/users", "/slow"], ids=["quick", "slow"])
async def test_one_of_simultaneous_copies_runs(app: Starlette, operator: HeldKey, path: str) -> None:
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(send(app, path, key=operator)) for _ in range(COPIES)]
        if path == "/slow":
            await control.entered.wait()
            control.go_on.set()

    answers = [one.result() for one in calls]
    assert {one.status for one in answers} == {201 if path == "/v1/users" else 200}
    assert Counter(is_replay(one) for one in answers) == {False: 1, True: COPIES - 1}
    assert len({one.body for one in answers}) == 1
    assert await User.filter_by(email_key=ANN["email"]).count() == 1
