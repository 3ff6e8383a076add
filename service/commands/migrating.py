"""The command `latchkey migrate`."""

import logging
from collections.abc import Sequence

import click

from latchkey.service.commands.application import for_application, read_schemas, read_settings
from latchkey.service.commands.rows import work
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.database.schema import Schema
from latchkey.service.settings import Settings


@click.command()
@click.option("--check", is_flag=True, help="Change nothing: compare the database with the models.")
@for_application
def migrate(check: bool) -> None:
    """Upgrade the database to this release, and to the application's own migrations. No key ring is needed."""
    settings, schemas = read_settings(), read_schemas()
    if check:
        found = work(compare(settings, schemas))
        if found:
            raise click.ClickException("\n".join(["the models and the database differ:", *found]))
        return
    for name, before, after in work(upgrade(settings, schemas)):
        of_schema = "" if name is None else f" of the schema {name}"
        if before == after:
            click.echo(f"The database is at revision {after}{of_schema} already.", err=True)
        else:
            click.echo(
                f"Migrated the database{of_schema} from revision {before or 'none'} to {after}.", err=True
            )


Step = tuple[str | None, str | None, str | None]


async def upgrade(settings: Settings, schemas: Sequence[Schema]) -> list[Step]:
    """Run the migrations; return for each schema its name, the revision before and the one after."""
    # MariaDB warns that it chooses the name of each primary key; the driver would log this.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    engine = create_engines(settings).writer
    try:
        every = (None, *schemas)
        before = [await schema.revision(engine, one) for one in every]
        await schema.upgrade(engine, schemas=schemas)
        return [
            (None if one is None else one.name, found, await schema.revision(engine, one))
            for one, found in zip(every, before, strict=True)
        ]
    finally:
        await engine.dispose()


async def compare(settings: Settings, schemas: Sequence[Schema]) -> list[str]:
    """Return the differences between a migrated database and the models."""
    engine = create_engines(settings).writer
    try:
        await schema.require_migrated(engine, schemas)
        return await schema.differences(engine, schemas)
    finally:
        await engine.dispose()
