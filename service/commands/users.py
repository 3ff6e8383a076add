"""The commands `latchkey users …`."""

from typing import Literal

import click
import msgspec
from sqlalchemy.exc import IntegrityError

from latchkey.models import User
from latchkey.service import conversion, shapes
from latchkey.service.audit.sealer import ChangedHeadError, Sealer
from latchkey.service.authentication.keyring import KeyRingError, open_keyring
from latchkey.service.commands.answers import aligned, show, show_page
from latchkey.service.commands.application import application_settings, for_application
from latchkey.service.commands.parameters import EMAIL, NAME, USER, USER_STATUS, as_json, limit
from latchkey.service.commands.rows import opened, require_user, work
from latchkey.service.database import SQLAlchemy
from latchkey.service.owners.erasure import Erased, Erasure, NotSealedError
from latchkey.service.users import delete, is_email_taken

COLUMNS = ("id", "email", "name", "status", "created_at")


@click.group()
def users() -> None:
    """Create, list, block, unblock and erase users."""


@users.command()
@click.option(
    "--email", type=EMAIL, required=True, help="The email, which must be unique in any letter case."
)
@click.option("--name", type=NAME, required=True)
@as_json
@for_application
def create(email: str, name: str, as_json: bool) -> None:
    """Create a user."""
    show(work(create_user(email, name)), as_json=as_json)


async def create_user(email: str, name: str) -> shapes.User:
    """Create a user and commit."""
    async with opened(application_settings()) as session:
        try:
            user = await User.create(email=email, name=name)
        except IntegrityError as error:
            if is_email_taken(error):
                raise click.ClickException(
                    f"the email {email} is taken; that of a deleted user stays taken."
                ) from error
            raise
        await session.commit()
        return shown(user)


@users.command("list")
@click.option("--email", help="The whole address, in any letter case.")
@click.option("--status", type=USER_STATUS, help="Only users with this status.")
@limit
@as_json
@for_application
def list_(email: str | None, status: str | None, limit: int | None, as_json: bool) -> None:
    """List users in the order of their ids."""
    page = work(list_users(email=email, status=status, limit=limit))
    show_page(page, COLUMNS, as_json=as_json)


async def list_users(*, email: str | None, status: str | None, limit: int | None) -> shapes.UserPage:
    """Return users; without a limit, all of them."""
    async with opened(application_settings()):
        query = User.filter().order_by("id")
        if email is not None:
            query = query.filter(email_key=email.casefold())
        if status is not None:
            query = query.filter(status=status)
        rows = await (query if limit is None else query.limit(limit)).all()
        return shapes.UserPage(data=[shown(row) for row in rows], next_cursor=None)


@users.command()
@click.argument("user", type=USER)
@as_json
@for_application
def block(user: int | str, as_json: bool) -> None:
    """Block a user, by id or email; all keys of the user are refused until the user is unblocked."""
    show(work(set_status(user, "blocked")), as_json=as_json)


@users.command()
@click.argument("user", type=USER)
@as_json
@for_application
def unblock(user: int | str, as_json: bool) -> None:
    """Unblock a user, by id or email."""
    show(work(set_status(user, "active")), as_json=as_json)


@users.command()
@click.argument("user", type=USER)
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask.")
@for_application
def erase(user: int | str, is_confirmed: bool) -> None:
    """Delete a user, by id or email, and erase the personal data of the user and of its keys.

    The keys are revoked. The audit log and the counts of calls stay, without personal data. This cannot be undone. A
    command that was interrupted is continued by the next one. The command prints what was erased.
    """
    if not is_confirmed:
        click.confirm(f"Erase the personal data of the user {user}?", abort=True, err=True)
    try:
        done = work(erase_user(user))
    except (ChangedHeadError, KeyRingError, NotSealedError) as error:
        raise click.ClickException(f"the audit log: {error}") from None
    click.echo(aligned([[name, str(count)] for name, count in msgspec.structs.asdict(done).items()]))


async def erase_user(reference: int | str) -> Erased:
    """Delete a user, unless it is deleted already, and erase the personal data."""
    settings = application_settings()
    keyring = open_keyring(settings)
    async with opened(settings, keyring) as session:
        user = await require_user(reference)
        if user.status != "deleted":
            await delete(user)
        await session.commit()
        db = SQLAlchemy()
        sealer = Sealer(db, keyring, settings.audit_head_path)
        return await Erasure(db, keyring, sealer, user.id).run()


async def set_status(reference: int | str, status: Literal["active", "blocked"]) -> shapes.User:
    """Block or unblock a user and commit."""
    async with opened(application_settings()) as session:
        user = await require_user(reference)
        if user.status == "deleted":
            raise click.ClickException(f"the user {reference} is deleted, and stays so.")
        await user.update(status=status)
        await session.commit()
        return shown(user)


def shown(user: User) -> shapes.User:
    """Return a user in the form of the endpoints' answer."""
    return conversion.convert(user, shapes.User)
