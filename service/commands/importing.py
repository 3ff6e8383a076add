"""The command `latchkey keys import`."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import click
import msgspec

from latchkey.service.commands.application import application_settings, for_application
from latchkey.service.commands.key_rules import key_rules
from latchkey.service.commands.parameters import NAME, SCOPES, USER
from latchkey.service.commands.rows import opened, require_user, work
from latchkey.service.keys.dumps import FORMATS, Entry, FileFormatError, read_entries
from latchkey.service.keys.import_shapes import MOST_IMPORTED, ImportedKey, ImportResult, refused
from latchkey.service.keys.importing import Importer
from latchkey.service.shapes import in_words


class Line(msgspec.Struct, frozen=True):
    """The result for a key in the file, as `--json` prints it."""

    place: str
    status: str
    access_key: str | None
    detail: str | None


class Progress:
    """The counts so far, shown on a terminal."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._began = time.monotonic()
        self._is_shown = sys.stderr.isatty()

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self._began, 0.001)
        parts = (f"{self.counts[status]:,} {status}" for status in ("imported", "known", "refused"))
        return f"{', '.join(parts)}; {self.counts.total() / seconds:,.0f} keys/s"

    def show(self) -> None:
        """Replace the line on the terminal."""
        if self._is_shown:
            click.echo(f"\r{self}\x1b[K", err=True, nl=False)

    def end(self) -> None:
        """Remove the line from the terminal."""
        if self._is_shown:
            click.echo("\r\x1b[K", err=True, nl=False)


@click.command("import")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="latchkey",
    show_default=True,
    help="The system that made the file.",
)
@click.option(
    "--user", type=USER, help="The owner of all keys, by id or email; by default, as the file says."
)
@click.option("--create-users", is_flag=True, help="Create users whose external id does not exist.")
@click.option("--scopes", type=SCOPES, help="The scopes of all keys; by default, as the file says.")
@click.option("--environment", type=NAME, help="The environment of all keys; by default, as the file says.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for each key as a line of JSON.")
@for_application
def import_(
    *,
    path: str,
    form: str,
    user: int | str | None,
    create_users: bool,
    scopes: list[str] | None,
    environment: str | None,
    as_json: bool,
) -> None:
    """Import the keys of another system from FILE, or from standard input if it is -.

    The command prints each key that is refused, with its place in the file and the reason, and the number of keys. A key
    whose secret is known is left unchanged, so the command can be repeated, also after it was interrupted. The exit status is 1
    if a key is refused.
    """
    given: dict[str, Any] = {} if scopes is None else {"scopes": scopes}
    if environment is not None:
        given["environment"] = environment
    progress = Progress()
    try:
        with click.open_file(path, "rb") as file:
            entries = read_entries(file, FORMATS[form])
            work(
                import_entries(
                    entries, user, given, creates_users=create_users, progress=progress, as_json=as_json
                )
            )
    except FileFormatError as error:
        raise click.ClickException(f"{path}: {error}.") from None
    finally:
        progress.end()
    if not as_json:
        click.echo(str(progress))
    if progress.counts["refused"]:
        raise click.ClickException(f"keys that were refused: {progress.counts['refused']}.")


async def import_entries(
    entries: Iterable[Entry],
    owner: int | str | None,
    given: dict[str, Any],
    *,
    creates_users: bool,
    progress: Progress,
    as_json: bool,
) -> None:
    """Import keys, each batch of them in a transaction of its own, and print the results."""
    settings = application_settings()
    importer = Importer(key_rules(settings), creates_users=creates_users)
    async with opened(settings, importer.rules.issuer.keyring) as session:
        if owner is not None:
            given["user_id"] = (await require_user(owner)).id
            await session.commit()
        for batch in batches(entries):
            drafts = [item_of(entry, given) for entry in batch]
            items = [one for one in drafts if isinstance(one, ImportedKey)]
            results = iter(await importer.run(items, None))
            await session.commit()
            session.expunge_all()
            for entry, draft in zip(batch, drafts, strict=True):
                result = next(results) if isinstance(draft, ImportedKey) else draft
                progress.counts[result.status] += 1
                tell(entry.place, result, as_json=as_json)
            progress.show()


def batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Return the entries in lists of as many as one transaction imports."""
    waiting = iter(entries)
    while batch := list(islice(waiting, MOST_IMPORTED)):
        yield batch


def item_of(entry: Entry, given: dict[str, Any]) -> ImportedKey | ImportResult:
    """Return a key with the values that options give, or the result for an entry that is none."""
    if entry.fields is None:
        return refused(entry.fault or "")
    fields = {**entry.fields, **given}
    if "user_id" in given:
        fields.pop("user_external_id", None)
    try:
        return msgspec.convert(fields, ImportedKey)
    except msgspec.ValidationError as error:
        return refused(in_words(str(error)))


def tell(place: str, result: ImportResult, *, as_json: bool) -> None:
    """Print the result for a key: all of them as JSON, and otherwise those that are refused."""
    if as_json:
        line = Line(place, result.status, result.access_key, result.detail)
        click.echo(msgspec.json.encode(line))
    elif result.status == "refused":
        click.echo(f"{place}: {result.detail}")
