"""The application of a command: `--app`, `LATCHKEY_APP`, or the entry point of an installed package."""

import functools
import os
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from latchkey.service.application import installed_application, read_declaration
from latchkey.service.database.schema import Schema
from latchkey.service.declaration import Declaration
from latchkey.service.operation import Operation
from latchkey.service.routes import ROUTES, declared_scopes
from latchkey.service.settings import Settings

PLACE = "latchkey.service.commands.application"
FIXED = f"{PLACE}.fixed"
NAMED = f"{PLACE}.named"
READ = f"{PLACE}.read"


def remember(ctx: click.Context, parameter: click.Parameter, reference: str | None) -> None:
    """Store the name for the command; one on the command line takes precedence over the one in the environment."""
    if reference is None:
        return
    if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
        ctx.meta[NAMED] = reference
    elif FIXED not in ctx.meta:
        ctx.meta.setdefault(NAMED, reference)


app_option = click.option(
    "--app",
    metavar="MODULE:FUNCTION",
    envvar="LATCHKEY_APP",
    expose_value=False,
    is_eager=True,
    callback=remember,
    help="The application, such as orders:create_app.",
)


def for_application(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option `--app`, and read the application before the command runs."""

    @app_option
    @functools.wraps(command)
    def run(**options: Any) -> None:
        read_application()  # here, because it must be read outside any event loop
        command(**options)

    return run


def application() -> str | None:
    """Return the name of the application of the running command; None for Latchkey alone."""
    meta = click.get_current_context().meta
    if NAMED not in meta:
        meta[NAMED] = meta.get(FIXED) or installed_application()
    named: str | None = meta[NAMED]
    return named


def read_application() -> Declaration | None:
    """Return the declaration of the application; None for Latchkey alone."""
    reference = application()
    if reference is None:
        return None
    meta = click.get_current_context().meta
    if READ not in meta:
        meta[READ] = read_declaration(reference)
    found: Declaration = meta[READ]
    return found


def application_settings() -> Settings:
    """Return the settings of the application, or those of this process."""
    found = read_application()
    return Settings.from_env(os.environ) if found is None else found.settings


def read_operations() -> tuple[Operation, ...]:
    """Return the operations of the application, including Latchkey's."""
    found = read_application()
    return ROUTES if found is None else found.operations


def read_scopes() -> frozenset[str]:
    """Return the scopes that a key may have."""
    found = read_application()
    return declared_scopes(ROUTES) if found is None else found.scopes


def read_schemas() -> tuple[Schema, ...]:
    """Return the schemas of the application."""
    found = read_application()
    return () if found is None else found.schemas
