"""The commands `latchkey scopes …`."""

import click

from latchkey.models import Scope
from latchkey.service import conversion, shapes
from latchkey.service.commands.answers import show, show_page
from latchkey.service.commands.application import application_settings, for_application, read_scopes
from latchkey.service.commands.parameters import DESCRIPTION, SCOPE, as_json
from latchkey.service.commands.rows import opened, work
from latchkey.service.keys.scopes import register, require_known
from latchkey.service.keys.scopes import remove as remove_row
from latchkey.service.problems import Problem
from latchkey.service.rule_error import RuleError

COLUMNS = ("name", "description", "created_at")


@click.group()
def scopes() -> None:
    """Register, list and remove scopes of other services."""


@scopes.command()
@click.argument("name", metavar="SCOPE", type=SCOPE)
@click.option("--description", type=DESCRIPTION, default="", help="An explanation for people.")
@as_json
@for_application
def add(name: str, description: str, as_json: bool) -> None:
    """Register a scope, such as orders:read, so that keys can have it."""
    show(work(add_scope(name, description)), as_json=as_json)


async def add_scope(name: str, description: str) -> shapes.Scope:
    """Register a scope and commit."""
    async with opened(application_settings()) as session:
        scope = await register(name, description, read_scopes())
        await session.commit()
        return conversion.convert(scope, shapes.Scope)


@scopes.command("list")
@as_json
@for_application
def list_(as_json: bool) -> None:
    """List the registered scopes."""
    show_page(work(list_scopes()), COLUMNS, as_json=as_json)


async def list_scopes() -> shapes.ScopePage:
    """Return all registered scopes."""
    async with opened(application_settings()):
        rows = await Scope.filter().order_by("id").all()
        return shapes.ScopePage(
            data=[conversion.convert(row, shapes.Scope) for row in rows], next_cursor=None
        )


@scopes.command()
@click.argument("name", metavar="SCOPE", type=SCOPE)
@for_application
def remove(name: str) -> None:
    """Remove a registered scope that no active key and no role has."""
    work(remove_scope(name))


async def remove_scope(name: str) -> None:
    """Remove a scope and commit."""
    async with opened(application_settings()) as session:
        try:
            await remove_row(name)
        except Problem as problem:
            if problem.code == "not_found":
                raise click.ClickException(f"there is no registered scope {name}.") from None
            raise
        await session.commit()


async def require_known_scopes(scopes: list[str]) -> None:
    """Raise an error for scopes that no key can have."""
    try:
        await require_known(scopes, read_scopes())
    except RuleError as error:
        raise click.BadParameter(
            f"{error.item_in(scopes)!r}: {error.reason}.", param_hint="'--scopes'"
        ) from None
