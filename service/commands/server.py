"""The commands that run the service: `purge`, `serve`, `dev`, `openapi`, `keyring`."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import uvicorn

from latchkey import middleware, models, service
from latchkey.service import housekeeping, logs
from latchkey.service import openapi as description
from latchkey.service.app import open_keyring
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.commands.answers import aligned
from latchkey.service.commands.application import (
    app_option,
    application,
    for_application,
    read_operations,
    read_schemas,
    read_scopes,
    read_settings,
)
from latchkey.service.commands.development import development_environ, prepare
from latchkey.service.commands.migrating import upgrade
from latchkey.service.commands.parameters import PORT
from latchkey.service.commands.rows import work
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.database.schema import Schema
from latchkey.service.settings import Settings

log = logging.getLogger("latchkey.server")

TELL_EVERY_ROWS = 10_000  # a purge that takes long
GRACE_S = 30  # how long requests in flight may take to end

host = click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
port = click.option("--port", type=PORT, default=8000, show_default=True)


@click.command()
@for_application
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
@for_application
def serve(host: str, port: int, workers: int, reload: bool) -> None:
    """Serve HTTP, on a database that is migrated.

    It serves the application that --app names; without a name, the one that an installed package names; without
    that, Latchkey alone.
    """
    if reload and workers > 1:
        raise click.UsageError("--reload goes with one worker.")
    settings = read_settings()
    open_keyring(settings)
    require_free(host, port)
    work(require_migrated(settings, read_schemas()))
    run(settings, host, port, workers=workers, reload=reload)


async def require_migrated(settings: Settings, schemas: Sequence[Schema]) -> None:
    """Refuse a database that is out of reach or not migrated, before a server starts."""
    engine = create_engines(settings).writer
    try:
        await schema.require_migrated(engine, schemas)
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
    if named := application():
        os.environ["LATCHKEY_APP"] = named  # where the processes that serve read it
        log.info("Serving %s.", named)
    else:
        log.info(
            "Serving Latchkey alone: neither --app, LATCHKEY_APP nor an installed package names an application."
        )
    uvicorn.run(
        "latchkey.service.serving:create_served_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        reload=reload,
        reload_dirs=sorted(watched_folders(named)) if reload else None,
        log_config=None,  # `create_app` configures the logs
        access_log=False,  # it would show the query, which may be signed
        proxy_headers=False,  # only a trusted proxy may say who the client is
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )


def watched_folders(named: str | None) -> set[str]:
    """Return the folders of Latchkey's code, and that of the application's package or module."""
    folders = {str(Path(package.__path__[0]).resolve()) for package in (service, middleware, models)}
    if named is not None:
        top = sys.modules[named.partition(":")[0].partition(".")[0]]
        if top.__file__ is not None and top.__name__ != "latchkey":
            folders.add(str(Path(top.__file__).resolve().parent))
    return folders


@click.command()
@host
@port
@click.option("--prepare-only", is_flag=True, help="Prepare and print, but do not serve.")
@app_option
def dev(host: str, port: int, prepare_only: bool) -> None:
    """Prepare a database, a key ring, a user and two keys in var/, and serve with reload.

    It prints two commands that answer GET /v1/me, one for each key. Run again, it keeps what is there.
    """
    if not prepare_only:
        require_free(host, port)

    def tell(sentence: str) -> None:
        click.echo(sentence, err=True)

    environ = development_environ(os.environ, tell)
    with environment(environ):
        settings, schemas, scopes = read_settings(), read_schemas(), read_scopes()
    keyring = open_keyring(settings)
    work(upgrade(settings, schemas))
    base_url = f"http://{reachable(host)}:{port}"
    kept = work(prepare(settings, keyring, scopes=scopes, base_url=base_url, tell=tell))
    tell("\nWho am I? With the bearer key, and with the signed one:\n")
    for line in kept.commands():
        click.echo(line)
    tell("")
    if not prepare_only:
        os.environ.update(environ)  # the server that is started anew at each change reads it there
        run(settings, host, port, reload=True)


@contextmanager
def environment(environ: dict[str, str]) -> Iterator[None]:
    """Let the application read these variables until the end of the block."""
    before = dict(os.environ)
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def reachable(host: str) -> str:
    """Return the host of a URL at which this machine reaches what listens on `host`."""
    if ":" in host:
        return "[::1]" if host == "::" else f"[{host}]"
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound


@click.command()
@for_application
def openapi() -> None:
    """Print the OpenAPI description. It needs neither database nor key ring."""
    click.echo(description.render(description.document(read_operations())), nl=False)


@click.command()
def keyring() -> None:
    """Print a new key ring, for LATCHKEY_KEYRING."""
    click.echo(KeyRing.generate_text())
