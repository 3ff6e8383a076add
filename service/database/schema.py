"""The schema and its migrations: upgrade a database, and refuse one that is not at the right revision.

A team's tables have their own migration history beside Latchkey's: other revisions, in another version table. The two
are independent, so each can be upgraded alone.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey import migrations, models
from latchkey.models import Base
from latchkey.service.database.lock import locked

LOCK_WAIT_S = 60  # how long a migration waits for another one

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
OURS = frozenset(
    inspect(getattr(models, name)).local_table.key
    for name in models.__all__
    if name not in {"Base", "Watched"}
)
"""The names of Latchkey's own tables."""

SCRIPTS = Path(migrations.__file__).parent


class SchemaError(ValueError):
    """A schema cannot be used; the message explains why."""


class Schema:
    """A team's tables and their migrations, beside Latchkey's: `create_app(schemas=[...])`.

    Args:
        name: the name of the history, for its version table `alembic_version_<name>`: lower-case letters, digits and
            underscores, at most 32. It must not change after a database was migrated.
        migrations: the folder of the Alembic revisions, one file each. No `env.py` is needed. Revision ids are
            independent of Latchkey's, so they may begin at `0001`.
        metadata: one `MetaData` or several with the models of the team, for comparison with the migrations. Models on
            `latchkey.Base` are compared without it.

    Raises:
        SchemaError: the name has another form, the folder has no revision, or a table has the name of one of
            Latchkey's.
    """

    def __init__(
        self, name: str, *, migrations: Path | str, metadata: MetaData | Iterable[MetaData] = ()
    ) -> None:
        if not NAME.fullmatch(name) or name == "latchkey":
            raise SchemaError(
                f"the schema name {name!r} must be 1 to 32 lower-case letters, digits and underscores, begin with a "
                "letter, and not be 'latchkey'."
            )
        self.name = name
        self.version_table = f"alembic_version_{name}"
        self.folder = Path(migrations).resolve()
        self.metadata = (metadata,) if isinstance(metadata, MetaData) else tuple(metadata)
        if not self.folder.is_dir():
            raise SchemaError(f"the schema {name}: the folder {self.folder} does not exist.")
        if not heads(self):
            raise SchemaError(f"the schema {name}: the folder {self.folder} contains no revision.")

    def __repr__(self) -> str:
        return f"Schema({self.name!r})"


def require_distinct_schemas(schemas: Sequence[Schema]) -> None:
    """Raise `SchemaError` when two schemas have the same name, or when a table belongs to two of them.

    Call it when the application is built, because metadata is filled while models are imported.
    """
    owners = dict.fromkeys(OURS, "Latchkey")
    names = set()
    for schema in schemas:
        if schema.name in names:
            raise SchemaError(f"the schema {schema.name} is given twice.")
        names.add(schema.name)
        for metadata in schema.metadata:
            if metadata is Base.metadata:
                raise SchemaError(
                    f"the schema {schema.name}: omit the metadata of latchkey.Base, which is always included."
                )
            for table in metadata.tables:
                if table.lower() in owners:
                    raise SchemaError(
                        f"the schema {schema.name} and {owners[table.lower()]} both have a table {table}: rename one."
                    )
                owners[table.lower()] = f"the schema {schema.name}"
    for table in Base.metadata.tables.keys() - OURS:
        if table.lower() in owners:
            raise SchemaError(
                f"{owners[table.lower()]} and latchkey.Base both have a table {table}: rename one."
            )


class NotMigratedError(RuntimeError):
    """The database is behind or ahead of this release, or of a team's migrations."""

    def __init__(self, found: str | None, wanted: str | None, schema: Schema | None = None) -> None:
        place = f"revision {found or 'none'}"
        if schema is None:
            told = f"the database is at {place} and this release needs {wanted}: run `latchkey migrate`."
        else:
            told = (
                f"the database is at {place} of the schema {schema.name} and this application needs {wanted}: "
                "run `latchkey migrate` with the application."
            )
        super().__init__(told)


