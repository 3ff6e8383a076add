"""The application with a route for every path, keys that depend on the seed, and the summary of the fuzzing."""

import functools
import logging
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.service import shapes
from latchkey.service.app import create_app
from latchkey.service.keys import issuing
from latchkey.service.methods import METHODS, SAFE_METHODS
from latchkey.service.operation import route
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import opened
from tests.fuzz.calls import NOW
from tests.fuzz.mutations import BODY_LIMIT_BYTES

SEED = os.environ.get("LATCHKEY_TEST_SEED") or str(random.randrange(2**32))


class Asked(shapes.Input, frozen=True, kw_only=True):
    """All parameters of a genuine request."""

    q: str = ""
    filter: str = ""
    empty: str = ""
    page: str = ""
    tilde: str = ""


async def echo(request: Request, rest: str, query: Asked) -> None:
    """Record the authenticated caller."""
    request.app.state.seen.append(request.user.key.access_key)


class HeldKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of the tests."""

    signer: HeldKey
    other: HeldKey
    bearer: HeldKey


class Counts(msgspec.Struct):
    """The number of requests by their answers."""

    answers: Counter[tuple[str, int]] = msgspec.field(default_factory=Counter)
    accepted: int = 0
    genuine: int = 0


COUNTS = pytest.StashKey[Counts]()


@pytest.fixture
def seed() -> str:
    return SEED


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> Counts:
    return request.config.stash.setdefault(COUNTS, Counts())


@pytest.fixture
def quiet() -> Iterator[None]:
    """Silence the log, which would have thousands of lines."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
async def app(settings: Settings, quiet: None) -> AsyncIterator[Starlette]:
    """Return the whole application; `app.state.seen` lists the callers of its additional route."""
    settings = msgspec.structs.replace(settings, auth_failures_per_min=0, body_limit_bytes=BODY_LIMIT_BYTES)
    catch_all = [
        route(method, "/{rest:path}", echo, any_key=True, idempotent=method not in SAFE_METHODS)
        for method in sorted(METHODS)
    ]
    async with opened(lambda: create_app(settings, routes=catch_all), settings) as app:
        app.state.latchkey.verifier.clock = lambda: NOW
        app.state.seen = []
        yield app


@pytest.fixture
async def held_keys(app: Starlette, seed: str, monkeypatch: pytest.MonkeyPatch) -> HeldKeys:
    """Return keys that are the same for the same seed, so that a failure can be reproduced."""
    rng = random.Random(seed)
    for name in ("new_access_key", "new_secret"):
        made = functools.partial(getattr(issuing, name), random_bytes=rng.randbytes)
        monkeypatch.setattr(issuing, name, made)
    return HeldKeys(
        signer=await hold_key(app, mode="signed"),
        other=await hold_key(app, mode="signed", email="other@example.com"),
        bearer=await hold_key(app),
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the number of requests, which a passed test does not show."""
    counts = config.stash.get(COUNTS, None)
    if counts is None:
        return
    by_status = Counter[int]()
    by_name: dict[str, list[str]] = {}
    for (name, status), count in sorted(counts.answers.items()):
        by_status[status] += count
        by_name.setdefault(name, []).append(f"{count}x{status}")
    terminalreporter.write_line(
        f"fuzz with LATCHKEY_TEST_SEED={SEED}: {by_status.total()} mutated requests, {counts.accepted} accepted, "
        f"{sum(count for status, count in by_status.items() if status >= 500)} answered 5xx; "
        f"{counts.genuine} genuine ones accepted; "
        + ", ".join(f"{count}x{status}" for status, count in sorted(by_status.items()))
        + " | "
        + ", ".join(f"{name} {'+'.join(counts)}" for name, counts in by_name.items())
    )
