"""The pages of the service for people: plain HTML with one style sheet, which is part of the page."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from string import Template
from typing import Any

from latchkey.middleware.root_path import public_path
from latchkey.service.pages import files

STYLE = files.read("page.css").decode()
_HASH = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy of these pages: their own style sheet and nothing else."""
_PAGE = Template(files.read("page.html").decode())

LINKS = {
    "docs": "The reference of the API, which can call it",
    "openapi": "The OpenAPI description, for tools",
    "health": "Whether the process responds",
    "readiness": "Whether the database responds too",
    "me": "The key that calls, and its owner; requires a credential",
}
KINDS = {"4": "The request can be corrected.", "5": "The request is not at fault."}


def layout(title: str, body: str) -> str:
    """Return a whole page; the title is plain text and the body is HTML."""
    return _PAGE.substitute(title=escape(title), style=STYLE, body=body, home=escape(public_path("/")))


def home(content: Mapping[str, Any]) -> str:
    """Return the page of the service."""
    rows = "".join(
        f'<li><a href="{escape(public_path(path))}"><code>{escape(path)}</code></a>'
        f"<span>{escape(LINKS.get(name, name))}</span></li>"
        for name, path in sorted(content["links"].items(), key=lambda one: list(LINKS).index(one[0]))
    )
    return layout(
        content["name"],
        f"<h1>{escape(content['name'])} <small>{escape(content['version'])}</small></h1>"
        f"<p>This service answers the calls that partners make with API keys.</p><ul class=links>{rows}</ul>",
    )


def explanation(content: Mapping[str, Any]) -> str:
    """Return the page that explains a problem."""
    status = str(content["status"])
    return layout(
        content["title"],
        f"<p class=status>{escape(status)} <code>{escape(content['code'])}</code></p>"
        f"<h1>{escape(content['title'])}</h1><p>{escape(content['explanation'])}</p>"
        f"<p class=note>{KINDS[status[0]]} Programs recognize this problem by its <code>code</code>.</p>",
    )


def problem(content: Mapping[str, Any]) -> str:
    """Return the page of a problem that is the response."""
    return layout(
        content["title"],
        f"<p class=status>{content['status']} <code>{escape(content['code'])}</code></p>"
        f"<h1>{escape(content['title'])}</h1><p>{escape(content['detail'])}</p>"
        f"<p class=note>Request <code>{escape(str(content['request_id']))}</code></p>",
    )
