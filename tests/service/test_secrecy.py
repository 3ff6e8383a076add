"""No secret, SQL or trace is in an answer, and no secret in a log line, whatever is sent and whatever fails."""

import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import User
from latchkey.service import logs, shapes
from latchkey.service.operation import Operation, route
from tests.api import HeldKey, assert_problem, call, stored
from tests.conftest import KEYRING
from tests.service.authentication.conftest import held_keys
from tests.service.authentication.signed_requests import HeldKeys, MakeAttempt, bearer, signed
from tests.service.authentication.test_backend import ACCEPTED, SPECIFIC, UNAUTHENTICATED

__all__ = ["held_keys"]


class Nothing(msgspec.Struct):
    """An empty answer."""


async def fail(request: Request) -> Nothing:
    """Fail in the way that the query names."""
    await User.create(email="hidden@example.com", name="hidden")
    raise ZeroDivisionError("a private matter")


async def fail_in_sql(request: Request) -> Nothing:
    """Send invalid SQL, with a secret value."""
    await request.state.session.execute(text("SELECT :word FROM no_such_table"), {"word": "private matter"})
    return Nothing()


async def fail_to_encode(body: shapes.NewUser) -> Nothing:
    """Write, and return a value that cannot be encoded."""
    await User.create(email=body.email, name=body.name)
    return 5  # type: ignore[return-value]  # the fault


async def fail_elsewhere(request: Request) -> Nothing:
    """Fail to reach another service: an OSError that is not the database's."""
    raise ConnectionRefusedError("partner.example")


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("POST", "/fail", fail, public=True),
        route("GET", "/fail-in-sql", fail_in_sql, public=True),
        route("POST", "/fail-to-encode", fail_to_encode, public=True),
        route("GET", "/fail-elsewhere", fail_elsewhere, any_key=True),
    )


def written(records: list[logging.LogRecord]) -> str:
    """Return everything that any of the log formats would write of the records, and their attributes."""
    lines = []
    for record in records:
        lines += [formatter.format(record) for formatter in (logs.TextFormatter(), logs.JsonFormatter())]
        lines.append(repr(record.__dict__))
        if record.exc_info and record.exc_info[0]:
            lines += traceback.format_exception(*record.exc_info)
    return "\n".join(lines)


ATTEMPTS = [
    pytest.param(case.values[-1] if callable(case.values[-1]) else case.values[0], id=case.id)
    for case in list[Any]([*UNAUTHENTICATED, *SPECIFIC, *ACCEPTED])
]


@pytest.mark.parametrize("make_attempt", ATTEMPTS)
async def test_no_credential_is_ever_shown_or_logged(
    app: Starlette, held_keys: HeldKeys, log_lines: list[logging.LogRecord], make_attempt: MakeAttempt
) -> None:
    attempt = make_attempt(held_keys)
    proofs = [value for name, value in attempt.headers if name == "secret" and len(value) > 8]

    answer = await attempt.send(app)

    logged = written(log_lines)
    for secret in (*held_keys.secrets, *proofs, KEYRING, KEYRING.partition(":")[2]):
        assert secret not in logged
        assert secret not in answer.body.decode()
        assert secret not in repr(answer.headers)


@pytest.mark.parametrize("behind", ["", "/{key}/rotate"])
async def test_a_new_secret_is_answered_and_not_logged(
    app: Starlette, held_keys: HeldKeys, log_lines: list[logging.LogRecord], behind: str
) -> None:
    body = {"user_id": held_keys.bearer.user_id, "name": "n", "mode": "signed", "scopes": []}

    answer = await call(
        app,
        "POST",
        f"/v1/keys{behind.format(key=held_keys.unscoped_signer.access_key)}",
        key=held_keys.bearer,
        body={"grace_s": 60} if behind else body,
    )

    assert answer.status == (200 if behind else 201)
    assert answer.json["secret"] not in written(log_lines)


# ---------------------------------------------------------------------- Latchkey's own secrets


@pytest.mark.parametrize(
    "method, path, body",
    [
        pytest.param("POST", "/fail", None, id="an exception in an endpoint"),
        pytest.param("GET", "/fail-in-sql", None, id="a statement that the database refuses"),
        pytest.param(
            "POST", "/fail-to-encode", {"email": "a@b", "name": "x"}, id="an answer of the wrong form"
        ),
        pytest.param("GET", "/fail-elsewhere", None, id="another service out of reach"),
    ],
)
async def test_an_error_of_ours_is_one_500_and_logged_once_with_its_request(
    app: Starlette,
    operator: HeldKey,
    log_lines: list[logging.LogRecord],
    open_transactions: Callable[[], Awaitable[int]],
    method: str,
    path: str,
    body: dict[str, str] | None,
) -> None:
    before = await stored(app.state.db.reader)
    key = operator if path == "/fail-elsewhere" else None

    answer = await call(app, method, path, key=key, body=body, headers=[("x-request-id", "visit-7")])

    assert_problem(answer, 500, "internal_error")
    assert answer.json["request_id"] == "visit-7"
    assert answer.json["detail"] == "Internal error."
    errors = [record for record in log_lines if record.levelno >= logging.ERROR]
    assert [record.name for record in errors] == ["latchkey.request"]
    assert errors[0].exc_info
    assert await stored(app.state.db.reader) == before
    assert await open_transactions() == 0


@pytest.mark.parametrize(
    "make_attempt", [lambda c: bearer(c.bearer), lambda c: signed(c.signer)], ids=["bearer", "signed"]
)
async def test_an_error_while_a_credential_is_looked_up_shows_nothing(
    app: Starlette, held_keys: HeldKeys, log_lines: list[logging.LogRecord], make_attempt: MakeAttempt
) -> None:
    """The values of the lookup include the hash of a secret."""
    async with app.state.db.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE key_secrets RENAME TO lost"))
        await connection.execute(text("ALTER TABLE api_keys RENAME TO lost_keys"))
    try:
        answer = await make_attempt(held_keys).send(app)
    finally:
        async with app.state.db.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE lost RENAME TO key_secrets"))
            await connection.execute(text("ALTER TABLE lost_keys RENAME TO api_keys"))

    assert_problem(answer, 500, "internal_error")
    logged = written(log_lines)
    assert not any(secret in logged for secret in held_keys.secrets)
    assert b"SELECT" not in answer.body
    assert b"Traceback" not in answer.body
