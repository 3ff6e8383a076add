"""Chromium without a window, as the system installed it, and a record of what a page did."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright

REQUIRE = "LATCHKEY_TEST_REQUIRE_CHROMIUM"


class Watched(msgspec.Struct):
    """A page, the URLs that it requested, and what the console of the browser showed."""

    page: Page
    requests: list[str] = []
    complaints: list[str] = []

    def outside(self, origin: str) -> list[str]:
        """Return the requests to another origin; `data:` is no request."""
        return [url for url in self.requests if not url.startswith((f"{origin}/", "data:"))]


def chromium() -> str:
    """Return the program; skip the test, or fail where it is required, if there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is not None:
        return found
    reason = "chromium not found: apt-get install chromium"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextlib.asynccontextmanager
async def browsing(**context: Any) -> AsyncIterator[Watched]:
    """Open a page in a new browser; the arguments are those of `Browser.new_context`."""
    program = chromium()
    async with async_playwright() as playwright:
        # As root, Chromium has no sandbox; the page is ours.
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            watched = Watched(await (await browser.new_context(**context)).new_page())

            def note(message: ConsoleMessage) -> None:
                if message.type in {"error", "warning"}:
                    watched.complaints.append(f"{message.type}: {message.text}")

            watched.page.on("request", lambda request: watched.requests.append(request.url))
            watched.page.on("console", note)
            watched.page.on("pageerror", lambda error: watched.complaints.append(str(error)))
            yield watched
        finally:
            await browser.close()
