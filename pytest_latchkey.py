"""The pytest plugin of Latchkey, for the tests of a team's own package.

pytest loads it in every environment with Latchkey, so it imports nothing of it: the first test that asks for the fixture
`latchkey` does. It is outside the package for the same reason.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from latchkey.testing import RunningApp

APP = "latchkey_app"
DATABASE_URL = "LATCHKEY_TEST_DATABASE_URL"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting that names the application."""
    parser.addini(
        APP, "The application on Latchkey, as orders.app:create_app. Without it: the installed one."
    )


@pytest.fixture(scope="session")
def latchkey_environ() -> Mapping[str, str]:
    """Return more environment variables of the application; a team overrides this fixture."""
    return {}


@pytest.fixture(scope="session")
def latchkey_running(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    latchkey_environ: Mapping[str, str],
) -> "Iterator[RunningApp]":
    """Run the application until the end of the tests; a test uses the fixture `latchkey`."""
    from latchkey.service.testing.running_app import run_app  # noqa: PLC0415 - see the module

    folder = tmp_path_factory.mktemp("latchkey")
    with run_app(
        find_app(request.config), find_database(request.config, folder), latchkey_environ
    ) as running:
        yield running


@pytest.fixture
def latchkey(latchkey_running: "RunningApp") -> "Iterator[RunningApp]":
    """Return the running application, with an empty database at the right time; afterwards it is so again."""
    try:
        yield latchkey_running
    finally:
        latchkey_running.reset()


def find_app(config: pytest.Config) -> str:
    """Return the application under test: that of the configuration, of `LATCHKEY_APP`, or the installed one."""
    from latchkey.service.application import installed_application  # noqa: PLC0415 - see the module

    found = config.getini(APP) or os.environ.get("LATCHKEY_APP") or installed_application()
    if not found:
        raise pytest.UsageError(
            f"no application is installed: name one in the configuration of pytest, as {APP} = orders.app:create_app."
        )
    return str(found)


def find_database(config: pytest.Config, folder: Path) -> str:
    """Return the URL of the database: on the server that the team names, or in a file in this folder."""
    url = os.environ.get(DATABASE_URL)
    if url is None:
        return f"sqlite+aiosqlite:///{folder / 'tests.db'}"
    if hasattr(config, "workerinput"):  # of pytest-xdist
        raise pytest.UsageError(
            f"{DATABASE_URL} names one database, which the workers of pytest-xdist would empty for each other: "
            "run the tests in one process, or on SQLite."
        )
    return url
