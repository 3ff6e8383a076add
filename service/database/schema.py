"""The schema and its migrations: bring a database up to date, and refuse one that is not."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey import migrations
from latchkey.models import Base
from latchkey.service.database.lock import locked

LOCK_WAIT_S = 60  # how long a migration waits for another one


class NotMigratedError(RuntimeError):
    """The database is behind, or ahead of, this release."""

    def __init__(self, found: str | None, wanted: str | None) -> None:
        super().__init__(
            f"the database is at revision {found or 'none'} and this release wants {wanted}: run `latchkey migrate`."
        )


class MigratingError(CommandError):
    """Another process is migrating the database."""

    def __init__(self) -> None:
        super().__init__(f"another process is migrating this database, for more than {LOCK_WAIT_S} seconds.")


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    return config


def head() -> str | None:
    """Return the newest revision of this release."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def revision(engine: AsyncEngine) -> str | None:
    """Return the revision that the database is at; None for an empty one."""
    async with engine.connect() as connection:
        return await connection.run_sync(
            lambda found: MigrationContext.configure(found).get_current_revision()
        )


async def upgrade(engine: AsyncEngine, target: str = "head") -> None:
    """Run the migrations up to `target`; whoever comes second waits, and finds nothing to do.

    Raises:
        MigratingError: another process has been migrating the database for too long.
    """
    async with locked(engine, "migrate", wait_s=LOCK_WAIT_S) as connection:
        if connection is None:
            raise MigratingError
        async with connection.begin():
            await connection.run_sync(lambda found: command.upgrade(_config(found), target))


async def require_migrated(engine: AsyncEngine) -> None:
    """Raise `NotMigratedError` unless the database is at this release's revision."""
    found, wanted = await revision(engine), head()
    if found != wanted:
        raise NotMigratedError(found, wanted)


async def differences(engine: AsyncEngine) -> list[str]:
    """Return the differences between the models and the migrated database; empty when they match."""

    def compare(connection: Connection) -> list[str]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, Base.metadata)]

    async with engine.connect() as connection:
        return await connection.run_sync(compare)
