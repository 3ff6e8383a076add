"""The commands `latchkey migrate` and `latchkey migrations new`."""

import logging
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import click
import msgspec
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.service.commands.application import application_settings, for_application, read_schemas
from latchkey.service.commands.rows import work
from latchkey.service.database import drafting, schema
from latchkey.service.database.engines import create_engines, name_of, parse_url
from latchkey.service.database.schema import Migrated, Schema
from latchkey.service.settings import Settings


@click.command()
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing, and exit with 1 if a migration is missing, or if the database differs from the models.",
)
@for_application
def migrate(check: bool) -> None:
    """Run the migrations of this release and of the application. No key ring is needed."""
    settings, schemas = application_settings(), read_schemas()
    schema.require_revisions(schemas)
    url = parse_url(settings.database_url, "LATCHKEY_DATABASE_URL")
    if check:
        require_file(url)
        found = work(compare(settings, schemas))
        if found:
            raise click.ClickException(
                "\n".join([f"the models and the database {name_of(url)} differ:", *found])
            )
        return
    for done in work(upgrade(settings, schemas)):
        click.echo(describe(done, name_of(url)), err=True)


def require_file(url: URL) -> None:
    """Raise an error for an SQLite database whose file is missing; a look at it would create the file."""
    if url.get_backend_name() == "sqlite" and not Path(name_of(url)).exists():
        raise click.ClickException(f"the database {name_of(url)} does not exist: run `latchkey migrate`.")


def describe(done: Migrated, database: str) -> str:
    """Return a sentence about the migrations of one schema."""
    of_schema = "" if done.schema is None else f" of the schema {done.schema.name}"
    if done.before == done.after:
        return f"The database {database} is at revision {done.after}{of_schema} already."
    return (
        f"Migrated the database {database} from revision {done.before or 'none'} to {done.after}{of_schema}."
    )


async def upgrade(settings: Settings, schemas: Sequence[Schema]) -> list[Migrated]:
    """Run the migrations; a wait for another process is reported."""
    # MariaDB warns that it chooses the name of each primary key; the driver would log this.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    engine = create_engines(settings).writer

    def report() -> None:
        click.echo(
            f"Another process is migrating the database {name_of(engine.url)} or writing to it: waiting for up to "
            f"{schema.LOCK_WAIT_S} seconds.",
            err=True,
        )

    try:
        return await schema.upgrade(engine, schemas=schemas, report=report)
    finally:
        await engine.dispose()


async def compare(settings: Settings, schemas: Sequence[Schema]) -> list[str]:
    """Return the differences between a migrated database and the models."""
    engine = create_engines(settings).writer
    try:
        lacking = {one: await schema.missing(engine, one) for one in (None, *schemas)}
        if any(lacking.values()):
            raise click.ClickException(
                f"the database {name_of(engine.url)} lacks {describe_missing(lacking)}: run `latchkey migrate`."
            )
        return await schema.differences(engine, schemas)
    finally:
        await engine.dispose()


def describe_missing(lacking: Mapping[Schema | None, Sequence[str]]) -> str:
    """Return which revisions of which schema are missing."""
    return " and ".join(
        f"revision{'s' if len(revisions) > 1 else ''} {', '.join(revisions)}{'' if one is None else f' of the schema {one.name}'}"
        for one, revisions in lacking.items()
        if revisions
    )


@click.group()
def migrations() -> None:
    """Draft the migrations of an application."""


@migrations.command()
@click.argument("message")
@click.option("--schema", "name", help="The name of the schema, if the application has several.")
@click.option("--empty", is_flag=True, help="Draft no steps: the migration is written by hand.")
@for_application
def new(message: str, name: str | None, empty: bool) -> None:
    """Draft the next migration of the application: the difference between its models and its migrations.

    MESSAGE describes the change, such as "tags of articles".
    The draft is written into the folder of the schema, and its path is printed. Read it before you run it.
    """
    if not drafting.MESSAGE.fullmatch(message):
        raise click.BadParameter("use 1 to 100 characters, and no quotes, backslashes or line breaks.")
    settings, schemas = application_settings(), read_schemas()
    chosen = choose(schemas, name)
    made = work(write_draft(settings, schemas, chosen, message, empty=empty))
    if made is None:
        click.echo("The models equal the migrations: there is nothing to draft.", err=True)
        return
    for column in made.without_value:
        click.echo(
            f"{column} has no value in existing rows: add a server_default, or make it nullable.", err=True
        )
    click.echo(made.path)


def choose(schemas: Sequence[Schema], name: str | None) -> Schema:
    """Return the schema with this name, or the only one."""
    names = ", ".join(one.name for one in schemas)
    if not schemas:
        raise click.ClickException(
            "there is no application with tables of its own: select it with --app, and pass its schema to create_app."
        )
    if name is None and len(schemas) > 1:
        raise click.UsageError(f"The application has several schemas, {names}: select one with --schema.")
    for one in schemas:
        if name in {None, one.name}:
            return one
    raise click.BadParameter(f"the application has {names}.", param_hint="--schema")


async def write_draft(
    settings: Settings, schemas: Sequence[Schema], chosen: Schema, message: str, *, empty: bool
) -> drafting.Draft | None:
    """Compare the models with the database on a server, or with an empty SQLite file that is migrated."""
    async with migrated_database(settings, schemas, chosen) as engine:
        return await drafting.draft(engine, chosen, message, schemas=schemas, empty=empty)


@asynccontextmanager
async def migrated_database(
    settings: Settings, schemas: Sequence[Schema], chosen: Schema
) -> AsyncIterator[AsyncEngine]:
    """Open a database with all revisions of a schema."""
    with tempfile.TemporaryDirectory() as folder:
        on_sqlite = parse_url(settings.database_url, "LATCHKEY_DATABASE_URL").get_backend_name() == "sqlite"
        if on_sqlite:
            file = f"sqlite+aiosqlite:///{Path(folder) / 'draft.db'}"
            settings = msgspec.structs.replace(settings, database_url=file)
        engine = create_engines(settings).writer
        try:
            if on_sqlite:
                await schema.upgrade(engine, schemas=[one for one in schemas if schema.heads(one)])
            elif lacking := await schema.missing(engine, chosen):
                raise click.ClickException(
                    f"the database {name_of(engine.url)} lacks {describe_missing({chosen: lacking})}: run `latchkey migrate`."
                )
            yield engine
        finally:
            await engine.dispose()
