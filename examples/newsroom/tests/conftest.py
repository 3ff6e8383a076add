"""The whole application on a new database; `pip install pytest httpx2` installs the requirements.

`TEST_DATABASE_URL` names an empty database on a server; without it, the tests use an SQLite file.
"""

import json
import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from httpx2 import Client, Response
from starlette.testclient import TestClient

from latchkey import SignedCall, sign_call
from newsroom.__main__ import main
from newsroom.app import create_app


def command(*arguments: str) -> str:
    """Run a command of this package while no application is open, and return its output."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


class Caller:
    """A caller with a bearer key, with a key that signs, or without a key."""

    def __init__(self, client: Client, member: dict[str, Any] | None = None, *, signs: bool = False) -> None:
        self.client = client
        self.member = member or {}
        self.signs = signs

    @property
    def id(self) -> int:
        return int(self.member["id"])

    def __call__(self, method: str, target: str, body: Any = None, **headers: str) -> Response:
        content = b"" if body is None else json.dumps(body).encode()
        if self.signs:
            call = self.sign(method, f"{self.client.base_url}{target}", content or None)
            return self.client.request(method, call.url, content=content, headers={**headers, **call.headers})
        if content:
            headers["content-type"] = "application/json"
        if self.member:
            headers["authorization"] = f"Bearer {self.member['secret']}"
        return self.client.request(method, target, content=content, headers=headers)

    def sign(self, method: str, url: str, content: bytes | None) -> SignedCall:
        """Sign a call as a partner does, with a signed query."""
        return sign_call(
            method,
            url,
            access_key=self.member["access_key"],
            secret=self.member["secret"],
            body=content,
        )


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Migrate a database, and return a key with the scopes of an operator, which only the command line can issue."""
    folder = tmp_path_factory.mktemp("newsroom")
    os.environ["LATCHKEY_DATABASE_URL"] = os.environ.get(
        "TEST_DATABASE_URL", f"sqlite+aiosqlite:///{folder / 'newsroom.db'}"
    )
    os.environ["LATCHKEY_KEYRING"] = command("keyring").strip()
    command("migrate")
    command("migrate", "--check")
    command("users", "create", "--email", "ops@example.com", "--name", "Operations")
    created = command(
        *("keys", "create", "--user", "ops@example.com", "--name", "first", "--mode", "bearer", "--json"),
        *("--scopes", "members:write,articles:write,comments:write,articles:moderate"),
    )
    found: dict[str, Any] = json.loads(created)
    return found


@pytest.fixture(scope="session")
def client(operator: dict[str, Any]) -> Iterator[TestClient]:
    """Open the application once for all tests: each works with members and articles of its own."""
    with TestClient(create_app()) as client:
        yield client


@pytest.fixture
def anybody(client: TestClient) -> Caller:
    """Return a caller without a key."""
    return Caller(client)


@pytest.fixture
def ops(client: TestClient, operator: dict[str, Any]) -> Caller:
    """Return the caller with the key of the command line."""
    return Caller(client, operator)


@pytest.fixture
def author(ops: Caller) -> Caller:
    """Return a new author, whose calls are signed."""
    return add_member(ops, "author")


@pytest.fixture
def reader(ops: Caller) -> Caller:
    """Return a new reader."""
    return add_member(ops, "reader")


def add_member(ops: Caller, role: str) -> Caller:
    """Add a member over HTTP."""
    email = f"{secrets.token_hex(8)}@example.com"
    added = ops("POST", "/v1/members", {"email": email, "name": "Ann", "role": role})
    assert added.status_code == 201, added.text
    return Caller(ops.client, added.json(), signs=role == "author")


@pytest.fixture
def article(author: Caller) -> dict[str, Any]:
    """Return a new article."""
    return publish(author)


def publish(author: Caller, **fields: Any) -> dict[str, Any]:
    """Publish an article over HTTP."""
    body = {"title": f"Rain {secrets.token_hex(8)}", "body": "It rained.", "tags": ["weather"], **fields}
    published = author("POST", "/v1/articles", body)
    assert published.status_code == 201, published.text
    found: dict[str, Any] = published.json()
    return found
