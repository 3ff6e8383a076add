"""The schema and its migrations: upgrade a database, and refuse one that is not at the right revision.

A team's tables have their own migration history beside Latchkey's: other revisions, in another version table. The two
are independent, so each can be upgraded alone.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Constraint, Index, MetaData, inspect
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey import migrations, models
from latchkey.models import Base
from latchkey.service.database import sqlite
from latchkey.service.database.engines import name_of
from latchkey.service.database.lock import locked
from latchkey.service.database.revisions import fault_of

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
            independent of Latchkey's, so they may begin at `0001`. An empty folder is for `latchkey migrations new`,
            which drafts the first one.
        metadata: one `MetaData` or several with the models of the team, for comparison with the migrations. Models on
            `latchkey.Base` are compared without it.

    Raises:
        SchemaError: the name has another form; or the folder does not exist, or has revisions that cannot be run in
            order. `create_app` raises it for a folder without a revision, and for a table with the name of one of
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
            raise SchemaError(f"the schema {name}: the folder {self.folder} does not exist: create it.")
        if fault := fault_of(ScriptDirectory.from_config(_config(schema=self))):
            raise SchemaError(f"the schema {name}: the folder {self.folder}: {fault}.")

    def __repr__(self) -> str:
        return f"Schema({self.name!r})"


def require_revisions(schemas: Iterable[Schema]) -> None:
    """Raise `SchemaError` for a schema without a revision, which would be served without its tables."""
    for schema in schemas:
        if not heads(schema):
            raise SchemaError(
                f"the schema {schema.name}: the folder {schema.folder} contains no revision: draft the first one with "
                '`latchkey migrations new "first tables"`.'
            )


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

    def __init__(
        self, database: str, found: str | None, wanted: str | None, schema: Schema | None = None
    ) -> None:
        place = f"revision {found or 'none'}"
        if schema is None:
            message = f"the database {database} is at {place} and this release needs {wanted}: run `latchkey migrate`."
        else:
            message = (
                f"the database {database} is at {place} of the schema {schema.name} and this application needs "
                f"{wanted}: run `latchkey migrate` with the application."
            )
        super().__init__(message)


class NewerDatabaseError(NotMigratedError):
    """The database has a revision that this release, or the team's application, does not know."""

    def __init__(
        self, database: str, found: str | None, wanted: str | None, schema: Schema | None = None
    ) -> None:
        ours, of_schema = (
            ("release", "") if schema is None else ("application", f" of the schema {schema.name}")
        )
        RuntimeError.__init__(
            self,
            f"the database {database} is at revision {found}{of_schema}, which this {ours} does not know, because it "
            f"ends at {wanted}: a newer {ours} has migrated it. Run that one, or one that is newer.",
        )


class MigratingError(CommandError):
    """Another process is migrating the database."""

    def __init__(self, database: str) -> None:
        super().__init__(
            f"another process has been migrating the database {database}, or writing to it, for more than "
            f"{LOCK_WAIT_S} seconds."
        )


class Migrated(msgspec.Struct, frozen=True):
    """What `upgrade` did to a schema; Latchkey's own is None."""

    schema: Schema | None
    before: str | None
    after: str | None


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


def _current(connection: Connection, schema: Schema | None) -> tuple[str, ...]:
    context = MigrationContext.configure(connection, opts=_options(schema))
    return tuple(sorted(context.get_current_heads()))


async def revision(engine: AsyncEngine, schema: Schema | None = None) -> str | None:
    """Return the revision of the database; None for an empty one."""
    async with engine.connect() as connection:
        return ", ".join(await connection.run_sync(_current, schema)) or None


async def upgrade(
    engine: AsyncEngine,
    target: str = "head",
    *,
    schemas: Iterable[Schema] = (),
    report: Callable[[], None] = lambda: None,
) -> list[Migrated]:
    """Run the migrations up to `target`, then those of the schemas; a second process waits and finds nothing to do.

    Args:
        engine: of the database.
        target: a revision of Latchkey's.
        schemas: of the team.
        report: called once before a wait for another process.

    Raises:
        MigratingError: another process has been migrating the database for too long.
        NewerDatabaseError: the database has a revision that does not exist here; nothing is changed.
    """
    schemas = tuple(schemas)
    require_revisions(schemas)
    every = [(None, target), *((one, "heads") for one in schemas)]
    async with locked(engine, "migrate", wait_s=LOCK_WAIT_S, report=report) as connection:
        if connection is None:
            raise MigratingError(name_of(engine.url))
        if engine.dialect.name != "sqlite":
            # A statement that changes a table waits for transactions that use it, and all later ones wait behind it.
            await connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {max(1, LOCK_WAIT_S)}")
            await connection.commit()
        else:
            # A step that copies a table drops the old one, which would delete the rows that refer to it.
            driver: Any = (await connection.get_raw_connection()).dbapi_connection
            await driver.driver_connection.execute("PRAGMA foreign_keys = OFF")
        try:
            async with connection.begin():
                for schema, _ in every:
                    await connection.run_sync(_known, schema)
            return [await _upgrade(connection, schema, end) for schema, end in every]
        except OperationalError as error:
            if sqlite.is_busy(error.orig):
                raise MigratingError(name_of(engine.url)) from error
            raise


