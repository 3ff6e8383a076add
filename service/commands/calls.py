"""The commands `latchkey sign` and `latchkey call`, with which a partner makes calls from a shell."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from latchkey.service.authentication.wire.credentials import AccessKey, Secret, checksum_is_right
from latchkey.service.client import CallError, Form, SignedCall, send, sign_call
from latchkey.service.commands.parameters import ACCESS_KEY
from latchkey.service.settings import BYTE_ORDER_MARK, CALLERS_SECRET

LONGEST_LINE = 4096  # characters, of which a secret has some 60
CALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FORM = click.Choice(get_args(Form))


class Method(click.Choice[str]):
    """A method, sent and signed in upper case, however it was typed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(value.upper(), param, ctx)


OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("method", metavar="METHOD", type=Method(CALL_METHODS)),
    click.argument("url"),
    click.option("--key", "access_key", type=ACCESS_KEY, required=True, help="The access key, lka_…"),
    click.option(
        "--secret",
        envvar=CALLERS_SECRET,
        show_envvar=True,
        help="The key's secret: @FILE reads it from a file, - from standard input. The secret itself would appear in the "
        "list of processes.",
    ),
    click.option("--secret-file", metavar="FILE", help="A file with the key's secret in its first line."),
    click.option("--data", help="The body, as JSON."),
    click.option("--form", type=FORM, default="query", show_default=True, help="Where the signature goes."),
    click.option(
        "--idempotency-key", help="A key shared by a call and its retries, which then take effect once."
    ),
)


def signing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options for signing."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@signing
@click.option("--show", is_flag=True, help="Print the text that is signed, instead of the command.")
def sign(*, show: bool, **options: Any) -> None:
    """Print a signed call as a curl command, which is valid for about a minute.

    The line break after the text that `--show` prints is not signed.
    """
    made = signed(**options)
    click.echo(made.signed_text if show else made.curl())


@click.command()
@signing
def call(**options: Any) -> None:
    """Sign a call, send it, and print the body of the response.

    The status line goes to standard error. For a status of 400 or above the exit status is 1.
    """
    try:
        answer = send(signed(**options))
    except CallError as error:
        raise click.ClickException(str(error)) from error
    click.echo(answer.status_line, err=True)
    click.echo(answer.body, nl=sys.stdout.isatty())
    if answer.status >= 400:  # noqa: PLR2004 - RFC 9110, section 15.5
        raise click.exceptions.Exit(1)


def signed(
    *,
    method: str,
    url: str,
    access_key: AccessKey,
    secret: str | None,
    secret_file: str | None,
    data: str | None,
    form: Form,
    idempotency_key: str | None,
) -> SignedCall:
    """Return the call that the options describe, signed."""
    known = read_secret(secret, secret_file)
    try:
        return sign_call(
            method,
            url,
            access_key=access_key,
            secret=known,
            body=data,
            form=form,
            idempotency_key=idempotency_key,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def read_secret(given: str | None, path: str | None) -> Secret:
    """Return the secret, from the file, or from `--secret` or the environment."""
    source = click.get_current_context().get_parameter_source("secret")
    if path is not None and source is ParameterSource.COMMANDLINE:
        raise click.UsageError("--secret and --secret-file exclude each other: give one of them.")
    if path is None and given is not None and given.startswith("@"):
        path = given[1:]
    if path is not None:
        text = first_line(path)
    elif given == "-":
        text = sys.stdin.readline(LONGEST_LINE)
    else:
        text = given or ""
    if not (text := text.removeprefix(BYTE_ORDER_MARK).strip()):
        raise click.UsageError(
            "There is no secret. Pass it in a file with --secret-file FILE, on standard input with --secret -, "
            "or in the variable LATCHKEY_SECRET."
        )
    if not checksum_is_right(text):
        click.echo("Warning: the checksum of the secret is wrong; it may have a typo.", err=True)
    return Secret(text)


def first_line(path: str) -> str:
    """Return the first line of a file or a pipe."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:  # some editors write a byte-order mark
            return file.readline(LONGEST_LINE)
    except UnicodeDecodeError:
        raise click.ClickException(f"{path}: it is not text.") from None
    except ValueError as error:
        raise click.ClickException(f"{path!r}: {error}.") from None
