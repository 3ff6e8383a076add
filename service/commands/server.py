"""The commands that run the service: `purge`, `serve`, `dev`, `openapi`."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from latchkey import middleware, models, service
from latchkey.service import housekeeping, logs
from latchkey.service import openapi as description
from latchkey.service.authentication import canary
from latchkey.service.authentication.canary import WrongKeyRingError
from latchkey.service.authentication.keyring import KeyRing, open_keyring
from latchkey.service.commands.answers import aligned
from latchkey.service.commands.application import (
    app_option,
    application,
    application_settings,
    for_application,
    read_operations,
    read_schemas,
    read_scopes,
)
from latchkey.service.commands.development import (
    DATABASE_FILE,
    KEYRING_FILE,
    development_environ,
    make_folder,
    only_one,
    prepare,
)
from latchkey.service.commands.keyring import adopt
from latchkey.service.commands.listening import bound
from latchkey.service.commands.migrating import upgrade
from latchkey.service.commands.parameters import PORT, PortOption
from latchkey.service.commands.reloading import Reloader
from latchkey.service.commands.rows import work
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.database.positions import require_positions
from latchkey.service.database.schema import Schema
from latchkey.service.metrics.exposition import shared_between_workers
from latchkey.service.origin import as_origin, command_origin
from latchkey.service.redis.store import open_store
from latchkey.service.settings import Settings
from latchkey.service.shutdown import SHUTDOWN_S
from latchkey.service.usage.rollup import Ages

log = logging.getLogger("latchkey.server")

REPORT_EVERY_ROWS = 10_000  # between two lines of progress
GRACE_S = 30  # from the signal to the end of the process

host = click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")


@click.command()
@for_application
def purge() -> None:
    """Delete expired rows and keys that ended long ago, and roll up old usage. No key ring is needed.

    The service does the same regularly. The command prints the number of deleted rows of each table.
    """
    gone = work(purge_expired(application_settings()))
    if gone is None:
        raise click.ClickException("another process is purging this database.")
    click.echo(aligned([[table, str(rows)] for table, rows in gone.items()]))


async def purge_expired(settings: Settings) -> dict[str, int] | None:
    """Purge, and print the progress now and then; return None when another process is purging."""

    def report(table: str, rows: int) -> None:
        if rows % REPORT_EVERY_ROWS == 0:
            click.echo(f"{table}: {rows} so far", err=True)

    engine = create_engines(settings).writer
    try:
        await schema.require_migrated(engine)
        with as_origin(command_origin):
            return await housekeeping.purge(
                engine,
                report=report,
                keys_kept_days=settings.ended_keys_kept_days,
                usage_ages=Ages.of(settings),
            )
    finally:
        await engine.dispose()


@click.command()
@click.option("--host", help="The address to listen on.  [default: LATCHKEY_HOST, or 127.0.0.1]")
@click.option("--port", type=PORT, help="The port.  [default: LATCHKEY_PORT, or 8000]")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="The number of processes.  [default: LATCHKEY_WORKERS, or 1]",
)
@click.option("--reload", is_flag=True, help="Restart when the code changes, for development.")
@for_application
def serve(host: str | None, port: int | None, workers: int | None, reload: bool) -> None:
    """Serve the application over HTTP; the database must be migrated.

    The application is the one that --app names. Without --app it is the one that an installed package names, and
    without such a package it is Latchkey alone.
    """
    settings = application_settings()
    host, port, workers = host or settings.host, port or settings.port, workers or settings.workers
    if reload and workers > 1:
        raise click.UsageError("--reload requires a single worker.")
    keyring = open_keyring(settings)
    with bound(host, port, advice="--port chooses another") as sockets:
        work(require_usable(settings, read_schemas(), keyring))
        run(settings, sockets, url=f"http://{in_url(host)}:{port}", workers=workers, reload=reload)


async def require_usable(settings: Settings, schemas: Sequence[Schema], keyring: KeyRing) -> None:
    """Raise an error for a database that cannot be reached, is not migrated or belongs to another key ring."""
    engine = create_engines(settings).writer
    try:
        await schema.require_migrated(engine, schemas)
        await canary.require_right_keyring(engine, keyring)
        if settings.read_your_writes is not None:
            await require_positions(engine)
        if (store := open_store(settings)) is not None:
            try:
                await store.require_usable()
            finally:
                await store.close()
    finally:
        await engine.dispose()


def run(
    settings: Settings, sockets: list[socket.socket], *, url: str, workers: int = 1, reload: bool = False
) -> None:
    """Run the server on bound sockets until it is told to stop."""
    logs.configure(settings.log_format)  # also in the process that supervises the workers
    logs.configure_process()
    # After its shutdown the server sends itself the signal again: this turns it into an exit status of 0.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if named := application():
        os.environ["LATCHKEY_APP"] = named  # the worker processes read it there
        log.info("Serving %s.", named)
    else:
        log.info(
            "Serving Latchkey alone: neither --app, LATCHKEY_APP nor an installed package names an application."
        )
    log.info("Listening on %s; Ctrl+C stops it.", url)
    config = uvicorn.Config(
        "latchkey.service.serving:create_served_app",
        factory=True,
        workers=workers,
        reload=reload,
        reload_dirs=sorted(watched_folders(named)) if reload else None,
        log_config=None,  # `create_app` configures the logs
        access_log=False,  # it would log the query, which may be signed
        proxy_headers=False,  # only a trusted proxy may set the client address
        server_header=False,
        timeout_graceful_shutdown=int(GRACE_S - SHUTDOWN_S),
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        if reload:
            Reloader(config, server.run, sockets).run()
        elif workers > 1:
            with shared_between_workers():
                Multiprocess(config, sockets).run()
        else:
            server.run(sockets)
            if not server.started:
                sys.exit(STARTUP_FAILURE)


def watched_folders(named: str | None) -> set[str]:
    """Return the folders of Latchkey's code and of the application's package or module."""
    folders = {str(Path(package.__path__[0]).resolve()) for package in (service, middleware, models)}
    if named is not None:
        top = sys.modules[named.partition(":")[0].partition(".")[0]]
        if top.__file__ is not None and top.__name__ != "latchkey":
            folders.add(str(Path(top.__file__).resolve().parent))
    return folders


@click.command()
@host
@click.option("--port", type=PORT, default=8000, show_default=True, cls=PortOption)
@click.option("--prepare-only", is_flag=True, help="Prepare and print, but do not serve.")
@click.option("--from-make", is_flag=True, is_eager=True, help="Name the variables of `make` in messages.")
@app_option
def dev(host: str, port: int, prepare_only: bool, from_make: bool) -> None:
    """Prepare a database, a key ring, a user and two keys in var/, and serve with reload.

    It prints two commands that call GET /v1/me, one for each key. A second run keeps what exists.
    """
    advice = "`make dev PORT=8001` chooses another" if from_make else "--port chooses another"
    with ExitStack() as stack:
        sockets = [] if prepare_only else stack.enter_context(bound(host, port, advice=advice))
        make_folder()
        stack.enter_context(only_one())
        prepare_and_serve(host, port, sockets)


EXPORTS = {
    "LATCHKEY_DATABASE_URL": f"export LATCHKEY_DATABASE_URL=sqlite+aiosqlite:///{DATABASE_FILE}",
    "LATCHKEY_KEYRING": f'export LATCHKEY_KEYRING="$(cat {KEYRING_FILE})"',
}
"""The shell commands that set the variables which `dev` sets for itself; the key ring stays in its file."""


def prepare_and_serve(host: str, port: int, sockets: list[socket.socket]) -> None:
    """Prepare, print, and serve if there are sockets to serve on."""

    def report(sentence: str) -> None:
        click.echo(sentence, err=True)

    environ = development_environ(os.environ, report)
    with environment(environ):
        settings, schemas, scopes = application_settings(), read_schemas(), read_scopes()
    keyring = open_keyring(settings)
    work(upgrade(settings, schemas))
    try:
        work(require_usable(settings, schemas, keyring))
    except WrongKeyRingError:
        work(adopt(settings, keyring))
        report(
            "This key ring is not the one that the database was used with: signing keys made before do not work."
        )
    base_url = f"http://{reachable(host)}:{port}"
    kept = work(prepare(settings, keyring, scopes=scopes, base_url=base_url, report=report))
    report("\nRead the caller with the bearer key, and with the signing key:\n")
    for line in kept.commands():
        click.echo(line)
    if added := [export for name, export in EXPORTS.items() if not os.environ.get(name)]:
        report("\nUse the other commands on this database, in this folder:\n")
        report("\n".join(added))
    report("")
    if sockets:
        os.environ.update(environ)  # the server restarts at each change, and reads the variables there
        run(settings, sockets, url=f"http://{in_url(host)}:{port}", reload=True)


@contextmanager
def environment(environ: dict[str, str]) -> Iterator[None]:
    """Set these environment variables until the end of the block."""
    before = dict(os.environ)
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def in_url(host: str) -> str:
    """Return a host as it is written in a URL."""
    return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """Return the host for a URL by which this machine reaches a server that listens on `host`."""
    return {"::": "[::1]", "0.0.0.0": "127.0.0.1"}.get(host) or in_url(host)  # noqa: S104 - compared, not bound


@click.command()
@for_application
def openapi() -> None:
    """Print the OpenAPI description. Neither database nor key ring is needed."""
    click.echo(description.render(description.document(read_operations())), nl=False)
