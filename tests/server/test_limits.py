"""Limits are exact over several processes, which share only the database."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from latchkey.models.limit import Credits, Quota, RateLimit
from latchkey.service.app import create_app
from latchkey.service.authentication import lookup
from latchkey.service.limits.account import accounts_of
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import KEYRING, on_mariadb, opened
from tests.processes import Served
from tests.server.conftest import PROCESSES
from tests.service.gate.asking import FAMILIES, GATE, NGINX, described
from tests.service.limits.rules import limit, limit_owner, per_day

CALLS = 1000
CLIENTS = 32
EMAIL = "partner@example.com"

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

CASES = [
    # limits, quota, the owner's limits, how many get through, what is left
    pytest.param([limit("burst", 300, 3600)], None, [], 300, {"burst": 0}, id="a limit"),
    pytest.param([], per_day(500), [], 500, {"quota": 0}, id="a quota"),
    pytest.param(
        [limit("few", 300, 3600), limit("many", 400, 3600)], None, [], 300, {"few": 0, "many": 100}, id="two"
    ),
    pytest.param(
        [limit("many", 400, 3600)], None, [limit("few", 300, 3600)], 300, {"many": 100, "owner.few": 0},
        id="a key and its owner",
    ),
]  # fmt: skip


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Starlette]:
    """Return the application in this process, to create keys and to read the counters."""
    async with opened(lambda: create_app(settings), settings) as app:
        yield app


async def spend(ports: Sequence[int], key: HeldKey) -> Counter[int]:
    """Make calls from many clients at once, to each port in turn; return the number of answers by status."""
    name, value = key.bearer
    request = f"GET /v1/me HTTP/1.1\r\nhost: x\r\n{name}: {value}\r\n\r\n".encode()
    statuses: Counter[int] = Counter()
    calls = iter(range(CALLS))

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in calls:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            await reader.readexactly(int(fields[b"content-length"]))
            statuses[int(head.split(b" ", 2)[1])] += 1
            assert b"ratelimit" in fields
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(ports[number % len(ports)]))
    return statuses


async def left(app: Starlette, key: HeldKey) -> dict[str, int]:
    """Return the rest of each rule."""
    async with app.state.db.scoped_session() as session:
        found = await lookup.by_access_key(session, key.access_key)
    accounts = accounts_of(found)
    return {
        figure.name: figure.remaining for figure in await app.state.latchkey.limits._charger.look(accounts)
    }


async def assert_exact(
    app: Starlette,
    ports: Sequence[int],
    limits: Sequence[RateLimit],
    quota: Quota | None,
    owners: Sequence[RateLimit],
    through: int,
    remaining: dict[str, int],
) -> None:
    """Make more calls than allowed, and assert that exactly the allowed number succeeded and was counted."""
    key = await hold_key(app, scopes=[], email=EMAIL, limits=limits, quota=quota)
    await limit_owner(app, key.user_id, *owners)

    statuses = await spend(ports, key)

    assert statuses == {200: through, 429: CALLS - through}
    assert await left(app, key) == remaining


@on_mariadb
@pytest.mark.parametrize("limits, quota, owners, through, remaining", CASES)
async def test_four_processes_let_exactly_so_many_through(
    app: Starlette,
    processes: list[Served],
    limits: list[Any],
    quota: Quota | None,
    owners: list[Any],
    through: int,
    remaining: dict[str, int],
) -> None:
    assert len(processes) == PROCESSES

    await assert_exact(app, [one.port for one in processes], limits, quota, owners, through, remaining)


@on_mariadb
async def test_verifications_by_four_processes_are_charged_exactly(
    app: Starlette, processes: list[Served]
) -> None:
    """Another service asks all processes at once."""
    key = await hold_key(app, scopes=[], email=EMAIL, limits=[limit("burst", 300, 3600)])
    service = await hold_key(app, scopes=["keys:verify"], email="orders@example.com")
    codes: Counter[str] = Counter()
    calls = iter(range(CALLS))

    async def ask(port: int) -> None:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=[service.bearer]
        ) as client:
            for _ in calls:
                answer = await client.post("/v1/keys/verify", json={"credential": key.secret}, timeout=60)
                codes[answer.json()["code"]] += 1

    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(ask(processes[number % PROCESSES].port))

    assert codes == {"valid": 300, "rate_limited": CALLS - 300}
    assert await left(app, key) == {"burst": 0}


@on_mariadb
async def test_credits_are_spent_exactly_by_calls_verifications_and_the_gate_of_four_processes(
    app: Starlette, processes: list[Served]
) -> None:
    """Half of the credits are added while they are spent."""
    operator = await hold_key(app)
    service = await hold_key(app, scopes=["keys:verify"], email="orders@example.com")
    key = await hold_key(app, scopes=[], email=EMAIL, credits=Credits(remaining=250))
    added = f"/v1/keys/{key.access_key}/credits"
    codes: Counter[str] = Counter()
    calls = iter(range(CALLS))

    async def ask(port: int) -> None:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for number in calls:
                if number % 20 == 0 and number < 500:
                    done = await client.post(added, json={"delta": 10}, headers=[operator.bearer])
                    assert done.status_code == 200, done.text
                if number % 3 == 1:
                    answer = await client.get(GATE, headers=[*described("GET", "/orders/7"), key.bearer])
                    codes["valid" if answer.status_code == 204 else answer.json()["code"]] += 1
                elif number % 3:
                    body = {"credential": key.secret}
                    answer = await client.post("/v1/keys/verify", json=body, headers=[service.bearer])
                    codes[answer.json()["code"]] += 1
                else:
                    answer = await client.get("/v1/me", headers=[key.bearer])
                    codes["valid" if answer.status_code == 200 else answer.json()["code"]] += 1

    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(ask(processes[number % PROCESSES].port))

    assert codes == {"valid": 500, "credits_used_up": CALLS - 500}
    assert await left(app, key) == {"credits": 0}


@on_mariadb
@pytest.mark.parametrize(
    "bounds, through, refusal, remaining",
    [
        pytest.param(
            {"limits": [limit("burst", 300, 3600)]}, 300, "rate_limited", {"burst": 0}, id="a limit"
        ),
        pytest.param(
            {"credits": Credits(remaining=500)}, 500, "credits_used_up", {"credits": 0}, id="credits"
        ),
    ],
)
async def test_the_gate_and_verifications_of_four_processes_charge_exactly(
    app: Starlette,
    processes: list[Served],
    bounds: dict[str, Any],
    through: int,
    refusal: str,
    remaining: dict[str, int],
) -> None:
    """A third each: the gate, the gate for nginx, verifications."""
    service = await hold_key(app, scopes=["keys:verify"], email="orders@example.com")
    key = await hold_key(app, scopes=[], email=EMAIL, **bounds)
    codes: Counter[str] = Counter()
    calls = iter(range(CALLS))

    async def ask(port: int) -> None:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for number in calls:
                if number % 3 == 0:
                    body = {"credential": key.secret}
                    answer = await client.post("/v1/keys/verify", json=body, headers=[service.bearer])
                    codes[answer.json()["code"]] += 1
                    continue
                gate = NGINX if number % 3 == 1 else GATE
                described_by = described("GET", "/orders/7", family=FAMILIES[gate])
                answer = await client.get(gate, headers=[*described_by, key.bearer])
                codes["valid" if answer.status_code == 204 else answer.json()["code"]] += 1

    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(ask(processes[number % PROCESSES].port))

    assert codes == {"valid": through, refusal: CALLS - through}
    assert await left(app, key) == remaining


@on_sqlite
@pytest.mark.parametrize("limits, quota, owners, through, remaining", CASES)
async def test_one_process_on_sqlite_lets_exactly_so_many_through(
    app: Starlette,
    settings: Settings,
    tmp_path: Path,
    limits: list[Any],
    quota: Quota | None,
    owners: list[Any],
    through: int,
    remaining: dict[str, int],
) -> None:
    environ = {"LATCHKEY_DATABASE_URL": settings.database_url, "LATCHKEY_KEYRING": KEYRING}
    with Served(tmp_path, "serve", environ=environ) as served:
        await assert_exact(app, [served.port], limits, quota, owners, through, remaining)


@on_mariadb
async def test_two_keys_of_an_owner_share_exactly_what_is_the_owners(
    app: Starlette, processes: list[Served]
) -> None:
    """Two keys at once, each over all processes: their counters are written together with the owner's."""
    keys = [await hold_key(app, scopes=[], email=EMAIL, limits=[limit("own", 1000, 3600)]) for _ in range(2)]
    await limit_owner(app, keys[0].user_id, limit("shared", 300, 3600), quota=per_day(2000))
    ports = [one.port for one in processes]

    found = await asyncio.gather(*(spend(ports, key) for key in keys))

    through = [statuses[200] for statuses in found]
    assert sum(through) == 300
    assert found[0] + found[1] == Counter({200: 300, 429: 2 * CALLS - 300})
    for key, got in zip(keys, through, strict=True):
        assert await left(app, key) == {"own": 1000 - got, "owner.shared": 0, "owner.quota": 1700}
