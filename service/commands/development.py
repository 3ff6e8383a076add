"""The preparations of `make dev`: everything for a first call, in `var/`, readable by its owner only.

- `var/keyring`, created once;
- `var/latchkey.db`, with a first user, who holds a bearer key with every scope and a signing key;
- `var/dev.json` with both keys and, for the printed commands, `var/dev.header` and `var/dev.secret` with one secret
  each; they are stored nowhere else.

Existing files and rows that work are kept.
"""

import itertools
import os
import shlex
import sys
import tempfile
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from latchkey.models import ApiKey, KeySecret, User
from latchkey.service.authentication.keyring import KeyRing, KeyRingError
from latchkey.service.authentication.wire.credentials import (
    AccessKey,
    hash_secret,
    parse_access_key,
    parse_secret,
)
from latchkey.service.database import SQLAlchemy
from latchkey.service.keys.issuing import Issuer
from latchkey.service.settings import BYTE_ORDER_MARK, Settings, SettingsError, read_environments

FOLDER = Path("var")
KEYRING_FILE = FOLDER / "keyring"
DATABASE_FILE = FOLDER / "latchkey.db"
KEPT_FILE = FOLDER / "dev.json"
# Every user of the machine can read the arguments of a command in the list of processes.
HEADER_FILE = FOLDER / "dev.header"
SECRET_FILE = FOLDER / "dev.secret"

SIGNED_SCOPES = ["users:read"]

ReportLine = Callable[[str], None]


class SignedKey(msgspec.Struct, frozen=True):
    """A key that signs."""

    access_key: str
    secret: str

    def __repr__(self) -> str:
        return f"SignedKey(access_key={self.access_key!r})"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `var/dev.json`, for tools."""

    base_url: str
    bearer: str
    signed: SignedKey

    def __repr__(self) -> str:
        return f"Kept(base_url={self.base_url!r})"

    def commands(self) -> tuple[str, str]:
        """Return two shell commands that read the caller, with the bearer key and with the signing key.

        They read the secrets from files.
        """
        url = f"{self.base_url}/v1/me"
        latchkey = Path(".venv/bin/latchkey")
        program = [str(latchkey)] if latchkey.exists() else [sys.executable, "-m", "latchkey"]
        return (
            shlex.join(["curl", "-sS", "-H", f"@{HEADER_FILE}", url]),
            shlex.join(
                [
                    *program,
                    "call",
                    "GET",
                    url,
                    "--key",
                    self.signed.access_key,
                    "--secret-file",
                    str(SECRET_FILE),
                ]
            ),
        )


# ---------------------------------------------------------------------- files


def development_environ(environ: Mapping[str, str], report: ReportLine) -> dict[str, str]:
    """Add the variables that `environ` does not set: the database, the key ring in it, and the times in responses."""
    found = dict(environ)
    if found.get("LATCHKEY_DATABASE_URL") or found.get("LATCHKEY_DATABASE_URL_FILE"):
        report(f"Using the database of LATCHKEY_DATABASE_URL, not {DATABASE_FILE}.")
    else:
        found["LATCHKEY_DATABASE_URL"] = f"sqlite+aiosqlite:///{DATABASE_FILE}"
    if found.get("LATCHKEY_KEYRING") or found.get("LATCHKEY_KEYRING_FILE"):
        report(f"Using LATCHKEY_KEYRING, not {KEYRING_FILE}.")
    else:
        found["LATCHKEY_KEYRING"] = read_keyring(report)
    found.setdefault("LATCHKEY_SERVER_TIMING", "true")
    return found


def make_folder() -> None:
    """Create the folder, accessible to its owner only."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    FOLDER.chmod(0o700)


