"""The pages of `/` and `/problems/{code}`: HTML where the client asks for it, JSON otherwise."""

import hashlib
import re
from base64 import b64encode

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.operation import RouteError, route
from latchkey.service.pages import html
from latchkey.service.problems.kinds import KINDS
from latchkey.service.settings import Settings
from latchkey.service.shapes import Health
from tests.api import call
from tests.requests import Answer

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

BROWSER = [("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")]


def assert_page(answer: Answer, status: int = 200) -> str:
    """Assert that an answer is a whole page under its policy, and return it."""
    page = answer.body.decode()
    assert answer.status == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["content-security-policy"] == html.POLICY
    assert answer.headers["vary"] == "accept"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert re.findall(r"<script|\bon\w+=|\sstyle=|https?://", page) == []
    return page


@pytest.mark.parametrize("path", ["/", "/problems/conflict", "/problems/no_such_code"])
async def test_json_is_for_programs_and_both_vary(app: Starlette, path: str) -> None:
    for accept in ("*/*", "application/json", "text/html, application/json"):
        answer = await call(app, "GET", path, headers=[("accept", accept)])

        assert answer.headers["vary"] == "accept"
        assert "json" in answer.headers["content-type"]
        assert isinstance(answer.json, dict)
    without = await call(app, "GET", path)
    assert (without.json.keys(), without.headers["vary"]) == (answer.json.keys(), "accept")


async def test_the_home_links_to_what_there_is(app: Starlette) -> None:
    page = assert_page(await call(app, "GET", "/", headers=BROWSER))
    links = (await call(app, "GET", "/")).json["links"]

    assert links.keys() == html.LINKS.keys()
    assert set(re.findall(r'href="([^"]*)"', page)) == {"/", *links.values()}


@pytest.mark.parametrize("code", KINDS)
async def test_every_problem_has_a_page(app: Starlette, code: str) -> None:
    page = assert_page(await call(app, "GET", f"/problems/{code}", headers=BROWSER))

    assert f"<h1>{KINDS[code].title}</h1>" in page.replace("&#x27;", "'")
    assert code in page


async def test_an_unknown_problem_is_a_page_with_its_status(app: Starlette) -> None:
    answer = await call(app, "GET", "/problems/%3Cscript%3E", headers=BROWSER)

    assert "not_found" in assert_page(answer, 404)
    assert answer.headers["cache-control"] == "no-store"


async def test_the_head_of_a_page_is_that_of_the_page(app: Starlette) -> None:
    page = await call(app, "GET", "/", headers=BROWSER)
    head = await call(app, "HEAD", "/", headers=BROWSER)

    assert head.headers["content-length"] == page.headers["content-length"]


async def test_a_parameter_that_is_refused_is_a_page_too(app: Starlette) -> None:
    answer = await call(app, "GET", "/?%3Cb%3E=1", headers=BROWSER)

    assert "&lt;b&gt;" in assert_page(answer, 400)
    assert "<b>" not in answer.body.decode()


async def test_the_policy_permits_the_style_sheet_of_the_page(app: Starlette) -> None:
    page = (await call(app, "GET", "/", headers=BROWSER)).body.decode()
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)

    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in html.POLICY


async def test_the_other_paths_answer_json_to_a_browser(app: Starlette) -> None:
    for path in ("/healthz", "/v1/me", "/nowhere"):
        answer = await call(app, "GET", path, headers=BROWSER)
        assert "json" in answer.headers["content-type"]


class TestUnderAPath:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, root_path="/partners")

    async def test_links_carry_it(self, app: Starlette) -> None:
        page = assert_page(await call(app, "GET", "/", headers=BROWSER))

        assert [one for one in re.findall(r'href="([^"]*)"', page) if not one.startswith("/partners/")] == []


def test_only_a_public_read_has_a_page(database_url: str) -> None:
    async def read() -> Health:
        return Health(status="ok")

    with pytest.raises(RouteError, match="page= is for public endpoints"):
        route("GET", "/v1/x", read, any_key=True, page=html.home)
    with pytest.raises(RouteError, match="page= is for public endpoints"):
        route("POST", "/v1/x", read, public=True, page=html.home)
