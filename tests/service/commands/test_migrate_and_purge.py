"""`latchkey migrate` and `latchkey purge`."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, make_url

from latchkey.models import Nonce
from latchkey.service import housekeeping
from latchkey.service.commands import server
from latchkey.service.commands.answers import aligned
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings
from tests.conftest import table_of
from tests.service.commands.running import NO_KEY, Run, good, set_revision


class TestMigrate:
    def test_it_says_from_where_to_where_and_needs_no_key_ring(self, run: Run, tmp_path: Path) -> None:
        first, second = run("migrate"), run("migrate")

        assert (first.exit_code, second.exit_code) == (0, 0)
        assert first.stdout == second.stdout == ""
        file = tmp_path / "latchkey.db"
        assert first.stderr == f"Migrated the database {file} from revision none to {schema.head()}.\n"
        assert second.stderr == f"The database {file} is at revision {schema.head()} already.\n"

    def test_a_database_that_is_up_to_date_stays_and_is_named_without_its_password(
        self, migrated: Settings, run: Run
    ) -> None:
        url = make_url(migrated.database_url)
        name = url.database if url.host is None else f"latchkey on {url.host}:{url.port}"

        assert run("migrate").stderr == f"The database {name} is at revision {schema.head()} already.\n"

    def test_a_check_says_which_revisions_are_missing(self, migrated: Settings, run: Run) -> None:
        asyncio.run(set_revision(migrated, "0005"))

        try:
            result = run("migrate", "--check")
        finally:
            asyncio.run(set_revision(migrated, schema.head()))

        assert (result.exit_code, result.stdout) == (1, "")
        assert re.fullmatch(
            r"Error: the database [^\n]+ lacks revisions 0006, 0007[0-9, ]*: run `latchkey migrate`\.\n",
            result.stderr,
        )
        assert good(run("migrate", "--check")).stdout == ""

    def test_a_check_creates_no_file(self, run: Run, tmp_path: Path) -> None:
        result = run("migrate", "--check")

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"Error: the database {tmp_path / 'latchkey.db'} does not exist: run `latchkey migrate`.\n"
        )
        assert list(tmp_path.iterdir()) == []


NOTHING = dict.fromkeys(
    (*(model.__tablename__ for model in housekeeping.EXPIRING), "api_keys", "usage_counts"), "0"
)
"""The output of a purge that deletes nothing, by table."""


class TestPurge:
    def test_it_prints_how_many_rows_of_each_table_went_and_needs_no_key_ring(
        self, migrated: Settings, environ: pytest.MonkeyPatch, run: Run
    ) -> None:
        environ.delenv("LATCHKEY_KEYRING")
        asyncio.run(insert_nonces(migrated, 3))

        first, second = good(run("purge")), good(run("purge"))

        assert first.stdout == aligned([*map(list, {**NOTHING, "nonces": "3"}.items())]) + "\n"
        assert second.stdout == aligned([*map(list, {**NOTHING, "nonces": "0"}.items())]) + "\n"

    def test_a_long_one_says_how_far_it_is(
        self, migrated: Settings, environ: pytest.MonkeyPatch, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(housekeeping, "BATCH_ROWS", 2)
        monkeypatch.setattr(housekeeping, "PAUSE_S", 0)
        monkeypatch.setattr(server, "REPORT_EVERY_ROWS", 4)
        asyncio.run(insert_nonces(migrated, 9))

        result = run("purge")

        assert result.exit_code == 0
        assert result.stdout == aligned([*map(list, {**NOTHING, "nonces": "9"}.items())]) + "\n"
        assert result.stderr == "nonces: 4 so far\nnonces: 8 so far\n"

    def test_a_purge_beside_another_process_is_refused(
        self, migrated_sqlite: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def be_late(*_: object, **__: object) -> None:
            return None

        monkeypatch.setattr(housekeeping, "purge", be_late)

        result = run("purge")

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "Error: another process is purging this database.\n"


async def insert_nonces(settings: Settings, rows: int) -> None:
    """Insert expired nonces."""
    engine = create_engines(settings).writer
    async with engine.begin() as connection:
        ended = datetime.now(UTC) - timedelta(minutes=1)
        await connection.execute(
            insert(table_of(Nonce)),
            [{"access_key": NO_KEY, "nonce": b"n%d" % n, "expires_at": ended} for n in range(rows)],
        )
    await engine.dispose()
