"""The commands `latchkey keys …`. No scope limits them, because they create the first key."""

from datetime import datetime

import click
import msgspec

from latchkey.models import ApiKey
from latchkey.models.limit import Credits, Quota, RateLimit, Refill
from latchkey.models.scope import joined
from latchkey.service import shapes
from latchkey.service.commands.answers import show, show_page
from latchkey.service.commands.application import application_settings, for_application
from latchkey.service.commands.importing import import_
from latchkey.service.commands.key_rules import key_rules
from latchkey.service.commands.parameters import (
    ACCESS_KEY,
    CREDIT_CHANGE,
    CREDITS,
    GRACE,
    KEY_STATUS,
    LIMIT,
    MODE,
    MOMENT,
    NAME,
    NETWORKS,
    QUOTA,
    REFILL,
    ROLE,
    ROLES,
    SCOPES,
    USER,
    as_json,
    limit,
)
from latchkey.service.commands.rows import opened, require_user, work
from latchkey.service.commands.scopes import require_known_scopes
from latchkey.service.keys.credits import add_credits, set_credits, shown
from latchkey.service.keys.listing import filtered
from latchkey.service.keys.rules import lock_key
from latchkey.service.keys.rules import revoke as revoke_row
from latchkey.service.keys.scopes import scopes_of_roles
from latchkey.service.limits.rules import distinct_limits
from latchkey.service.problems import invalid_field
from latchkey.service.rule_error import RuleError
from latchkey.service.settings import read_environments

COLUMNS = ("access_key", "user_id", "name", "mode", "scopes", "status", "expires_at", "last_used_at")


@click.group()
def keys() -> None:
    """Create, import, list, rotate and revoke keys, and change their scopes and credits."""


keys.add_command(import_)


@keys.command()
@click.option("--user", type=USER, required=True, help="The owner, by id or email.")
@click.option("--name", type=NAME, required=True)
@click.option(
    "--mode", type=MODE, required=True, help="How calls authenticate: send the secret, or sign with it."
)
@click.option("--environment", type=NAME, help="One of LATCHKEY_ENVIRONMENTS; by default, the first.")
@click.option("--scopes", type=SCOPES, required=True, help="The scopes of the key, separated by commas.")
@click.option("--roles", type=ROLES, default="", help="The roles of the key, separated by commas.")
@click.option(
    "--networks",
    type=NETWORKS,
    default="",
    help="The networks that may use the key, as 192.0.2.0/24; by default, all.",
)
@click.option(
    "--limit",
    "limits",
    type=LIMIT,
    multiple=True,
    help="A rate limit, as burst=100/60s; up to five, all of which apply.",
)
@click.option("--quota", type=QUOTA, help="A quota, as 10000/day or 250000/month, in UTC.")
@click.option(
    "--credits", "amount", type=CREDITS, help="The credits that calls spend; by default, they spend none."
)
@click.option(
    "--refill", type=REFILL, help="What --credits are filled up to, as 1000/day or 50000/month, in UTC."
)
@click.option("--expires-at", type=MOMENT, help="When the key expires; by default, never.")
@as_json
@for_application
def create(
    *,
    user: int | str,
    name: str,
    mode: str,
    environment: str | None,
    scopes: list[str],
    roles: list[str],
    networks: tuple[str, ...],
    limits: tuple[RateLimit, ...],
    quota: Quota | None,
    amount: int | None,
    refill: Refill | None,
    expires_at: datetime | None,
    as_json: bool,
) -> None:
    """Create a key and print it with its secret, which is shown only here."""
    key = work(
        create_key(
            user,
            name=name,
            mode=mode,
            environment=environment,
            scopes=scopes,
            roles=roles,
            networks=networks,
            limits=checked_limits(limits),
            quota=quota,
            credits=given_credits(amount, refill),
            expires_at=expires_at,
        )
    )
    show(key, as_json=as_json)
    if not as_json:
        click.echo("The secret is shown only here: keep it safe.", err=True)


