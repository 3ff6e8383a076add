"""An ASGI function without a database: the upper limit of the server.

At its start it reads every key once and keeps the rows. No request queries anything, and created users are not stored.
"""

import itertools
from datetime import UTC, datetime
from typing import Any

import asyncmy
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.peers.asgi import answer, authorization, read_body, with_lifespan
from benchmarks.peers.bare_asyncmy import FIND, authenticate, connect_arguments, decode, encode
from benchmarks.peers.bearer import digest_of_header
from benchmarks.peers.structs import User


def create_app() -> ASGIApp:
    """Build the application."""
    rows: dict[bytes, Any] = {}
    ids = itertools.count(1)

    async def read_rows() -> None:
        connection = await asyncmy.connect(**connect_arguments())
        async with connection.cursor() as cursor:
            await cursor.execute(FIND)
            rows.update({row[0]: row for row in await cursor.fetchall()})
        await connection.ensure_closed()

    async def forget() -> None:
        rows.clear()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        me, now = None, datetime.now(UTC)
        digest = digest_of_header(authorization(scope))
        if digest is not None and (row := rows.get(digest)):
            me = authenticate(row, digest, now)
        if me is None:
            await answer(send, 401)
        elif scope["method"] == "GET" and scope["path"] == "/v1/me":
            await answer(send, 200, encode(me))
        elif scope["path"] == "/v1/gate" and "users:read" in me.key.scopes:
            await answer(send, 204)
        elif scope["method"] == "POST" and scope["path"] == "/v1/users" and "users:write" in me.key.scopes:
            body = decode(await read_body(receive))
            user = User(
                id=next(ids),
                email=body.email,
                name=body.name,
                status="active",
                limits=(),
                quota=None,
                external_id=None,
                meta={},
                created_at=now,
                updated_at=now,
            )
            await answer(send, 201, encode(user))
        else:
            await answer(send, 404)

    return with_lifespan(app, read_rows, forget)
