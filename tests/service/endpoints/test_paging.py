"""Pages of a team's own lists: every row once, in any order, with a cursor for one list."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import ApiKey, User
from latchkey.models.paging import page_of
from latchkey.service import shapes
from latchkey.service.endpoints.paging import Page, PageQuery, paginate
from latchkey.service.operation import Answer, Operation, route
from tests.api import assert_problem, call


class Row(msgspec.Struct):
    """A row that does not contain the columns that order the list."""

    name: str


class ListQuery(PageQuery, frozen=True, kw_only=True):
    """Filters of several types."""

    status: shapes.UserStatus | None = None
    id_from: int | None = None
    order: str = "name"


async def list_rows(request: Request, query: ListQuery) -> Answer:
    return await paginate(
        request, User.filter(id__gte=query.id_from or 0).into(Row), query, order_by=query.order
    )


async def list_entities(request: Request, query: ListQuery) -> Answer:
    return await paginate(request, User.filter(id__gte=query.id_from or 0), query, order_by=query.order)


async def list_by_key(request: Request, query: PageQuery) -> Answer:
    return await paginate(request, User.filter(), query)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("GET", "/rows", list_rows, public=True, answers=Page[Row]),
        route("GET", "/entities", list_entities, public=True, answers=Page[Row]),
        route("GET", "/by-key", list_by_key, public=True, answers=Page[shapes.User]),
    )


@pytest.fixture(autouse=True)
async def rows(app: Starlette) -> None:
    async with app.state.db.scoped_session() as session:
        for number, name in enumerate("bacab", 1):
            await User.create(id=number, email=f"{number}@example.com", name=name)
        await session.commit()


async def walk(app: Starlette, url: str, more: str = "") -> list[str]:
    """Return the names of each page, following the links."""
    pages = []
    for _ in range(10):
        answer = await call(app, "GET", url)
        assert answer.status == 200, answer.json
        pages.append("".join(one["name"] for one in answer.json["data"]))
        if answer.json["next_cursor"] is None:
            assert "link" not in answer.headers
            return pages
        url = answer.headers["link"].partition(">")[0].removeprefix("<")
        assert f"cursor={answer.json['next_cursor']}" in url
        assert more in url
    raise AssertionError(pages)


ORDERS = {
    "name": ["aa", "bb", "c"],
    "-name": ["cb", "ba", "a"],
    "-created_at": ["ba", "ca", "b"],
    "id": ["ba", "ca", "b"],
}


@pytest.mark.parametrize("path", ["/rows", "/entities"])
async def test_every_row_is_on_one_page(app: Starlette, path: str) -> None:
    for order, pages in ORDERS.items():
        assert await walk(app, f"{path}?limit=2&order={order}", f"order={order}") == pages
    assert await walk(app, f"{path}?limit=5") == ["aabbc"]
    assert await walk(app, f"{path}?limit=1&id_from=4&order=-id", "id_from=4") == ["b", "a"]


async def test_without_an_order_it_is_that_of_the_primary_key(app: Starlette) -> None:
    assert await walk(app, "/by-key?limit=3") == ["bac", "ab"]


async def test_a_row_that_is_deleted_or_inserted_moves_no_other(app: Starlette) -> None:
    first = await call(app, "GET", "/rows?limit=2&order=-id")
    await User.filter(id__in=[4, 5]).delete(auto_commit=True)
    await User.create(id=6, email="6@example.com", name="x", auto_commit=True)

    second = await call(app, "GET", first.headers["link"].partition(">")[0].removeprefix("<"))

    assert [one["name"] for one in second.json["data"]] == ["c", "a"]


@pytest.mark.parametrize(
    "url",
    ["/rows?limit=2&order=-name&cursor=", "/rows?limit=2&id_from=1&cursor=", "/entities?limit=2&cursor="],
    ids=["another order", "other filters", "another list"],
)
async def test_a_cursor_is_for_one_list(app: Starlette, url: str) -> None:
    first = await call(app, "GET", "/rows?limit=2")

    assert_problem(await call(app, "GET", url + first.json["next_cursor"]), 400, "invalid_cursor")


@pytest.mark.parametrize(
    ("found", "order_by", "says"),
    [
        (lambda: User.filter().order_by("id"), None, "a page takes a query without order_by"),
        (lambda: User.filter().limit(3).into(Row), None, "a page takes a query without order_by"),
        (lambda: User.filter().offset(3), None, "a page takes a query without order_by"),
        (User.filter, "quota", r"User\.quota can be NULL"),
        (User.filter, "nmae", "User has no column 'nmae'"),
    ],
)  # fmt: skip
async def test_a_list_that_cannot_be_paged_is_named(found: Any, order_by: str | None, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        await page_of(found(), order_by=order_by, after=None, limit=2)


async def test_a_type_that_is_not_known_beforehand_is_refused_by_the_first_row() -> None:
    await ApiKey.create(
        access_key="lka_paged", user_id=1, name="k", mode="bearer", scopes=("me:read",), auto_commit=True
    )

    with pytest.raises(TypeError, match="a list cannot be paged by a value of the type tuple"):
        await page_of(ApiKey.filter(), order_by="scopes", after=None, limit=50)


async def test_the_last_collection_of_a_process_does_not_visit_pages() -> None:
    """The handlers at exit run in the reverse order, so that the one of this process runs last."""
    script = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); import latchkey"

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    printed, _ = await process.communicate()

    assert (process.returncode, printed) == (0, b"True\n")
