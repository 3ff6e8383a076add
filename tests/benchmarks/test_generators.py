"""Both load generators report the same for the same server."""

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import generators
from benchmarks.idle import IdleClients
from benchmarks.load import GENERATORS, Load, LoadError, Outcome, encode_request
from tests.benchmarks.answering import Answering, answering

HOST = {"host": "127.0.0.1"}


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as server:
        yield server


@pytest.fixture(params=GENERATORS)
def generator(request: pytest.FixtureRequest) -> str:
    if request.param == "wrk" and not shutil.which("wrk"):
        pytest.skip("wrk not found: apt-get install wrk (Debian, Ubuntu) or brew install wrk")
    if request.param == "geventhttpclient":
        pytest.importorskip("geventhttpclient", reason="of the extra `bench`, which `make bench` installs")
    return request.param


def send(generator: str, server: Answering, *requests: bytes, **load: Any) -> Outcome:
    """Send requests for a second, the minimum of wrk."""
    return generators.run(
        generator,
        server.port,
        Load(requests=requests, **{"cycles": True, "connections": 4, "seconds": 1} | load),
    )


def test_it_sends_what_was_prepared_again_and_again(generator: str, server: Answering) -> None:
    bodies = [b'{"number": %d}' % number for number in range(3)]

    outcome = send(generator, server, *(encode_request("POST", "/200", HOST, body) for body in bodies))

    assert set(server.bodies) == set(bodies)
    assert max(server.bodies.values()) - min(server.bodies.values()) <= 4
    assert outcome.requests == pytest.approx(server.bodies.total(), abs=4)
    assert outcome.duration_us == pytest.approx(1_000_000, rel=0.3)
    assert 0 < outcome.p50_us <= outcome.p99_us


def test_it_sends_nothing_twice_where_that_matters(generator: str, server: Answering) -> None:
    requests = [encode_request("POST", "/201", HOST, b"%d" % number) for number in range(50_000)]

    send(generator, server, *requests, cycles=False)

    assert max(server.bodies.values()) == 1


def test_running_out_of_requests_is_an_error(generator: str, server: Answering) -> None:
    with pytest.raises(LoadError, match="without a request left to send"):
        send(generator, server, encode_request("GET", "/200", HOST), cycles=False)


def test_a_bad_status_is_an_error(generator: str, server: Answering) -> None:
    with pytest.raises(LoadError, match="answers with an error status"):
        send(generator, server, encode_request("GET", "/200", HOST), encode_request("GET", "/500", HOST))


def test_a_status_that_is_accepted_is_counted(generator: str, server: Answering) -> None:
    requests = [encode_request("GET", path, HOST) for path in ("/200", "/503", "/401", "/200")]

    outcome = send(generator, server, *requests, accepts=(401, 503))

    assert outcome.accepted == outcome.bad_statuses == pytest.approx(outcome.requests / 2, abs=4)


def test_a_missing_server_is_an_error(generator: str, server: Answering) -> None:
    nobody = Answering(1, server.bodies)

    with pytest.raises(LoadError):
        send(generator, nobody, encode_request("GET", "/200", HOST))


class TestIdleClients:
    def test_they_ask_once_and_stay(self, server: Answering) -> None:
        with IdleClients(server.port, 20, encode_request("GET", "/200", HOST)):
            assert server.bodies.total() == 20

    def test_a_client_that_was_cut_off_is_an_error(self, server: Answering) -> None:
        closing = encode_request("GET", "/200", HOST | {"connection": "close"})

        with (
            pytest.raises(LoadError, match="3 of 3 idle clients were cut off"),
            IdleClients(server.port, 3, closing),
        ):
            time.sleep(0.2)  # the server closes after its answer

    def test_a_refusal_is_an_error(self, server: Answering) -> None:
        with (
            pytest.raises(LoadError, match="401"),
            IdleClients(server.port, 1, encode_request("GET", "/401", HOST)),
        ):
            pass
