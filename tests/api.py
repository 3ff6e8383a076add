"""Calls to the whole application, as its clients make them, and the promises that hold for every answer."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.models import ApiKey, Base, User
from latchkey.models.limit import Credits, Quota, RateLimit
from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.keys.credits import set_credits
from latchkey.service.problems.registry import known
from tests.requests import Answer, request

Headers = Sequence[tuple[str, str]]


class HeldKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key with its secret, as a partner holds it; `id` and `user_id` identify its rows."""

    id: int
    user_id: int
    access_key: AccessKey
    secret: Secret
    mode: str

    @property
    def bearer(self) -> tuple[str, str]:
        """Return the header of a bearer call, whatever the mode of the key."""
        return "authorization", f"Bearer {self.secret}"


async def hold_key(
    app: Starlette,
    *,
    scopes: Iterable[str] | None = None,
    mode: str = "bearer",
    email: str = "operator@example.com",
    status: str = "active",
    expires_at: datetime | None = None,
    allowed_networks: Iterable[str] = (),
    limits: Iterable[RateLimit] = (),
    quota: Quota | None = None,
    credits: Credits | None = None,
    environment: str | None = None,
) -> HeldKey:
    """Create a key as the command line would; `scopes` None means all, and the owner is created if necessary."""
    async with app.state.db.scoped_session() as session:
        owner = await User.filter(email_key=email.casefold()).first()
        owner = owner or await User.create(email=email, name="Operator")
        key, secret = await app.state.latchkey.key_rules.issuer.issue(
            owner,
            name=f"{mode} key",
            mode=mode,
            environment=environment,
            scopes=sorted(app.state.latchkey.key_rules.scopes) if scopes is None else list(scopes),
            expires_at=expires_at,
            allowed_networks=tuple(allowed_networks),
            limits=tuple(limits),
            quota=quota,
        )
        if credits is not None:
            await set_credits(key, credits)
        if status != "active":
            await key.update(status=status)
        await session.commit()
    return HeldKey(id=key.id, user_id=owner.id, access_key=key.access_key, secret=secret, mode=mode)


async def rotate_held(app: Starlette, key: HeldKey, *, grace_s: int) -> HeldKey:
    """Rotate a key as the command line would, and return it with its new secret; the argument keeps the old one."""
    async with app.state.db.scoped_session() as session:
        row = await ApiKey.filter_by(id=key.id).for_update().one()
        rotated = await app.state.latchkey.key_rules.issuer.rotate(row, grace_s=grace_s)
        await session.commit()
    return msgspec.structs.replace(key, secret=rotated.secret)


async def call(
    app: Starlette,
    method: str,
    target: str,
    *,
    key: HeldKey | None = None,
    body: Any = None,
    headers: Headers = (),
    chunks: Sequence[bytes] | None = None,
    wrap: ASGIApp | None = None,
) -> Answer:
    """Make one request.

    Args:
        method: as on the request line.
        target: as on the request line, path and query with their percent escapes.
        key: sent as a bearer token, or signs the call, depending on its mode.
        body: bytes are sent unchanged, anything else as JSON.
        headers: added to those of the body; a header of the same name is replaced.
        chunks: a body of undeclared length, instead of `body`.
        wrap: an application around `app` that replaces it.
    """
    path, _, query = target.partition("?")
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    given = list(headers)
    if key is not None and key.mode == "bearer":
        given.append(key.bearer)
    if key is not None and key.mode == "signed":
        query, proof = sign_query(
            key.secret,
            query,
            key.access_key,
            app.state.latchkey.verifier.clock(),
            method=method,
            path=path,
            body=content if chunks is None else b"".join(chunks),
        )
        given.append(("secret", proof))
    names = {name.lower() for name, _ in given}
    usual = [("host", "testserver")]
    if body is not None or chunks is not None:
        usual.append(("content-type", "application/json"))
    if content:
        usual.append(("content-length", str(len(content))))
    if chunks is not None:
        usual.append(("transfer-encoding", "chunked"))
    sent = [*(one for one in usual if one[0] not in names), *given]
    parts = [content] if chunks is None else list(chunks)
    inner = wrap or app

    async def arrive(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_parts() -> Message:
            if parts:
                part = parts.pop(0)
                return {"type": "http.request", "body": part, "more_body": bool(parts)}
            await receive()  # the instance that `tests.requests` prepares
            return await receive()

        await inner(
            {
                **scope,
                "path": unquote(path),
                "raw_path": path.encode("latin-1"),
                "query_string": query.encode("latin-1"),
                "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent],
            },
            receive_parts,
            send,
        )

    return await request(arrive, method, path)


def assert_problem(answer: Answer, status: int, code: str) -> None:
    """Assert all promises that hold for every problem (RFC 9457)."""
    assert (answer.status, answer.json.get("code"), answer.starts, answer.complete) == (
        status,
        code,
        1,
        True,
    ), answer.body
    problem = answer.json
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] in {"no-store", "private, no-store"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert problem["type"] == f"/problems/{code}"
    assert problem["title"] == known()[code].title
    assert problem["status"] == status == known()[code].status
    assert problem["detail"].endswith(".")
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert set(problem) - {"errors"} == {"type", "title", "status", "detail", "code", "request_id"}
    assert ("errors" in problem) is (code == "invalid_body")
    assert ("www-authenticate" in answer.headers) is (status == 401 or code == "scope_missing")
    if code != "credits_used_up":  # it has the header if a refill comes
        assert ("retry-after" in answer.headers) is (
            status in {429, 503} or code == "idempotency_in_progress"
        )
    assert ("allow" in answer.headers) is (status == 405)


def rfc3339(moment: datetime) -> str:
    """Return a time in the format of answers."""
    return moment.isoformat().replace("+00:00", "Z")


async def stored(engine: AsyncEngine) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables, for a comparison of two states."""
    async with engine.connect() as connection:
        return {
            table.name: [
                tuple(row) for row in await connection.execute(select(table).order_by(*table.primary_key))
            ]
            for table in Base.metadata.sorted_tables
        }


async def key_row(access_key: str) -> ApiKey:
    """Return the current row of a key."""
    return await ApiKey.filter_by(access_key=access_key).one()


async def user_row(id: int) -> User:
    """Return the current row of a user."""
    return await User.filter_by(id=id).one()
