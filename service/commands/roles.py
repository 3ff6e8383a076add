"""The commands `latchkey roles …`."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from latchkey.models import Role
from latchkey.service import conversion, shapes
from latchkey.service.commands.answers import show, show_page
from latchkey.service.commands.application import application_settings, for_application, read_scopes
from latchkey.service.commands.parameters import DESCRIPTION, ROLE, SCOPES, as_json
from latchkey.service.commands.rows import opened, work
from latchkey.service.commands.scopes import require_known_scopes
from latchkey.service.keys import roles as rules
from latchkey.service.problems import Problem

COLUMNS = ("name", "scopes", "description", "created_at")


@contextmanager
def named(name: str) -> Iterator[None]:
    """Turn the problem `not_found` of the block into an error that names the role."""
    try:
        yield
    except Problem as problem:
        if problem.code == "not_found":
            raise click.ClickException(f"there is no role {name}.") from None
        raise


@click.group()
def roles() -> None:
    """Create, list, change and remove roles, which are names for several scopes."""


@roles.command()
@click.argument("name", metavar="ROLE", type=ROLE)
@click.option("--scopes", type=SCOPES, required=True, help="The scopes of the role, separated by commas.")
@click.option("--description", type=DESCRIPTION, default="", help="An explanation for people.")
@as_json
@for_application
def add(name: str, scopes: list[str], description: str, as_json: bool) -> None:
    """Create a role, so that keys can have it."""
    show(work(add_role(name, scopes, description)), as_json=as_json)


async def add_role(name: str, scopes: list[str], description: str) -> shapes.Role:
    """Create a role and commit."""
    async with opened(application_settings()) as session:
        await require_known_scopes(scopes)
        role = await rules.create(name, scopes, description, None, read_scopes())
        await session.commit()
        return conversion.convert(role, shapes.Role)


@roles.command("list")
@as_json
@for_application
def list_(as_json: bool) -> None:
    """List the roles."""
    show_page(work(list_roles()), COLUMNS, as_json=as_json)


async def list_roles() -> shapes.RolePage:
    """Return all roles."""
    async with opened(application_settings()):
        rows = await Role.filter().order_by("id").all()
        return shapes.RolePage(data=[conversion.convert(row, shapes.Role) for row in rows], next_cursor=None)


@roles.command()
@click.argument("name", metavar="ROLE", type=ROLE)
@click.option("--scopes", type=SCOPES, help="The new scopes of the role, separated by commas.")
@click.option("--description", type=DESCRIPTION, help="An explanation for people.")
@as_json
@for_application
def change(name: str, scopes: list[str] | None, description: str | None, as_json: bool) -> None:
    """Change a role; all keys that have it get the new scopes."""
    show(work(change_role(name, scopes, description)), as_json=as_json)


async def change_role(name: str, scopes: list[str] | None, description: str | None) -> shapes.Role:
    """Change a role and commit."""
    async with opened(application_settings()) as session:
        await require_known_scopes(scopes or [])
        with named(name):
            role = await rules.change(
                name, scopes=scopes, description=description, caller=None, declared=read_scopes()
            )
        await session.commit()
        return conversion.convert(role, shapes.Role)


@roles.command()
@click.argument("name", metavar="ROLE", type=ROLE)
@for_application
def remove(name: str) -> None:
    """Remove a role that no active key has."""
    work(remove_role(name))


async def remove_role(name: str) -> None:
    """Remove a role and commit."""
    async with opened(application_settings()) as session:
        with named(name):
            await rules.remove(name, None)
        await session.commit()
