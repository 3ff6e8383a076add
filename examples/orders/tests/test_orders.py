"""The application from the outside, on a new database; `pip install pytest httpx2` installs the requirements."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from orders.__main__ import main
from orders.app import create_app


def command(*arguments: str) -> str:
    """Run a command of this package while no application is open, and return its output."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Return a client with the first key of the scope `partners:write`, which only the command line can create."""
    monkeypatch.setenv("LATCHKEY_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path / 'orders.db'}")
    monkeypatch.setenv("LATCHKEY_KEYRING", command("keyring").strip())
    monkeypatch.setenv("ORDERS_LARGEST_ORDER", "10")
    command("migrate")
    command("users", "create", "--email", "ops@example.com", "--name", "Operations")
    created = command(
        *("keys", "create", "--user", "ops@example.com", "--name", "first", "--mode", "bearer"),
        *("--scopes", "partners:write"),
    )
    secret = next(line.split()[1] for line in created.splitlines() if line.startswith("secret "))
    with TestClient(create_app(), headers={"authorization": f"Bearer {secret}"}) as client:
        yield client


@pytest.fixture
def partner(client: TestClient) -> dict[str, str]:
    """Return the header of a partner that was created over HTTP."""
    created = client.post("/v1/partners", json={"email": "ann@example.com", "name": "Ann"})
    assert created.status_code == 201, created.text
    return {"authorization": f"Bearer {created.json()['secret']}"}


def test_an_order_is_placed_listed_and_closed_once(client: TestClient, partner: dict[str, str]) -> None:
    placed = client.post("/v1/orders", json={"item": "paper", "pieces": 3}, headers=partner)
    listed = client.get("/v1/orders", headers=partner)
    closed = client.post("/v1/orders/1/close", headers=partner)
    again = client.post("/v1/orders/1/close", headers=partner)

    assert (placed.status_code, placed.headers["location"]) == (201, "/v1/orders/1")
    assert listed.json()["data"] == [placed.json()]
    assert closed.json() == {**placed.json(), "status": "closed"}
    assert (again.status_code, again.json()["code"]) == (409, "order_closed")


def test_an_order_that_is_too_large_is_refused(client: TestClient, partner: dict[str, str]) -> None:
    refused = client.post("/v1/orders", json={"item": "paper", "pieces": 11}, headers=partner)

    assert (refused.status_code, refused.json()["code"]) == (422, "order_too_large")
    assert client.get("/problems/order_too_large").json()["title"] == "The order is too large"


def test_anybody_reads_the_terms_and_a_partner_more(client: TestClient, partner: dict[str, str]) -> None:
    client.post("/v1/orders", json={"item": "paper", "pieces": 3}, headers=partner)
    del client.headers["authorization"]

    anonymous = client.get("/v1/terms")
    known = client.get("/v1/terms", headers=partner)
    wrong = client.get("/v1/terms", headers={"authorization": "Bearer nonsense"})

    assert anonymous.json() == {"carrier": "post", "largest_order": 10, "open_orders": None}
    assert known.json()["open_orders"] == 1
    assert wrong.status_code == 401


def test_the_command_imports(client: TestClient, partner: dict[str, str]) -> None:
    """In a separate process, because each process has one open database."""
    imported = subprocess.run(
        [sys.executable, "-m", "orders", "import", "ann@example.com", "ink", "pens"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert imported.stdout == "2\n"
    items = [one["item"] for one in client.get("/v1/orders", headers=partner).json()["data"]]
    assert items == ["pens", "ink"]
