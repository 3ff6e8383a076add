"""The reference at `/docs`: what is served, and the policy that the browser enforces."""

import gzip
import re
from collections.abc import Sequence

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.app import create_app
from latchkey.service.operation import Operation, RouteError, route
from latchkey.service.pages import files
from latchkey.service.settings import Settings
from latchkey.service.shapes import Health
from tests.api import assert_problem, call

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PATHS = ["/docs", *(f"/docs/{name}" for name in files.REFERENCE)]


async def read_mine() -> Health:
    return Health(status="ok")


MINE = route("GET", "/docs", read_mine, public=True)


@pytest.mark.parametrize("path", PATHS)
async def test_a_file_is_served_without_a_key_under_the_policy(app: Starlette, path: str) -> None:
    answer = await call(app, "GET", path)

    assert answer.status == 200
    assert answer.body
    assert answer.headers["content-security-policy"] == files.POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["vary"] == "accept-encoding"


def test_the_policy_permits_no_inline_script_and_no_other_host(database_url: str) -> None:
    rules = dict(one.strip().split(" ", 1) for one in files.POLICY.split(";"))

    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["img-src"] == "'self' data:"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert not re.search(r"unsafe|\*|https?:", files.POLICY)


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/docs.js", "text/javascript; charset=utf-8"),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
        ("/docs/favicon-32x32.png", "image/png"),
        ("/docs/LICENSE", "text/plain; charset=utf-8"),
    ],
)
async def test_a_file_has_its_type(app: Starlette, path: str, kind: str) -> None:
    assert (await call(app, "GET", path)).headers["content-type"] == kind


async def test_the_page_is_answered_at_its_own_path(app: Starlette) -> None:
    page = await call(app, "GET", "/docs")
    head = await call(app, "HEAD", "/docs")
    slash = await call(app, "GET", "/docs/")

    assert (page.status, page.body) == (200, files.read("docs.html"))
    assert (head.status, head.headers["content-length"]) == (200, str(len(page.body)))
    assert_problem(slash, 404, "not_found")


async def test_the_page_has_only_relative_urls_and_no_script_of_its_own(app: Starlette) -> None:
    """They stay under the path at which a proxy publishes the service."""
    page = (await call(app, "GET", "/docs")).body.decode()
    urls = re.findall(r'(?:src|href)="([^"]*)"', page)

    assert len(urls) == 6
    assert [url for url in urls if ":" in url or url.startswith("/")] == []
    assert set(urls) == {"openapi.json", *(f"docs/{url.removeprefix('docs/')}" for url in urls if "/" in url)}
    assert {url.removeprefix("docs/") for url in urls if "/" in url} <= files.REFERENCE.keys()
    assert re.findall(r"<script(?! src=)|<style|\bon\w+=|\bstyle=", page) == []


async def test_a_browser_asks_again_with_the_tag(app: Starlette) -> None:
    path = "/docs/swagger-ui-bundle.js"

    plain = await call(app, "GET", path)
    packed = await call(app, "GET", path, headers=[("accept-encoding", "gzip, br")])
    again = await call(app, "GET", path, headers=[("if-none-match", plain.headers["etag"])])

    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 3
    assert packed.headers["etag"] != plain.headers["etag"]
    assert (again.status, again.body) == (304, b"")
    assert again.headers["content-security-policy"] == files.POLICY


@pytest.mark.parametrize(
    "name", ["nothing.js", "docs.html", "VENDORED.toml", "..", "%2e%2e%2fcontent.py", "swagger-ui"]
)
async def test_no_other_file_is_served(app: Starlette, name: str) -> None:
    assert_problem(await call(app, "GET", f"/docs/{name}"), 404, "not_found")


async def test_the_description_does_not_list_the_pages(app: Starlette) -> None:
    described = (await call(app, "GET", "/openapi.json")).json["paths"]

    assert [path for path in described if path.startswith("/docs")] == []
    assert (await call(app, "GET", "/")).json["links"]["docs"] == "/docs"


def test_a_route_of_a_team_at_the_same_place_is_refused(settings: Settings) -> None:
    with pytest.raises(RouteError, match="GET /docs is declared twice"):
        create_app(settings, routes=[MINE])


class TestSwitchedOff:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, docs=False)

    @pytest.fixture
    def routes(self) -> Sequence[Operation]:
        return [MINE]

    async def test_the_place_is_free_for_a_team(self, app: Starlette) -> None:
        assert_problem(await call(app, "GET", "/docs/docs.js"), 404, "not_found")
        assert (await call(app, "GET", "/docs")).json == {"status": "ok"}
        assert "docs" not in (await call(app, "GET", "/")).json["links"]
        assert (await call(app, "GET", "/openapi.json")).status == 200