@contextmanager
def only_one() -> Iterator[None]:
    """Hold the folder, so that no other process prepares or serves it until the end of the block.

    Two of them would use one SQLite file, and `var/dev.json` could name only one of them.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415 - not on Windows

    folder = os.open(FOLDER, os.O_RDONLY)  # its lock ends with the process, however that ends
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            kept = read_kept()
            place = f", on {kept.base_url}" if kept is not None else ""
            raise click.ClickException(
                f"another process serves {FOLDER.absolute()} already{place}: stop it first, or use another folder."
            ) from None
        yield
    finally:
        os.close(folder)


def read_keyring(report: ReportLine) -> str:
    """Return the key ring, which is created if it does not exist."""
    if not KEYRING_FILE.exists():
        write_private(KEYRING_FILE, KeyRing.generate_text() + "\n")
        report(f"Created the key ring {KEYRING_FILE}.")
    KEYRING_FILE.chmod(0o600)
    text = KEYRING_FILE.read_text(encoding="utf-8", errors="replace").removeprefix(BYTE_ORDER_MARK).strip()
    try:
        KeyRing.from_text(text)
    except ValueError as error:
        raise SettingsError(
            f"{KEYRING_FILE} is not a key ring ({error}) Remove it to create a new one."
        ) from None
    return text


def read_kept() -> Kept | None:
    """Return the keys of the previous run; None when there are none."""
    try:
        return msgspec.json.decode(KEPT_FILE.read_bytes().removeprefix(BOM_UTF8), type=Kept)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_kept(kept: Kept) -> None:
    """Write the keys for the next run and for the commands, unless they are stored already."""
    texts = {
        KEPT_FILE: msgspec.json.format(msgspec.json.encode(kept), indent=2).decode(),
        HEADER_FILE: f"Authorization: Bearer {kept.bearer}",
        SECRET_FILE: kept.signed.secret,
    }
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text + "\n":
            write_private(path, text + "\n")
        path.chmod(0o600)


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable by its owner only."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# ---------------------------------------------------------------------- rows


async def prepare(
    settings: Settings, keyring: KeyRing, *, scopes: frozenset[str], base_url: str, report: ReportLine
) -> Kept:
    """Ensure that the first user and the two keys exist in a migrated database, and store them for the next run.

    `scopes` are those that the application declares.
    """
    before = read_kept()
    db = SQLAlchemy()
    db.init_app(None, settings)
    try:
        async with db.scoped_session() as session:
            user = await find_user(report)
            issuer = Issuer(settings.key_prefix, keyring, read_environments(settings.environments))
            keys = DevelopmentKeys(issuer, user, scopes, report)
            kept = Kept(
                base_url=base_url,
                bearer=await keys.keep_bearer(None if before is None else before.bearer),
                signed=await keys.keep_signed(None if before is None else before.signed),
            )
            await session.commit()
    finally:
        await db.close()
    write_kept(kept)
    return kept


async def find_user(report: ReportLine) -> User:
    """Return the first user, active; create one, with another email if the previous one was deleted."""
    for number in itertools.count(1):
        email = "dev@example.com" if number == 1 else f"dev+{number}@example.com"
        user = await User.filter_by(email_key=email).for_update().first()
        if user is None:
            report(f"Created the user {email}.")
            return await User.create(email=email, name="Developer")
        if user.status == "blocked":
            await user.update(status="active")
            report(f"Unblocked the user {email}.")
        if user.status == "active":
            return user
    raise AssertionError  # there is always another number


class DevelopmentKeys:
    """The two keys of one user: kept if they work, otherwise replaced."""

    def __init__(self, issuer: Issuer, user: User, scopes: frozenset[str], report: ReportLine) -> None:
        self.issuer = issuer
        self.prefix = issuer.prefix
        self.keyring = issuer.keyring
        self.user = user
        self.scopes = scopes
        self.report = report

    async def keep_bearer(self, kept: str | None) -> str:
        """Return the secret of a working bearer key with every scope."""
        key = await self._find_bearer(kept)
        if key is None or kept is None:
            _, secret = await self._make("bearer", sorted(self.scopes), replaces=kept is not None)
            return secret
        if missing := sorted(self.scopes.difference(key.scopes)):
            await key.update(scopes=(*key.scopes, *missing))
            self.report(f"Added to the bearer key: {', '.join(missing)}.")
        return kept

    async def keep_signed(self, kept: SignedKey | None) -> SignedKey:
        """Return a working signing key."""
        if kept is not None and await self._signs(kept):
            return kept
        key, secret = await self._make("signed", SIGNED_SCOPES, replaces=kept is not None)
        return SignedKey(key.access_key, secret)

    async def _find_bearer(self, kept: str | None) -> ApiKey | None:
        secret = kept and parse_secret(kept, self.prefix)
        if not secret:
            return None
        stored = await KeySecret.filter_by(secret_sha256=hash_secret(secret)).first()
        if stored is None or not self._is_live(stored):
            return None
        key = await ApiKey.filter_by(id=stored.api_key_id).for_update().one()
        return key if self._is_usable(key, "bearer") else None

    async def _signs(self, kept: SignedKey) -> bool:
        access_key = parse_access_key(kept.access_key, self.prefix)
        if access_key is None:
            return False
        key = await ApiKey.filter_by(access_key=access_key).load("secrets").first()
        if key is None or not self._is_usable(key, "signed"):
            return False
        return any(self._opens(one, access_key, kept.secret) for one in key.secrets)

    def _is_usable(self, key: ApiKey, mode: str) -> bool:
        lasts = key.expires_at is None or key.expires_at > datetime.now(UTC)
        return lasts and (key.user_id, key.mode, key.status) == (self.user.id, mode, "active")

    @staticmethod
    def _is_live(stored: KeySecret) -> bool:
        return stored.expires_at is None or stored.expires_at > datetime.now(UTC)

    def _opens(self, stored: KeySecret, access_key: AccessKey, secret: str) -> bool:
        if stored.sealed is None or not self._is_live(stored):
            return False
        try:
            found = self.keyring.open_secret(stored.sealed, access_key, stored.version)
        except KeyRingError:
            return False
        return found == secret

    async def _make(self, mode: str, scopes: list[str], *, replaces: bool) -> tuple[ApiKey, str]:
        why = f": the one in {KEPT_FILE} does not work here" if replaces else ""
        self.report(f"Created a {mode} key{why}.")
        return await self.issuer.issue(
            self.user, name=f"development, {mode}", mode=mode, scopes=scopes, expires_at=None
        )
