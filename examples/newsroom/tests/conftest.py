"""Callers and an article; the fixture `latchkey` is that of Latchkey's pytest plugin.

`pip install pytest httpx2` installs the requirements.
`LATCHKEY_TEST_DATABASE_URL` names an empty database on a server; without it, the tests use an SQLite file.
"""

from typing import Any

import pytest

from latchkey.testing import Client, PartnerClient, RunningApp


@pytest.fixture
def anybody(latchkey: RunningApp) -> Client:
    """Return a client without a key."""
    return latchkey.client_without_key()


@pytest.fixture
def ops(latchkey: RunningApp) -> PartnerClient:
    """Return the client of an operator."""
    return latchkey.client("members:write", "articles:moderate", "articles:write", "comments:write")


@pytest.fixture
def author(latchkey: RunningApp) -> PartnerClient:
    """Return the client of an author, whose calls are signed."""
    return latchkey.client("articles:write", "comments:write", mode="signed")


@pytest.fixture
def reader(latchkey: RunningApp) -> PartnerClient:
    """Return the client of a reader."""
    return latchkey.client("comments:write")


@pytest.fixture
def article(author: Client) -> dict[str, Any]:
    """Return an article of the author."""
    return publish(author)


def publish(author: Client, **fields: Any) -> dict[str, Any]:
    """Publish an article over HTTP."""
    body = {"title": "Rain", "body": "It rained.", "tags": ["weather"], **fields}
    published = author.post("/v1/articles", json=body)
    assert published.status_code == 201, published.text
    found: dict[str, Any] = published.json()
    return found
