"""The reference in a browser: it loads, authorizes and executes calls, and asks no other host."""

import json
import re

import pytest
from playwright.async_api import Locator, Page

from tests.api import hold_key
from tests.browser import browsing
from tests.server.conftest import Serving

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def authorize(page: Page, secret: str) -> None:
    await page.locator("button.authorize").first.click()
    form = page.locator(".auth-container", has_text="bearer").first
    await form.locator("input").fill(secret)
    await form.get_by_role("button", name="Apply").or_(form.locator("button.authorize")).first.click()
    await page.locator(".btn-done").first.click()


async def execute(page: Page, operation: str, body: str | None = None) -> Locator:
    """Execute an operation, and return its response."""
    block = page.locator(f"[id$={operation}]")
    await block.locator(".opblock-summary-control").click()
    await block.locator(".try-out__btn").click()
    if body is not None:
        await block.locator("textarea.body-param__text").fill(body)
    await block.locator("button.execute").click()
    return block.locator(".live-responses-table .response").first


@on_sqlite
async def test_the_reference_executes_calls_in_a_browser(serving: Serving) -> None:
    key = await hold_key(serving.app)
    async with browsing() as watched:
        page = watched.page
        await page.goto(f"{serving.url}/docs")
        await page.locator(".opblock").first.wait_for()
        await authorize(page, key.secret)

        me = await execute(page, "read_me")
        made = await execute(page, "create_user", json.dumps({"email": "ann@example.com", "name": "Ann"}))

        assert "200" in await me.locator(".response-col_status").inner_text()
        assert key.access_key in await me.locator(".response-col_description").inner_text()
        assert "201" in await made.locator(".response-col_status").inner_text()
        assert re.search(r"ann@example\.com", await made.locator(".response-col_description").inner_text())
        assert watched.outside(serving.url) == []
        assert watched.complaints == []
        assert f"{serving.url}/v1/me" in watched.requests