async def _upgrade(connection: AsyncConnection, schema: Schema | None, target: str) -> Migrated:
    def run(found: Connection) -> Migrated:
        before = _current(found, schema)
        orphans = sqlite.count_orphans(found)
        command.upgrade(_config(found, schema), target)
        if (lost := sqlite.count_orphans(found) - orphans) > 0:
            raise CommandError(
                f"{lost} rows refer to rows that the migration has removed. Nothing was changed."
            )
        return Migrated(schema, *(", ".join(one) or None for one in (before, _current(found, schema))))

    async with connection.begin():
        return await connection.run_sync(run)


def _known(connection: Connection, schema: Schema | None) -> tuple[str, ...]:
    """Return the revisions of the database, or raise `NewerDatabaseError` for one that does not exist here."""
    found = _current(connection, schema)
    known = {one.revision for one in ScriptDirectory.from_config(_config(schema=schema)).walk_revisions()}
    if not known.issuperset(found):
        raise NewerDatabaseError(name_of(connection.engine.url), ", ".join(found), head(schema), schema)
    return found


async def missing(engine: AsyncEngine, schema: Schema | None = None) -> list[str]:
    """Return the revisions that the database lacks, the oldest first.

    Raises:
        NewerDatabaseError: the database has a revision that does not exist here.
    """
    async with engine.connect() as connection:
        found = await connection.run_sync(_known, schema)
    scripts = ScriptDirectory.from_config(_config(schema=schema))
    held = {one.revision for one in scripts.iterate_revisions(found, "base")} if found else set()
    return [one.revision for one in scripts.walk_revisions() if one.revision not in held][::-1]


async def require_migrated(engine: AsyncEngine, schemas: Iterable[Schema] = ()) -> None:
    """Raise `NotMigratedError` unless the database is at this release's revision, and at those of the schemas."""
    for schema in (None, *schemas):
        if await missing(engine, schema):
            raise NotMigratedError(name_of(engine.url), await revision(engine, schema), head(schema), schema)


async def differences(engine: AsyncEngine, schemas: Iterable[Schema] = ()) -> list[str]:
    """Return the differences between the models and the migrated database; empty when they match.

    Tables without a model are ignored, because they may belong to other software.
    """
    every = [Base.metadata, *(one for schema in schemas for one in schema.metadata)]

    def compare(connection: Connection) -> list[str]:
        found: Any = compare_metadata(comparison(connection, tables_of(every)), every)  # type: ignore[arg-type]  # it accepts several, too
        return [str(difference) + _names_in(difference) for difference in found]

    async with engine.connect() as connection:
        return await connection.run_sync(compare)


Tables = frozenset[tuple[str | None, str]]
"""Tables by their schema in SQL, which is None for most, and their name."""


def tables_of(every: Iterable[MetaData]) -> Tables:
    """Return the tables that metadata describes."""
    return frozenset((table.schema, table.name) for metadata in every for table in metadata.tables.values())


def comparison(connection: Connection, tables: Tables) -> MigrationContext:
    """Return Alembic's context for a comparison of these tables and no others."""

    def is_compared(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name in {schema for schema, _ in tables}
        return kind != "table" or (parents["schema_name"], name) in tables

    def is_described(found: Any, _name: Any, kind: str, *_: Any) -> bool:
        return kind != "table" or (found.schema, found.name) in tables

    options = {"compare_type": True, "include_name": is_compared, "include_object": is_described}
    if any(schema is not None for schema, _ in tables):
        options["include_schemas"] = True
    return MigrationContext.configure(connection, opts=options)


def _names_in(difference: Any) -> str:
    """Return the names of the constraints and indexes of a difference, which their texts leave out."""
    names = [str(one.name) for one in difference if isinstance(one, Constraint | Index) and one.name]
    return f": {', '.join(names)}" if names else ""


async def undescribed(engine: AsyncEngine, schemas: Iterable[Schema] = ()) -> list[str]:
    """Return the names of the tables that neither a model nor Alembic itself describes."""
    schemas = tuple(schemas)
    every = [Base.metadata, *(one for schema in schemas for one in schema.metadata)]
    known = {"alembic_version", *(one.version_table for one in schemas)}
    known.update(name for metadata in every for name in metadata.tables)
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda one: inspect(one).get_table_names())
    return sorted(set(found) - known)
