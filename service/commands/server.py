"""The commands that prepare and run the service: `migrate`, `purge`, `serve`, `dev`, `openapi`, `keyring`."""

import logging
import os
import signal
import socket
from pathlib import Path

import click
import uvicorn

from latchkey import middleware, models, service
from latchkey.service import housekeeping, logs
from latchkey.service import openapi as description
from latchkey.service.app import open_keyring
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.commands.answers import aligned
from latchkey.service.commands.development import development_environ, prepare
from latchkey.service.commands.parameters import PORT
from latchkey.service.commands.rows import read_settings, work
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.routes import ROUTES
from latchkey.service.settings import Settings

TELL_EVERY_ROWS = 10_000  # a purge that takes long
GRACE_S = 30  # how long requests in flight may take to end

host = click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
port = click.option("--port", type=PORT, default=8000, show_default=True)


@click.command()
def migrate() -> None:
    """Bring the database up to this release. It needs no key ring."""
    found, reached = work(upgrade(read_settings()))
    if found == reached:
        click.echo(f"The database is at revision {reached} already.", err=True)
    else:
        click.echo(f"Migrated the database from revision {found or 'none'} to {reached}.", err=True)


async def upgrade(settings: Settings) -> tuple[str | None, str | None]:
    """Run the migrations; answer the revision before and the one after."""
    # MariaDB warns of each primary key that it names it itself, which the driver logs and nobody needs.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    engine = create_engines(settings).writer
    try:
        found = await schema.revision(engine)
        await schema.upgrade(engine)
        return found, await schema.revision(engine)
    finally:
        await engine.dispose()


@click.command()
def purge() -> None:
    """Delete what has expired, as the service does by itself; prints how many rows of each table. It needs no key ring."""
    gone = work(purge_expired(read_settings()))
    if gone is None:
        raise click.ClickException("somebody else is purging this database.")
    click.echo(aligned([[table, str(rows)] for table, rows in gone.items()]))


async def purge_expired(settings: Settings) -> dict[str, int] | None:
    """Purge, and say now and then how far it is; None when somebody else does."""

    def tell(table: str, rows: int) -> None:
        if rows % TELL_EVERY_ROWS == 0:
            click.echo(f"{table}: {rows} so far", err=True)

    engine = create_engines(settings).writer
    try:
        await schema.require_migrated(engine)
        return await housekeeping.purge(engine, tell=tell)
    finally:
        await engine.dispose()


@click.command()
@host
@port
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--reload", is_flag=True, help="Start again when the code changes, for development.")
def serve(host: str, port: int, workers: int, reload: bool) -> None:
    """Serve HTTP, on a database that is migrated."""
    if reload and workers > 1:
        raise click.UsageError("--reload goes with one worker.")
    settings = read_settings()
    open_keyring(settings)
    require_free(host, port)
    work(require_migrated(settings))
    run(settings, host, port, workers=workers, reload=reload)


async def require_migrated(settings: Settings) -> None:
    """Refuse a database that is out of reach or not migrated, before a server starts."""
    engine = create_engines(settings).writer
    try:
        await schema.require_migrated(engine)
    finally:
        await engine.dispose()


def require_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise click.ClickException(
                f"cannot listen on port {port} of {host}: {error.strerror}; --port chooses another."
            ) from error


def run(settings: Settings, host: str, port: int, *, workers: int = 1, reload: bool = False) -> None:
    """Run the server until it is told to stop."""
    logs.configure(settings.log_format)  # of the process that watches the others, too
    # Having shut down, the server sends itself the signal again: this turns it into an exit status of 0.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    packages = (service, middleware, models)
    uvicorn.run(
        "latchkey.service.serving:create_served_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        reload=reload,
        reload_dirs=[str(Path(package.__path__[0]).resolve()) for package in packages] if reload else None,
        log_config=None,  # `create_app` configures the logs
        access_log=False,  # it would show the query, which may be signed
        proxy_headers=False,  # only a trusted proxy may say who the client is
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )


@click.command()
@host
@port
@click.option("--prepare-only", is_flag=True, help="Prepare and print, but do not serve.")
def dev(host: str, port: int, prepare_only: bool) -> None:
    """Prepare a database, a key ring, a user and two keys in var/, and serve with reload.

    It prints two commands that answer GET /v1/me, one for each key. Run again, it keeps what is there.
    """
    if not prepare_only:
        require_free(host, port)

    def tell(sentence: str) -> None:
        click.echo(sentence, err=True)

    environ = development_environ(os.environ, tell)
    settings = Settings.from_env(environ)
    keyring = open_keyring(settings)
    work(upgrade(settings))
    kept = work(prepare(settings, keyring, base_url=f"http://{reachable(host)}:{port}", tell=tell))
    tell("\nWho am I? With the bearer key, and with the signed one:\n")
    for line in kept.commands():
        click.echo(line)
    tell("")
    if not prepare_only:
        os.environ.update(environ)  # the server that is started anew at each change reads it there
        run(settings, host, port, reload=True)


def reachable(host: str) -> str:
    """Return the host of a URL at which this machine reaches what listens on `host`."""
    if ":" in host:
        return "[::1]" if host == "::" else f"[{host}]"
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound


@click.command()
def openapi() -> None:
    """Print the OpenAPI description. It needs neither database nor key ring."""
    click.echo(description.render(description.document(ROUTES)), nl=False)


@click.command()
def keyring() -> None:
    """Print a new key ring, for LATCHKEY_KEYRING."""
    click.echo(KeyRing.generate_text())
