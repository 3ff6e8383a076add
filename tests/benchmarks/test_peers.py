"""Every peer gives Latchkey's answers, and a peer with different answers is detected."""

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks import growth, jobs, likeness, rows
from benchmarks.jobs import PEERS
from benchmarks.likeness import UnlikeError
from benchmarks.machine import share_cores
from benchmarks.measure import References
from benchmarks.rows import Database, HeldKey
from benchmarks.servers import BenchmarkServerError, Server, ServerVariant, environ_of
from tests.mariadb import PrivateMariaDB, require_or_skip

NEEDS = {
    "litestar_alchemy": "advanced_alchemy",
    "async_sqlalchemy": "fastapi_async_sqlalchemy",
    "replaced": "aiomysql",
}

# The keys of the load have none, because the peers do not support them; a Latchkey key could have some.
LIMIT = """
UPDATE limited.users SET limits = '[{"name":"burst","limit":9000,"window_s":60}]';
UPDATE limited.api_keys SET limits = '[{"name":"hour","limit":9000,"window_s":3600}]',
  quota = '{"limit":9000,"per":"month"}';
"""

pytestmark = pytest.mark.mariadb
every_peer = pytest.mark.parametrize("module", [name for name in PEERS if name != "latchkey"])


@pytest.fixture(scope="module")
def mariadb() -> Iterator[PrivateMariaDB]:
    require_or_skip()
    with rows.running() as server:
        yield server


@pytest.fixture(scope="module")
def database(mariadb: PrivateMariaDB) -> Database:
    return rows.make_database(mariadb, "peers", rows=20, keys_in_use=4)


@pytest.fixture(scope="module")
def limited(mariadb: PrivateMariaDB) -> Database:
    made = rows.make_database(mariadb, "limited", rows=20, keys_in_use=4)
    mariadb.execute(LIMIT)
    return made


@pytest.fixture(scope="module")
def references() -> Iterator[References]:
    with ExitStack() as running:
        yield References(share_cores(), running)


def serve(database: Database, module: str, **environ: str) -> Server:
    return Server(ServerVariant(module=module, environ=environ), database, cores=share_cores().all)


def require_packages(module: str) -> None:
    if module in NEEDS and importlib.util.find_spec(NEEDS[module]) is None:
        pytest.skip(f"{NEEDS[module]} is of the extra `bench`, which `make bench` installs")


@every_peer
def test_a_peer_answers_as_latchkey_does(module: str, database: Database, references: References) -> None:
    require_packages(module)

    with serve(database, module) as peer:
        references.require_alike(peer)


@every_peer
def test_a_peer_reads_limits_and_quotas_as_latchkey_does(
    module: str, limited: Database, references: References
) -> None:
    require_packages(module)

    with serve(limited, module) as peer:
        references.require_alike(peer)


@pytest.mark.parametrize("job", jobs.OWN, ids=[job.name for job in jobs.OWN])
def test_all_ways_of_writing_an_endpoint_answer_alike(job: Any, database: Database) -> None:
    """All of Latchkey's ways, and the frameworks whose packages are installed."""
    answer = None
    for contestant in job.contestants:
        if (
            contestant.variant.module in NEEDS
            and importlib.util.find_spec(NEEDS[contestant.variant.module]) is None
        ):
            continue
        with Server(contestant.variant, database, cores=share_cores().all) as server:
            for request in contestant.make(database, server.port, 1)[:2]:
                found = likeness.require_same_answer(server, request, None)
            answer = likeness.require_same_answer(server, request, answer)
            with pytest.raises(UnlikeError):
                likeness.require_same_answer(server, request, {"id": 0})

    articles = answer.get("items", [answer])
    assert found == answer
    assert 1 <= len(articles) <= 20
    assert all(len(one["tags"]) == 3 and one["author"]["name"].startswith("User ") for one in articles)


def test_a_peer_that_reads_otherwise_is_found_out(
    database: Database, references: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = likeness.ask

    def careless(server: Server, key: HeldKey, method: str, target: str, body: Any = None) -> Any:
        found = ask(server, key, method, target, body)
        if server.variant.module == "bare_asgi" and method == "GET" and found.body is not None:
            found.body["key"]["name"] = "another"
        return found

    monkeypatch.setattr(likeness, "ask", careless)

    with serve(database, "bare_asgi") as peer, pytest.raises(UnlikeError, match=r'key\.name: "another"'):
        references.require_alike(peer)


def test_a_peer_that_lets_anybody_in_is_found_out(
    database: Database, references: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = likeness.ask

    def generous(server: Server, key: HeldKey, method: str, target: str, body: Any = None) -> Any:
        known = key if server.variant.module == "latchkey" else database.bearer[0]
        return ask(server, known, method, target, body)

    monkeypatch.setattr(likeness, "ask", generous)

    with serve(database, "bare_asgi") as peer, pytest.raises(UnlikeError, match="200 to a key"):
        references.require_alike(peer)


def test_a_server_that_does_not_start_says_why(database: Database) -> None:
    with pytest.raises(BenchmarkServerError, match="there is no setting LATCHKEY_POOL_SIZES"):
        serve(database, "latchkey", LATCHKEY_POOL_SIZES="5").__enter__()


def test_servers_hear_nothing_of_the_settings_that_happen_to_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATCHKEY_READER_URL", "mysql+asyncmy://elsewhere/latchkey")
    database = Database(url="a", keyring="b", rows=0, bearer=(), signed=(), pid=0)

    environ = environ_of(ServerVariant(module="latchkey"), database)

    assert "LATCHKEY_READER_URL" not in environ
    assert environ["LATCHKEY_DATABASE_URL"] == environ["DATABASE_URL"] == "a"


def test_no_job_opens_more_connections_than_a_server_takes() -> None:
    """Otherwise idle clients would be closed, and the benchmark would measure that."""
    database = Database(url="a", keyring="b", rows=0, bearer=(), signed=(), pid=0)
    opened = [
        one.idle + one.connections for job in (*jobs.JOBS, *jobs.OWN, *growth.JOBS) for one in job.contestants
    ]

    assert max(opened) < int(environ_of(ServerVariant(module="latchkey"), database)["LATCHKEY_CONNECTIONS"])


def test_too_few_rows_for_the_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        rows.make_database(object(), "small", rows=7, keys_in_use=4)  # type: ignore[arg-type]  # it is not reached


def test_a_server_leaves_no_log_behind(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with serve(database, "bare_asgi"):
        logs = list(tmp_path.iterdir())

    assert [log.suffix for log in logs] == [".log"]
    assert list(tmp_path.iterdir()) == []
