"""`latchkey sign` and `latchkey call`: what a partner does, from a shell."""

import secrets
import sys
import time
from collections.abc import Callable
from typing import Any, get_args

import click

from latchkey.service.authentication.wire.credentials import AccessKey, Secret, checksum_is_right
from latchkey.service.client import CallError, Form, SignedCall, send, sign_call
from latchkey.service.commands.parameters import PUBLIC_ID

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FORM = click.Choice(get_args(Form))


class Method(click.Choice[str]):
    """A method, sent and signed in upper case however it was typed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(value.upper(), param, ctx)


OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("method", metavar="METHOD", type=Method(METHODS)),
    click.argument("url"),
    click.option("--key", "access_key", type=PUBLIC_ID, required=True, help="The public id of the key."),
    click.option("--secret", required=True, help="The key's secret; - reads it from standard input."),
    click.option("--data", help="The body, which is JSON."),
    click.option("--form", type=FORM, default="query", show_default=True, help="Where the signature goes."),
    click.option(
        "--idempotency-key", help="The same for a call and its retries, which then have one effect."
    ),
)


def signing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that signing takes."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@signing
def sign(**options: Any) -> None:
    """Print a signed call as a curl line, which is good for about a minute."""
    click.echo(signed(**options).curl())


@click.command()
@signing
def call(**options: Any) -> None:
    """Sign a call and send it; print the body of the answer.

    The status line goes to standard error. A status of 400 or above is the exit status 1.
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
    secret: str,
    data: str | None,
    form: Form,
    idempotency_key: str | None,
) -> SignedCall:
    """Sign what the options say."""
    known = read_secret(secret)
    try:
        return sign_call(
            method,
            url,
            access_key=access_key,
            secret=known,
            body=data,
            now=time.time(),
            nonce=secrets.token_urlsafe(16),
            form=form,
            idempotency_key=idempotency_key,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def read_secret(given: str) -> Secret:
    """Take the secret as given or, so that no shell remembers it, from standard input."""
    if given == "-":
        given = sys.stdin.readline().strip()
    if not given:
        raise click.UsageError("There is no secret.")
    if not checksum_is_right(given):
        click.echo("Warning: the checksum of the secret is wrong; it may have a typo.", err=True)
    return Secret(given)
