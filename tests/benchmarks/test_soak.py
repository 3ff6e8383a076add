"""The findings of a soak: growing memory, and remaining sessions and connections."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.load import LoadError, Outcome
from benchmarks.peers import latchkey
from benchmarks.soak import Remainder, Sample, Soak, find_remainder, require_mixture, soak_table
from latchkey.models import User
from latchkey.service.settings import Settings
from tests.conftest import opened

AT_REST = Remainder(0, 0)


def soak(*mib: float, remainder: Remainder = AT_REST) -> Soak:
    """Return a soak with a sample every 25,000 requests."""
    return Soak(
        date="2026-01-02",
        machine="a machine",
        generator="wrk",
        samples=[Sample(25_000 * position, one) for position, one in enumerate(mib, start=1)],
        settled_after=50_000,
        remainder=remainder,
    )


@pytest.mark.parametrize(
    ("found", "growth_mib", "verdict"),
    [
        (soak(80.0, 95.0, 96.0, 97.0), 2.0, "reached"),
        (soak(80.0, 95.0, 96.0, 97.5), 2.5, "**not reached**"),
        (soak(80.0, 95.0, 94.0), -1.0, "reached"),
        (soak(80.0, 95.0), None, "too short to tell"),
        (soak(80.0, 95.0, 95.0, remainder=Remainder(1, 0)), 0.0, "**not reached**"),
        (soak(80.0, 95.0, 95.0, remainder=Remainder(0, 1)), 0.0, "**not reached**"),
        (soak(80.0, remainder=Remainder(0, 1)), None, "**not reached**"),
    ],
    ids=["settled", "grown", "shrunk", "short", "a session left", "a connection left", "short, and one left"],
)
def test_growth_counts_from_the_settled_sample_on(found: Any, growth_mib: float | None, verdict: str) -> None:
    assert found.growth_mib == growth_mib
    assert found.verdict() == verdict
    assert soak_table(found).endswith(f"| verdict | {verdict} |")


def test_the_table_shows_the_first_the_settled_and_the_last_sample() -> None:
    text = soak_table(soak(80.0, 95.0, 96.0, 96.5))

    assert [line.split("|")[1].strip() for line in text.splitlines() if "after" in line] == [
        "memory after 25,000 requests",
        "memory after 50,000 requests",
        "memory after 100,000 requests",
    ]


@pytest.mark.parametrize(("accepted", "passes"), [(200, True), (0, False), (1000, False)])
def test_a_soak_of_other_requests_is_refused(accepted: int, passes: bool) -> None:
    outcome = Outcome(
        requests=1000,
        duration_us=1,
        p50_us=1,
        p99_us=1,
        bad_statuses=accepted,
        accepted=accepted,
        broken=0,
        timeouts=0,
        spent=0,
    )

    if passes:
        require_mixture(outcome)
    else:
        with pytest.raises(LoadError, match="20%"):
            require_mixture(outcome)


def test_a_message_of_the_server_is_found_among_its_lines() -> None:
    assert find_remainder('a line\nremainder: {"sessions": 1, "checked_out": 2}\nmore') == Remainder(1, 2)
    with pytest.raises(LoadError, match="did not report"):
        find_remainder("a line")


@pytest.fixture
def environ(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    log = logging.getLogger("latchkey.access")
    level = log.level
    monkeypatch.setenv("LATCHKEY_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("LATCHKEY_KEYRING", settings.keyring or "")
    monkeypatch.setenv("TELL_REMAINDER", "1")
    yield monkeypatch
    log.setLevel(level)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestRemainder:
    async def test_a_server_at_rest_has_nothing_left(
        self, environ: pytest.MonkeyPatch, settings: Settings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with opened(latchkey.create_app, settings) as app, app.router.lifespan_context(app):
            await asyncio.create_task(User.filter().first(), name="a request")

        assert find_remainder(capsys.readouterr().out) == AT_REST

    async def test_the_remainder_is_reported(
        self,
        environ: pytest.MonkeyPatch,
        settings: Settings,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(latchkey, "REST_S", 0.05)
        async with opened(latchkey.create_app, settings) as app, app.state.db.reader.connect():
            left = await latchkey.at_rest(app.state.db)

        assert left == {"sessions": 0, "checked_out": 1}

    def test_the_access_log_is_off_unless_it_is_asked_for(
        self, environ: pytest.MonkeyPatch, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(latchkey, "create_served_app", lambda: None)
        monkeypatch.delenv("TELL_REMAINDER")
        log = logging.getLogger("latchkey.access")
        log.setLevel(logging.NOTSET)

        monkeypatch.setenv("ACCESS_LOG", "1")
        latchkey.create_app()
        on = log.level
        monkeypatch.delenv("ACCESS_LOG")
        latchkey.create_app()

        assert (on, log.level) == (logging.NOTSET, logging.WARNING)