async def create_key(
    reference: int | str,
    *,
    name: str,
    mode: str,
    environment: str | None,
    scopes: list[str],
    roles: list[str],
    networks: tuple[str, ...],
    limits: tuple[RateLimit, ...],
    quota: Quota | None,
    credits: Credits | None,
    expires_at: datetime | None,
) -> shapes.KeyWithSecret:
    """Create a key for an active user and commit."""
    settings = application_settings()
    rules = key_rules(settings)
    async with opened(settings, rules.issuer.keyring) as session:
        await require_known_scopes(scopes)
        owner = await require_user(reference)
        if owner.status != "active":
            raise click.ClickException(f"the user {reference} is {owner.status}: only active users get keys.")
        key, secret = await rules.create(
            owner.id,
            None,
            name=name,
            mode=mode,
            environment=environment,
            scopes=scopes,
            roles=roles,
            allowed_networks=networks,
            limits=limits,
            quota=quota,
            credits=credits,
            expires_at=expires_at,
        )
        await session.commit()
        return shapes.KeyWithSecret(**msgspec.structs.asdict(await shown_one(key)), secret=secret)


@keys.command("list")
@click.option("--user", type=USER, help="The owner, by id or email.")
@click.option("--status", type=KEY_STATUS, help="Only keys with this status.")
@click.option("--role", type=ROLE, help="Only keys that have this role.")
@click.option("--environment", type=NAME, help="Only keys of this environment.")
@limit
@as_json
@for_application
def list_(
    *,
    user: int | str | None,
    status: str | None,
    role: str | None,
    environment: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List keys, oldest first."""
    page = list_keys(user, status=status, role=role, environment=environment, limit=limit)
    show_page(work(page), COLUMNS, as_json=as_json)


async def list_keys(
    owner: int | str | None,
    *,
    status: str | None,
    role: str | None,
    environment: str | None,
    limit: int | None,
) -> shapes.KeyPage:
    """Return keys; without a limit, all of them."""
    async with opened(application_settings()):
        query = ApiKey.filter().order_by("id")
        if owner is not None:
            query = query.filter(user_id=(await require_user(owner)).id)
        query = filtered(
            query, status=status, role=role, environment=environment, environments=environments()
        )
        rows = await (query if limit is None else query.limit(limit)).all()
        return shapes.KeyPage(data=await shown(rows, environments()), next_cursor=None)


@keys.command()
@click.argument("access_key", metavar="ACCESS_KEY", type=ACCESS_KEY)
@click.option(
    "--grace",
    type=GRACE,
    default="0",
    help="How long the old secret still works, as 7d, 12h or 600; by default it ends at once.",
)
@as_json
@for_application
def rotate(access_key: str, grace: int, as_json: bool) -> None:
    """Replace the secret of a key, and print the new one, which is shown only here."""
    key = work(rotate_key(access_key, grace_s=grace))
    show(key, as_json=as_json)
    if not as_json:
        click.echo("The secret is shown only here: keep it safe.", err=True)
        ends = key.old_secret_expires_at
        state = "has ended" if ends is None else f"works until {ends.isoformat(timespec='seconds')}"
        click.echo(f"The old secret {state}.", err=True)


async def rotate_key(access_key: str, *, grace_s: int) -> shapes.RotatedKey:
    """Rotate a key and commit."""
    settings = application_settings()
    rules = key_rules(settings)
    async with opened(settings, rules.issuer.keyring) as session:
        key = await lock_key(access_key)
        if key is None:
            raise click.ClickException(f"there is no key {access_key}.")
        if key.status == "revoked":
            raise click.ClickException(f"the key {access_key} is revoked, and stays so.")
        rotated = await rules.rotate(key, None, grace_s=grace_s)
        await session.commit()
        return shapes.RotatedKey(
            **msgspec.structs.asdict(await shown_one(key)),
            secret=rotated.secret,
            old_secret_expires_at=rotated.ends_at,
        )


@keys.command()
@click.argument("access_key", metavar="ACCESS_KEY", type=ACCESS_KEY)
@click.option("--scopes", type=SCOPES, default="", help="The additional scopes, separated by commas.")
@click.option("--roles", type=ROLES, default="", help="The additional roles, separated by commas.")
@as_json
@for_application
def grant(access_key: str, scopes: list[str], roles: list[str], as_json: bool) -> None:
    """Give a key more scopes or roles; it keeps those that it has."""
    if not scopes and not roles:
        raise click.UsageError("give --scopes or --roles.")
    show(work(grant_scopes(access_key, scopes, roles)), as_json=as_json)


async def grant_scopes(access_key: str, scopes: list[str], roles: list[str]) -> shapes.Key:
    """Give a key more scopes and roles and commit."""
    async with opened(application_settings()) as session:
        await require_known_scopes(scopes)
        key = await lock_key(access_key)
        if key is None:
            raise click.ClickException(f"there is no key {access_key}.")
        if key.status == "revoked":
            raise click.ClickException(f"the key {access_key} is revoked, and stays so.")
        together = joined(key.scopes, scopes)
        if len(together) > shapes.MOST_SCOPES:
            raise click.ClickException(
                f"the key {access_key} would have {len(together)} scopes; at most {shapes.MOST_SCOPES}."
            )
        names = joined(key.roles, roles)
        if len(names) > shapes.MOST_ROLES:
            raise click.ClickException(
                f"the key {access_key} would have {len(names)} roles; at most {shapes.MOST_ROLES}."
            )
        with invalid_field("/roles"):
            role_scopes = await scopes_of_roles(names)
        await key.update(scopes=together, roles=names, role_scopes=role_scopes)
        await session.commit()
        return await shown_one(key)


@keys.command("credits")
@click.argument("access_key", metavar="ACCESS_KEY", type=ACCESS_KEY)
@click.option(
    "--add", "delta", type=CREDIT_CHANGE, help="Add this number of credits, or subtract it, as in --add=-100."
)
@click.option("--set", "amount", type=CREDITS, help="Replace the credits and their refill.")
@click.option(
    "--refill",
    type=REFILL,
    help="With --set: the amount and the period of the refill, such as 1000/day or 50000/month, in UTC.",
)
@click.option("--none", "is_none", is_flag=True, help="Remove the credits, so that calls spend none.")
@as_json
@for_application
def credits_(
    *,
    access_key: str,
    delta: int | None,
    amount: int | None,
    refill: Refill | None,
    is_none: bool,
    as_json: bool,
) -> None:
    """Add, set or remove the credits of a key."""
    if (delta is not None) + (amount is not None) + is_none != 1:
        raise click.UsageError("give one of --add, --set and --none.")
    show(work(change_credits(access_key, delta, given_credits(amount, refill))), as_json=as_json)


async def change_credits(access_key: str, delta: int | None, credits: Credits | None) -> shapes.Key:
    """Change the credits of a key and commit; without a delta, `credits` replaces them."""
    async with opened(application_settings()) as session:
        key = await lock_key(access_key)
        if key is None:
            raise click.ClickException(f"there is no key {access_key}.")
        if delta is None:
            await set_credits(key, credits)
        else:
            await add_credits(key, delta)
        await session.commit()
        return await shown_one(key)


def given_credits(amount: int | None, refill: Refill | None) -> Credits | None:
    """Return the credits that two options describe together; None without an amount."""
    if amount is None and refill is not None:
        raise click.UsageError("--refill needs the number of credits, too.")
    return None if amount is None else Credits(remaining=amount, refill=refill)


@keys.command()
@click.argument("access_key", metavar="ACCESS_KEY", type=ACCESS_KEY)
@as_json
@for_application
def revoke(access_key: str, as_json: bool) -> None:
    """Revoke a key; later calls with it are refused."""
    show(work(revoke_key(access_key)), as_json=as_json)


async def revoke_key(access_key: str) -> shapes.Key:
    """Revoke a key and commit; a revoked one stays unchanged."""
    async with opened(application_settings()) as session:
        key = await lock_key(access_key)
        if key is None:
            raise click.ClickException(f"there is no key {access_key}.")
        await revoke_row(key)
        await session.commit()
        return await shown_one(key)


def checked_limits(limits: tuple[RateLimit, ...]) -> tuple[RateLimit, ...]:
    """Return the limits, or raise an error for a combination that no key can have; each limit alone was checked before."""
    if len(limits) > shapes.MOST_LIMITS:
        raise click.UsageError(f"--limit: at most {shapes.MOST_LIMITS}.")
    try:
        return distinct_limits(limits)
    except RuleError as error:
        raise click.UsageError(f"--limit: {error.reason}.") from None


def environments() -> tuple[str, ...]:
    """Return the names of the environments."""
    return read_environments(application_settings().environments)


async def shown_one(key: ApiKey) -> shapes.Key:
    """Return a key in the form of the endpoints' answer."""
    return (await shown([key], environments()))[0]
