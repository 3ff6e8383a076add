"""Count the commands that each route of `examples/newsroom` sends to a server.

`python -m tests.newsroom_trips` prints them as JSON. It is a process of its own, because the models of a team stay on
`latchkey.Base` once they are imported. The database is `LATCHKEY_DATABASE_URL`, which must be migrated.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.applications import Starlette

from latchkey.service.database import driver
from latchkey.service.operation import Operation
from newsroom.app import create_app
from newsroom.routes import ROUTES
from tests import wire
from tests.api import HeldKey, call, hold_key

ARTICLE = {"title": "Rain", "body": "Again.", "tags": ["weather", "norway"]}


class Trip(msgspec.Struct, frozen=True):
    """A call that succeeds."""

    name: str
    operation: str
    caller: str | None
    body: Any = None


TRIPS = [
    Trip("publish an article", "POST /v1/articles", "author", ARTICLE | {"title": "Sun"}),
    Trip("publish an article with a new tag", "POST /v1/articles", "author", ARTICLE | {"title": "Fog", "tags": ["new"]}),
    Trip("list articles", "GET /v1/articles", None),
    Trip("list articles with a key", "GET /v1/articles", "reader"),
    Trip("read an article", "GET /v1/articles/{slug}", None),
    Trip("read an article with a key", "GET /v1/articles/{slug}", "reader"),
    Trip("change an article", "PATCH /v1/articles/{slug}", "author", {"body": "It stopped."}),
    Trip("comment", "POST /v1/articles/{slug}/comments", "reader", {"body": "Here, too."}),
    Trip("list comments", "GET /v1/articles/{slug}/comments", None),
    Trip("delete a comment", "DELETE /v1/articles/{slug}/comments/{comment}", "reader"),
    Trip("mark a favourite", "PUT /v1/articles/{slug}/favourite", "reader"),
    Trip("mark it again", "PUT /v1/articles/{slug}/favourite", "reader"),
    Trip("unmark a favourite", "DELETE /v1/articles/{slug}/favourite", "reader"),
    Trip("read an author", "GET /v1/authors/{author}", None),
    Trip("read an author with a key", "GET /v1/authors/{author}", "reader"),
    Trip("follow", "PUT /v1/authors/{author}/follow", "reader"),
    Trip("follow again", "PUT /v1/authors/{author}/follow", "reader"),
    Trip("read the feed", "GET /v1/feed", "reader"),
    Trip("unfollow", "DELETE /v1/authors/{author}/follow", "reader"),
    Trip("list tags", "GET /v1/tags", None),
    Trip("add a member", "POST /v1/members", "operator", {"email": "b@example.com", "name": "B", "role": "reader"}),
    Trip("replace a secret", "POST /v1/members/{member}/secret", "operator"),
    Trip("remove a member", "DELETE /v1/members/{member}", "operator"),
    Trip("delete an article", "DELETE /v1/articles/{slug}", "author"),
]  # fmt: skip


async def main() -> dict[str, Any]:
    """Make all calls in their order, and return their numbers of commands."""
    driver.Connection = wire.CountingConnection  # type: ignore[misc]
    app = create_app()
    async with app.router.lifespan_context(app):
        callers: dict[str | None, HeldKey | None] = {
            "operator": await hold_key(app),
            "author": await hold_key(app, email="author@example.com", mode="signed"),
            "reader": await hold_key(app, email="reader@example.com"),
            None: None,
        }
        author = callers["author"]
        assert author is not None
        names = {"slug": "rain", "author": author.user_id, "comment": 0, "member": 0}
        await warm(app, callers)
        counts = [await count(app, trip, callers[trip.caller], names) for trip in TRIPS]
        return {"counts": counts, "missing": sorted(shape(one) for one in ROUTES if not is_called(one))}


async def warm(app: Starlette, callers: Mapping[str | None, HeldKey | None]) -> None:
    """Open the connections of the pools, and publish the article of the other calls."""
    await call(app, "GET", "/v1/tags")
    made = await call(app, "POST", "/v1/articles", key=callers["author"], body=ARTICLE)
    assert made.status == 201, made.body


async def count(app: Starlette, trip: Trip, key: HeldKey | None, names: dict[str, Any]) -> list[Any]:
    """Make one call, and return its row of the table."""
    method, _, path = trip.operation.partition(" ")
    with wire.listening() as commands:
        answer = await call(app, method, path.format(**names), key=key, body=trip.body)
    assert answer.status in {200, 201, 204}, (trip, answer.body)
    if trip.name in {"comment", "add a member"}:
        names["comment" if trip.name == "comment" else "member"] = answer.json["id"]
    sys.stderr.write("\n    ".join([trip.name, *commands, ""]))
    return [trip.name, shape_of(trip.operation), len(commands)]


def shape_of(operation: str) -> str:
    """Return an operation with the names that the routes give to the parameters."""
    for name in ("author", "comment", "member"):
        operation = operation.replace(f"{{{name}}}", "{id}")
    return operation


def shape(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def is_called(operation: Operation) -> bool:
    return shape(operation) in {shape_of(trip.operation) for trip in TRIPS}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main())))
