"""The application from the outside, on an empty database; `pip install pytest httpx2` installs the requirements."""

import subprocess
import sys

import pytest

from latchkey.testing import PartnerClient, RunningApp


@pytest.fixture(scope="session")
def latchkey_environ() -> dict[str, str]:
    """Return the settings of the application under test."""
    return {"ORDERS_LARGEST_ORDER": "10"}


@pytest.fixture
def partner(latchkey: RunningApp) -> PartnerClient:
    """Return a client that signs its calls."""
    return latchkey.client("orders:read", "orders:write", mode="signed")


def test_an_order_is_placed_listed_and_closed_once(partner: PartnerClient) -> None:
    placed = partner.post("/v1/orders", json={"item": "paper", "pieces": 3})
    listed = partner.get("/v1/orders")
    closed = partner.post(f"{placed.headers['location']}/close")
    again = partner.post(f"{placed.headers['location']}/close")

    assert placed.status_code == 201
    assert listed.json()["data"] == [placed.json()]
    assert closed.json() == {**placed.json(), "status": "closed"}
    assert (again.status_code, again.json()["code"]) == (409, "order_closed")


def test_an_order_that_is_too_large_is_refused(partner: PartnerClient) -> None:
    refused = partner.post("/v1/orders", json={"item": "paper", "pieces": 11})

    assert (refused.status_code, refused.json()["code"]) == (422, "order_too_large")
    assert partner.get("/problems/order_too_large").json()["title"] == "The order is too large"


def test_anybody_reads_the_terms_and_a_partner_more(latchkey: RunningApp, partner: PartnerClient) -> None:
    partner.post("/v1/orders", json={"item": "paper", "pieces": 3})

    anonymous = latchkey.client_without_key().get("/v1/terms")
    known = partner.get("/v1/terms")
    wrong = latchkey.client_with("nonsense").get("/v1/terms")

    assert anonymous.json() == {"carrier": "post", "largest_order": 10, "open_orders": None}
    assert known.json()["open_orders"] == 1
    assert wrong.status_code == 401


def test_a_new_partner_places_orders(latchkey: RunningApp) -> None:
    ops = latchkey.client("partners:write")

    created = ops.post("/v1/partners", json={"email": "bob@example.com", "name": "Bob"})
    placed = latchkey.client_with(created.json()["secret"]).post(
        "/v1/orders", json={"item": "ink", "pieces": 1}
    )

    assert (created.status_code, placed.status_code) == (201, 201)


def test_the_command_imports(partner: PartnerClient) -> None:
    """In a separate process, because each process has one open database."""
    command = [sys.executable, "-m", "orders", "import", partner.email, "ink", "pens"]
    imported = subprocess.run(command, capture_output=True, text=True, check=True)

    assert imported.stdout == "2\n"
    assert [one["item"] for one in partner.get("/v1/orders").json()["data"]] == ["pens", "ink"]


def test_the_migrations_create_what_the_models_describe(latchkey: RunningApp) -> None:
    latchkey.assert_migrated()
