"""The application with a team's routes that accept an idempotency key."""

from collections.abc import Sequence

import pytest

import latchkey.service.endpoints.adapter
from latchkey.service import shapes
from latchkey.service.operation import Operation, route
from latchkey.service.settings import Settings
from tests.conftest import KEYRING
from tests.service.idempotency.endpoints import (
    EndpointControl,
    commit_by_verb,
    commit_inside,
    commit_session,
    control,
    plain,
    roll_back,
    team,
    try_in_a_savepoint,
    write,
    write_as_asked,
    write_slowly,
)


@pytest.fixture(autouse=True)
def _new_control(monkeypatch: pytest.MonkeyPatch) -> None:
    vars(control).update(vars(EndpointControl()))
    monkeypatch.setattr(latchkey.service.endpoints.adapter, "LONGEST_PAUSE_S", 0.001)


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Use a pool of two with a long timeout: many copies arrive at once, on a machine that may be slow."""
    return Settings(database_url=database_url, keyring=KEYRING, pool_size=2, pool_timeout_s=10.0)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        team("/write", write),
        team("/slow", write_slowly),
        team("/commit-by-verb", commit_by_verb),
        team("/commit-session", commit_session),
        team("/commit-inside", commit_inside),
        team("/roll-back", roll_back),
        team("/savepoint", try_in_a_savepoint),
        team("/asked", write_as_asked),
        route("POST", "/plain", plain, scope="users:write", answers=shapes.User),
        route("POST", "/open", plain, public=True, answers=shapes.User),
    )
