"""The command line: `latchkey …` and `python -m latchkey …`.

Standard output contains only the result; messages for people go to standard error.
The exit status is 0 on success; 1 for a refusal, with one sentence; 2 for invalid arguments.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any

import click
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from latchkey import service
from latchkey.service.application import ApplicationError
from latchkey.service.authentication.canary import WrongKeyRingError
from latchkey.service.commands.application import FIXED, app_option
from latchkey.service.commands.audit import audit
from latchkey.service.commands.calls import call, sign
from latchkey.service.commands.export import export
from latchkey.service.commands.gate import gate
from latchkey.service.commands.keyring import keyring
from latchkey.service.commands.keys import keys
from latchkey.service.commands.migrating import migrate, migrations
from latchkey.service.commands.output import OutputError, guarded_output
from latchkey.service.commands.roles import roles
from latchkey.service.commands.scaffolding import scaffolding
from latchkey.service.commands.scopes import scopes
from latchkey.service.commands.server import dev, openapi, purge, serve
from latchkey.service.commands.usage import usage
from latchkey.service.commands.users import users
from latchkey.service.commands.webhooks import webhooks
from latchkey.service.database.schema import NotMigratedError, SchemaError
from latchkey.service.exception_handlers import problem_of_exception
from latchkey.service.redis.client import UnreachableError
from latchkey.service.settings import SettingsError

# A text that may be the secret of a key, passed in place of another argument.
LIKE_A_SECRET = re.compile(r"[0-9A-Za-z]+s_(?:[0-9A-Za-z]+_)?[0-9A-Za-z]{40,}")

ADVICE = re.compile("`latchkey ([^`]+)`(?: with the application)?")
"""A command in a sentence."""


class Commands(click.Group):
    """The outermost group: no error that a user can cause ends in a traceback.

    Args:
        app: the application of every command, unless `--app` names another one.
    """

    def __init__(self, *args: Any, app: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = app

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the arguments of this process name."""
        with guarded_output():
            try:
                return super().main(*args, **kwargs)
            except OutputError as error:
                click.echo(f"Error: {error}", err=True)
                sys.exit(1)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse arguments that are not valid text, which could be neither stored nor signed."""
        for place, argument in enumerate(args, start=1):
            if not is_text(argument):
                raise click.UsageError(
                    f"Argument {place} is not valid in the encoding of this terminal.", ctx
                )
        if self.app is not None:
            ctx.meta[FIXED] = self.app
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the requested command."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            without_secret = LIKE_A_SECRET.sub("…", error.message)
            error.message = self.name_program(without_secret)  # type: ignore[misc]  # the same sentence for this program
            raise
        except Exception as error:
            sentence = describe_error(error)
            if sentence is None:
                raise
            raise click.ClickException(self.name_program(sentence)) from error

    def name_program(self, sentence: str) -> str:
        """Return a sentence that advises a command, with the name of a team's own program."""
        return sentence if self.app is None else ADVICE.sub(rf"`{self.name} \1`", sentence)


def is_text(argument: str) -> bool:
    """Return whether every byte of an argument was valid in its encoding."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def describe_error(error: Exception) -> str | None:  # noqa: PLR0911 - a table, read line by line
    """Return a sentence for an error that the user or the environment caused; None for a fault of Latchkey."""
    match error:
        case SettingsError() | NotMigratedError() | WrongKeyRingError() | ApplicationError() | SchemaError():
            return str(error)
        case CommandError():
            return f"the migrations: {error}"
        case BrokenPipeError():
            return None  # the reader of the output has gone; click handles this
        case OutputError():
            return str(error)
        case OSError(filename=str(file)):
            return f"{file}: {error.strerror}"
        case DBAPIError():
            return f"the database: {getattr(error.orig, 'args', (error.orig,))[-1]}"  # the first argument is the error number
        case UnreachableError():
            return f"Redis: {error}"
        case OSError():
            return f"the database cannot be reached: {error.strerror or error}"
        case _:
            problem = problem_of_exception(error)
            return None if problem is None else problem.detail


COMMANDS = (
    migrate,
    migrations,
    scaffolding,
    purge,
    serve,
    dev,
    openapi,
    keyring,
    users,
    keys,
    roles,
    scopes,
    usage,
    export,
    webhooks,
    audit,
    gate,
    sign,
    call,
)


def command_line(
    app: str | None, *, name: str = "latchkey", commands: Sequence[click.Command] = ()
) -> click.Group:
    """Return the command line of a team's application: Latchkey's commands for it, and the team's own.

    Call the returned group in the `__main__` of the package or as a script of its `pyproject.toml`::

        main = command_line("orders:create_app", name="orders", commands=[import_orders])

    Args:
        app: the application, as a module and a function that builds it without arguments. `LATCHKEY_APP` does not
            replace it, `--app` does.
        name: the name of the program in its help.
        commands: a team's own click commands. An error in a setting, a database that cannot be reached, or a problem
            ends them with one sentence and the exit status 1, like Latchkey's.

    Raises:
        ValueError: two commands have the same name.
    """

    def program() -> None:
        """Manage users and their API keys, and sign calls with those keys.

        The settings are LATCHKEY_* environment variables.
        """

    decorated = click.version_option(service.__version__, prog_name="latchkey")(app_option(program))
    group: click.Group = click.group(
        name, cls=Commands, app=app, context_settings={"help_option_names": ["-h", "--help"]}
    )(decorated)
    for command in (*COMMANDS, *commands):
        if command.name in group.commands:
            raise ValueError(f"the command {command.name} exists already.")
        group.add_command(command)
    return group


latchkey = command_line(None)


def main() -> None:
    """Run the command that the arguments of this process name."""
    latchkey(prog_name="latchkey")
