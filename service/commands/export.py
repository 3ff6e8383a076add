"""The command `latchkey export`."""

import click
import msgspec

from latchkey.service.commands.application import application_settings, for_application
from latchkey.service.commands.parameters import USER
from latchkey.service.commands.rows import opened, require_user, work
from latchkey.service.database import SQLAlchemy
from latchkey.service.owners.export import exported
from latchkey.service.settings import read_environments


@click.command()
@click.argument("user", type=USER)
@for_application
def export(user: int | str) -> None:
    """Print everything that is stored about a user, by id or email, as JSON lines.

    Each line has a type and its data: the user, its keys without their secrets, the calls of each key, and the events of
    the audit log about them.
    """
    work(print_lines(user))


async def print_lines(reference: int | str) -> None:
    """Print the lines, each as soon as it was read."""
    settings = application_settings()
    environments = read_environments(settings.environments)
    async with opened(settings) as session:
        user = await require_user(reference)
        await session.commit()  # the lock ends, and the rest is read without one
        async with SQLAlchemy().reader.connect() as connection:
            async for line in exported(user, connection, environments):
                click.echo(msgspec.json.encode(line))
