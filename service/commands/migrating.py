"""The command `latchkey migrate`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from sqlalchemy import URL

from latchkey.service.commands.application import application_settings, for_application, read_schemas
from latchkey.service.commands.rows import work
from latchkey.service.database import schema
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
