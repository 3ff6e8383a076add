"""Which clients get a page, and which get JSON."""

import pytest

from latchkey.service.pages.negotiation import prefers_html

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    "header, is_html",
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML", True),
        ("text/*", True),
        ("text/html;level=1", True),
        ("text/html; q=0.9, application/json; q=0.8", True),
        ("application/json;q=0.1,text/html;q=0.2", True),
        ("text/html, application/json;q=0", True),
        ("text/html ; q=0.001", True),
        (None, False),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/problem+json, text/html;q=0.9", False),
        ("text/html, application/json", False),
        ("text/html;q=0.5, */*;q=0.5", False),
        ("text/html;q=0, */*", False),
        ("text/html;q=0", False),
        ("text/html;q=2", False),
        ("text/html;q=x", False),
        ("text/html;q=0.1234", False),
        ("text/*;q=0.3, application/*;q=0.4", False),
        ("text/plain", False),
        (",;,;q=1", False),
        (",".join(["a/b"] * 60) + ",text/html", False),
    ],
)
def test_html_is_for_a_client_that_prefers_it(header: str | None, is_html: bool) -> None:
    assert prefers_html(header) is is_html
