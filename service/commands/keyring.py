"""The commands `latchkey keyring …`."""

import sys

import click
import msgspec

from latchkey.service.authentication import canary
from latchkey.service.authentication.keyring import KeyRing, open_keyring
from latchkey.service.commands.answers import aligned
from latchkey.service.commands.application import app_option, application_settings, for_application
from latchkey.service.commands.rows import opened, work
from latchkey.service.database import SQLAlchemy, schema
from latchkey.service.database.engines import create_engines
from latchkey.service.ring_keys.places import PLACES
from latchkey.service.ring_keys.rewrapping import Rewrapped, rewrap
from latchkey.service.ring_keys.uses import Uses, read_uses, sentences
from latchkey.service.settings import Settings

COLUMNS = ("ring key", "in the ring", *(place.noun for place in PLACES), "audit head", "audit events")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of the ring, the first one first, and what each key is used for."""

    ring: list[int]
    uses: dict[int, Uses]


@click.group(invoke_without_command=True)
@click.option(
    "--adopt",
    "is_adopted",
    is_flag=True,
    help="Print no key ring; make the database accept LATCHKEY_KEYRING after its own key ring was lost.",
)
@click.option(
    "--id",
    "key_id",
    type=click.IntRange(1, 999_999_999),
    default=1,
    show_default=True,
    help="The number of the new key; one that the ring does not have.",
)
@app_option
@click.pass_context
def keyring(ctx: click.Context, *, is_adopted: bool, key_id: int) -> None:
    """Print a new key ring for LATCHKEY_KEYRING, or a new key for the one that is used."""
    if ctx.invoked_subcommand is not None:
        return
    if not is_adopted:
        click.echo(KeyRing.generate_text(key_id=key_id))
        return
    settings = application_settings()
    work(adopt(settings, open_keyring(settings)))
    click.echo(
        "The database is used with the key ring of LATCHKEY_KEYRING from now on. "
        "Signing keys whose secrets it cannot decrypt must be rotated.",
        err=True,
    )


async def adopt(settings: Settings, keyring: KeyRing) -> None:
    """Accept a key ring for a migrated database."""
    engine = create_engines(settings).writer
    try:
        await schema.require_migrated(engine)
        await canary.adopt(engine, keyring)
    finally:
        await engine.dispose()


@keyring.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@for_application
def status(as_json: bool) -> None:
    """Show what each key of the key ring is used for, and which may be removed."""
    settings = application_settings()
    ring = open_keyring(settings)
    found = work(status_of(settings, ring))
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    click.echo(table_of(found))
    for sentence in sentences(found.uses, ring.ids, ring.first):
        click.echo(sentence)


async def status_of(settings: Settings, ring: KeyRing) -> Status:
    """Return the status of a ring; a ring that lacks a key has one too."""
    async with opened(settings), SQLAlchemy().reader.connect() as connection:
        found = await read_uses(connection)
    ids = [ring.first, *sorted(ring.ids - {ring.first})]
    return Status(ring=ids, uses={key_id: Uses() for key_id in ids} | found)


def table_of(status: Status) -> str:
    """Return the uses as a table, with a line for each key."""
    lines = [list(COLUMNS)]
    for key_id, uses in status.uses.items():
        held = "first" if key_id == status.ring[0] else "yes" if key_id in status.ring else "no"
        counts = [uses.encrypted.get(place.noun, 0) for place in PLACES]
        lines.append([str(one) for one in (key_id, held, *counts, uses.audit_head, uses.audit_events)])
    return aligned(lines)


@keyring.command("rewrap")
@for_application
def rewrap_() -> None:
    """Encrypt every stored secret with the first key of the key ring, while the service is running.

    Every process of the service must already have this key in its ring. A command that was interrupted is continued by
    the next one. At the end, it says which keys may be removed from the ring. The exit status is 1 if a value cannot
    be decrypted.
    """
    settings = application_settings()
    ring = open_keyring(settings)
    done, found = work(rewrapped(settings, ring))
    click.echo(f"{done.values} values were encrypted with ring key {ring.first}.")
    for sentence in sentences(found, ring.ids, ring.first):
        click.echo(sentence)
    for fault in done.faults:
        click.echo(fault, err=True)
    if done.failed:
        raise click.ClickException(f"{done.failed} values cannot be decrypted.")


async def rewrapped(settings: Settings, ring: KeyRing) -> tuple[Rewrapped, dict[int, Uses]]:
    """Encrypt every value anew, and show the progress on a terminal; return the result, and the uses afterwards."""
    async with opened(settings, ring):
        db = SQLAlchemy()
        async with db.reader.connect() as connection:
            before = await read_uses(connection)
            length = sum(
                sum(one.encrypted.values()) for key_id, one in before.items() if key_id != ring.first
            )
            with click.progressbar(
                length=length, label="Encrypting", file=sys.stderr, hidden=not sys.stderr.isatty()
            ) as bar:
                done = await rewrap(db.engine, db.reader, ring, bar.update)
            if done is None:
                raise click.ClickException("another process is encrypting the secrets of this database.")
            return done, await read_uses(connection)
