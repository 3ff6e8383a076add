"""An ASGI function on asyncmy's own pool, without SQLAlchemy or a framework: the upper limit with a database.

It does only what the job requires: one SELECT in AUTOCOMMIT mode, and bytes from msgspec.
"""

import hmac
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import asyncmy
import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.peers.asgi import answer, authorization, read_body, with_lifespan
from benchmarks.peers.bearer import digest_of_header
from benchmarks.peers.structs import Key, Me, NewUser, Quota, RateLimit, User

KEY = tuple(
    name for name in Key.__struct_fields__ if name not in {"credits", "environment", "roles", "role_scopes"}
)
USER = User.__struct_fields__

FIND = (
    f"SELECT s.secret_sha256, s.expires_at, {', '.join(f'k.{name}' for name in KEY)}, "
    f"{', '.join(f'u.{name}' for name in USER)} "
    "FROM key_secrets s JOIN api_keys k ON k.id = s.api_key_id JOIN users u ON u.id = k.user_id"
)
FIND_ONE = FIND + " WHERE s.secret_sha256 = %s"
CREATE = (
    "INSERT INTO users (email, email_key, name, status, created_at, updated_at) "
    "VALUES (%s, %s, %s, 'active', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)) "
    f"RETURNING {', '.join(USER)}"
)

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(NewUser).decode
decode_limits = msgspec.json.Decoder(tuple[RateLimit, ...]).decode
decode_quota = msgspec.json.Decoder(Quota).decode


def as_json(value: Any) -> Any:
    """Return the value of a column as it is in the answer."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    return value.decode() if isinstance(value, bytes) else value


READERS: dict[str, Callable[[Any], Any]] = {
    "scopes": lambda text: tuple(text.split()),
    "allowed_networks": lambda text: tuple(text.split()),
    "limits": lambda text: () if text is None else decode_limits(text),
    "meta": lambda text: {} if text is None else msgspec.json.decode(text),
    "quota": lambda text: None if text is None else decode_quota(text),
}
"""The readers of columns that are more than a value."""


def read_columns(names: tuple[str, ...], values: Any) -> dict[str, Any]:
    """Return the columns of a row by name."""
    return {name: READERS.get(name, as_json)(value) for name, value in zip(names, values, strict=True)}


def make_user(values: Any) -> User:
    """Return a user, given the columns of its row."""
    return User(**read_columns(USER, values))


def make_me(row: Any) -> Me:
    """Return the answer of a read, given a row of `FIND`."""
    end = 2 + len(KEY)
    return Me(user=make_user(row[end:]), key=Key(**read_columns(KEY, row[2:end])))


def authenticate(row: Any, digest: bytes, now: datetime) -> Me | None:
    """Return the caller, given a row of `FIND`; None if the credential is not valid."""
    if not hmac.compare_digest(row[0], digest):
        return None
    me, ends_at = make_me(row), as_json(row[1])
    valid = (
        (ends_at is None or ends_at > now)
        and me.key.mode == "bearer"
        and me.key.status == "active"
        and (me.key.expires_at is None or me.key.expires_at > now)
        and me.user.status == "active"
    )
    return me if valid else None


def connect_arguments() -> dict[str, Any]:
    """Return the arguments of `asyncmy.connect` for the database."""
    url = urlsplit(os.environ["DATABASE_URL"])
    return {
        "host": url.hostname,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "db": url.path[1:],
        "charset": "utf8mb4",
        "autocommit": True,
    }


def create_app() -> ASGIApp:
    """Build the application."""
    pool: Any = None

    async def open_pool() -> None:
        nonlocal pool
        size = int(os.environ["POOL_SIZE"])
        pool = await asyncmy.create_pool(minsize=1, maxsize=size, **connect_arguments())

    async def close_pool() -> None:
        pool.close()
        await pool.wait_closed()

    async def query(sql: str, values: tuple[Any, ...]) -> Any:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(sql, values)
            return await cursor.fetchone()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        me = None
        digest = digest_of_header(authorization(scope))
        if digest is not None and (row := await query(FIND_ONE, (digest,))):
            me = authenticate(row, digest, datetime.now(UTC))
        if me is None:
            await answer(send, 401)
        elif scope["method"] == "GET" and scope["path"] == "/v1/me":
            await answer(send, 200, encode(me))
        elif scope["method"] == "POST" and scope["path"] == "/v1/users" and "users:write" in me.key.scopes:
            body = decode(await read_body(receive))
            row = await query(CREATE, (body.email, body.email.casefold(), body.name))
            await answer(send, 201, encode(make_user(row)))
        else:
            await answer(send, 404)

    return with_lifespan(app, open_pool, close_pool)