class MigratingError(CommandError):
    """Another process is migrating the database."""

    def __init__(self) -> None:
        super().__init__(
            f"another process has been migrating this database for more than {LOCK_WAIT_S} seconds."
        )


def _config(connection: Connection | None = None, schema: Schema | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", _escaped(SCRIPTS))
    if schema is not None:
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", _escaped(schema.folder))
    config.attributes.update(connection=connection, options=_options(schema))
    return config


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")  # Alembic's configuration interpolates percent signs


def _options(schema: Schema | None) -> dict[str, Any]:
    return {} if schema is None else {"version_table": schema.version_table}


def heads(schema: Schema | None = None) -> tuple[str, ...]:
    """Return the newest revisions of a schema; there is one unless its history has branches."""
    return tuple(sorted(ScriptDirectory.from_config(_config(schema=schema)).get_heads()))


def head(schema: Schema | None = None) -> str | None:
    """Return the newest revision of this release, or of a schema; several are separated by commas."""
    return ", ".join(heads(schema)) or None


async def revision(engine: AsyncEngine, schema: Schema | None = None) -> str | None:
    """Return the revision of the database; None for an empty one."""

    def look(connection: Connection) -> str | None:
        found = MigrationContext.configure(connection, opts=_options(schema)).get_current_heads()
        return ", ".join(sorted(found)) or None

    async with engine.connect() as connection:
        return await connection.run_sync(look)


async def upgrade(engine: AsyncEngine, target: str = "head", *, schemas: Iterable[Schema] = ()) -> None:
    """Run the migrations up to `target`, then those of the schemas; a second process waits and finds nothing to do.

    Raises:
        MigratingError: another process has been migrating the database for too long.
    """
    async with locked(engine, "migrate", wait_s=LOCK_WAIT_S) as connection:
        if connection is None:
            raise MigratingError
        for schema, end in [(None, target), *((one, "heads") for one in schemas)]:
            async with connection.begin():
                await connection.run_sync(
                    lambda found, schema, end: command.upgrade(_config(found, schema), end), schema, end
                )


async def require_migrated(engine: AsyncEngine, schemas: Iterable[Schema] = ()) -> None:
    """Raise `NotMigratedError` unless the database is at this release's revision, and at those of the schemas."""
    for schema in (None, *schemas):
        found, wanted = await revision(engine, schema), head(schema)
        if found != wanted:
            raise NotMigratedError(found, wanted, schema)


async def differences(engine: AsyncEngine, schemas: Iterable[Schema] = ()) -> list[str]:
    """Return the differences between the models and the migrated database; empty when they match.

    Tables without a model are ignored, because they may belong to other software.
    """
    every = [Base.metadata, *(one for schema in schemas for one in schema.metadata)]
    described = {(table.schema, table.name) for metadata in every for table in metadata.tables.values()}

    def is_described(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name in {schema for schema, _ in described}
        return kind != "table" or (parents["schema_name"], name) in described

    def compare(connection: Connection) -> list[str]:
        options = {"compare_type": True, "include_name": is_described}
        if any(schema is not None for schema, _ in described):
            options["include_schemas"] = True
        context = MigrationContext.configure(connection, opts=options)
        found: Any = compare_metadata(context, every)  # type: ignore[arg-type]  # it accepts several, too
        return [str(difference) for difference in found]

    async with engine.connect() as connection:
        return await connection.run_sync(compare)


async def undescribed(engine: AsyncEngine, schemas: Iterable[Schema] = ()) -> list[str]:
    """Return the names of the tables that neither a model nor Alembic itself describes."""
    schemas = tuple(schemas)
    every = [Base.metadata, *(one for schema in schemas for one in schema.metadata)]
    known = {"alembic_version", *(one.version_table for one in schemas)}
    known.update(name for metadata in every for name in metadata.tables)
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda one: inspect(one).get_table_names())
    return sorted(set(found) - known)
