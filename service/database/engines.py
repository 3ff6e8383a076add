"""The engines: how each database is connected, reset and committed (R8)."""

import asyncio
import sqlite3
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from asyncmy.errors import Error
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from latchkey.service.database import driver, sqlite
from latchkey.service.database.checkout import Checks
from latchkey.service.database.pool import FairPool
from latchkey.service.database.replica import Replica
from latchkey.service.database.resending import resend_first_statements
from latchkey.service.database.rules import Engines
from latchkey.service.database.single_precision import read_floats_as_text
from latchkey.service.database.sqlite_file import DatabaseFile
from latchkey.service.database.transaction import ENDED, LOST_STATUS, keep_records
from latchkey.service.database.wide_integers import refuse_wide_integers
from latchkey.service.settings import Settings, SettingsError
from latchkey.service.tls import verifying_context
from latchkey.service.urls import ESCAPES, has_reserved_character

PREPARED_STATEMENTS = 32  # for each connection; the server has room for 16,382 of all its clients
SESSION: Mapping[str, int | str] = {
    # Values that do not fit are refused, never truncated; quotes and backslashes mean what the driver takes them for.
    "sql_mode": "STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
    "time_zone": "+00:00",
    "default_storage_engine": "InnoDB",
    "completion_type": 0,  # COMMIT begins no further transaction, and does not end the session
    "foreign_key_checks": 1,
    "unique_checks": 1,
    "sql_safe_updates": 0,
    "sql_select_limit": 2**64 - 1,
}
"""What the service relies on in each session, whatever the server is configured to."""
LOCK_WAITS = (
    "innodb_lock_wait_timeout",  # for rows
    "lock_wait_timeout",  # for tables that are being altered
)
LAST_PORT = 65_535
REPLICA_CONNECT_TIMEOUT_S = 1  # then the primary is read
ISOLATION_LEVEL = "READ COMMITTED"
CHARSET = "utf8mb4"
TLS_PARAMETERS = frozenset({"ssl", "ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert", "ssl_check_hostname"})
URL_PARAMETERS = {
    "mysql": TLS_PARAMETERS | {"charset", "connect_timeout", "unix_socket"},
    "mariadb": TLS_PARAMETERS | {"charset", "connect_timeout", "unix_socket"},
    "sqlite": frozenset[str](),
}


def create_engines(settings: Settings) -> Engines:
    """Create the writer, the reader on the same server and, with `LATCHKEY_READER_URL`, the replica.

    No connection is opened here.

    Raises:
        SettingsError: the URL is of no supported database, or asks for TLS that would not verify the server.
    """
    url = parse_url(settings.database_url, "LATCHKEY_DATABASE_URL")
    if settings.read_your_writes and settings.reader_url is None:
        raise SettingsError("LATCHKEY_READ_YOUR_WRITES needs a replica: set LATCHKEY_READER_URL.")
    reader = _reader(url, settings, is_primary=True)
    replica = probe = state = None
    if settings.reader_url is not None:
        replica_url = parse_url(settings.reader_url, "LATCHKEY_READER_URL")
        if settings.read_your_writes and "sqlite" in {url.get_backend_name(), replica_url.get_backend_name()}:
            raise SettingsError(
                "LATCHKEY_READ_YOUR_WRITES needs MariaDB: an SQLite file has no replica that follows it."
            )
        replica = _reader(replica_url, settings, is_primary=False)
        probe = _reader(replica_url, msgspec.structs.replace(settings, pool_size=1), is_primary=False)
        state = Replica(replica, probe, reader if settings.read_your_writes else None)
    engines = Engines(
        writer=_writer(url, settings),
        reader=reader,
        replica=replica,
        replica_state=state,
    )
    files: dict[str, DatabaseFile] = {}
    primary = Checks(settings.connection_idle_s)
    for engine in engines.all:
        keep_records(engine)
        event.listen(engine.sync_engine, "handle_error", refuse_wide_integers)
        if engine.dialect.name == "sqlite":
            path = engine.url.database or ""
            files.setdefault(path, DatabaseFile(path)).attach(engine)
        (primary if engine not in {replica, probe} else Checks(settings.connection_idle_s)).attach(engine)
    if engines.writer.dialect.name != "sqlite":
        resend_first_statements(engines.writer)
    return engines


def parse_url(text: str, variable: str) -> URL:
    """Parse a database URL; error messages name the variable and never show the password."""
    if not text.startswith("sqlite") and has_reserved_character(text):
        raise SettingsError(f"{variable}: {ESCAPES}.")
    try:
        url = make_url(text)
        backend = f"{url.get_backend_name()}+{url.get_driver_name()}"
    except Exception:  # noqa: BLE001 - the text of any error may contain the password
        raise SettingsError(
            f"{variable} is not a database URL: use mysql+asyncmy://user:password@host:3306/name or "
            "sqlite+aiosqlite:///file.db."
        ) from None
    if backend not in {"mysql+asyncmy", "mariadb+asyncmy", "sqlite+aiosqlite"}:
        raise SettingsError(f"{variable}: {backend} is not supported; use mysql+asyncmy or sqlite+aiosqlite")
    if unknown := set(url.query) - URL_PARAMETERS[url.get_backend_name()]:
        raise SettingsError(f"{variable}: a database URL has no parameter {', '.join(sorted(unknown))}")
    if url.port is not None and not 1 <= url.port <= LAST_PORT:
        raise SettingsError(f"{variable}: the port must be from 1 to {LAST_PORT}.")
    if not str(url.query.get("connect_timeout", "0")).isdecimal():
        raise SettingsError(f"{variable}: connect_timeout must be a whole number of seconds")
    if url.query.get("charset", CHARSET) != CHARSET:
        raise SettingsError(
            f"{variable}: charset must be {CHARSET}, which has all characters; or leave it out"
        )
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise SettingsError(
            f"{variable}: a database in memory cannot be shared by several engines; name a file"
        )
    return url


def name_of(url: URL) -> str:
    """Return the name of a database for messages: its name and server, or its file; never user and password."""
    if url.get_backend_name() == "sqlite":
        return str(Path(url.database or "").absolute())
    socket = url.query.get("unix_socket")
    server = socket or f"{url.host or 'localhost'}:{url.port or driver.DEFAULT_PORT}"
    return f"{url.database} on {server}"


def _writer(url: URL, settings: Settings) -> AsyncEngine:
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, **_sqlite_arguments(settings))
        _prepare_sqlite(engine, settings.lock_wait_s)
        event.listen(engine.sync_engine, "begin", _begin_immediate)
        return engine
    url, arguments = _mysql_arguments(url, settings)
    arguments["connect_args"]["waits_for_cluster"] = True
    engine = create_async_engine(url, pool_reset_on_return=None, **arguments)
    event.listen(engine.sync_engine, "handle_error", _note_lost_status)
    event.listen(engine.sync_engine, "reset", _reset_if_open)
    read_floats_as_text(engine)
    return engine


def _reader(url: URL, settings: Settings, *, is_primary: bool) -> AsyncEngine:
    if url.get_backend_name() == "sqlite":
        arguments = _sqlite_arguments(settings)
    else:
        url, arguments = _mysql_arguments(url, settings)
        arguments["connect_args"]["variables"]["autocommit"] = 1
        arguments["connect_args"].update(waits_for_cluster=is_primary, notes_stalls=is_primary)
        if not is_primary:
            arguments["connect_args"]["connect_timeout"] = REPLICA_CONNECT_TIMEOUT_S
    engine = create_async_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
        **arguments,
    )
    if url.get_backend_name() == "sqlite":
        _prepare_sqlite(engine, settings.lock_wait_s)
    else:
        read_floats_as_text(engine)
    return engine


def _pool(settings: Settings) -> dict[str, Any]:
    # Overflow connections would be opened anew each time; a pool of the right size costs less.
    return {
        "poolclass": FairPool,
        "pool_size": settings.pool_size,
        "max_overflow": 0,
        "pool_timeout": settings.pool_timeout_s,
        "pool_use_lifo": True,
        "hide_parameters": True,  # error messages are logged, and values may be personal or secret
    }


# ---------------------------------------------------------------------- MariaDB and MySQL


def _mysql_arguments(url: URL, settings: Settings) -> tuple[URL, dict[str, Any]]:
    url, connect = verified_tls(url)
    # The server prepares repeated statements: it parses each once, and describes its columns once.
    connect["stmt_cache_size"] = PREPARED_STATEMENTS
    connect["async_creator_fn"] = Connecting
    connect["answer_timeout_s"] = settings.database_timeout_s
    connect["isolation_level"] = ISOLATION_LEVEL
    connect["variables"] = {**SESSION, **dict.fromkeys(LOCK_WAITS, settings.lock_wait_s)}
    for name, value in {"connect_timeout": driver.CONNECT_TIMEOUT_S, "charset": CHARSET}.items():
        if name not in url.query:
            connect[name] = value
    return url, {"connect_args": connect, "pool_recycle": 3600, **_pool(settings)}


class Connecting:
    """A connection to be opened when it is awaited; SQLAlchemy never awaits it outside its greenlets."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments

    def __await__(self) -> Generator[Any, None, Any]:
        """Open the connection."""
        return driver.connect(**self.arguments).__await__()


def verified_tls(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return the URL without its `ssl_*` parameters, and a TLS context that verifies the server.

    The driver interprets `ssl=true` as encryption without verification, which protects against nobody. `ssl_ca` is the
    file of the authority, or `system` for the authorities that the machine trusts; `ssl_cert` and `ssl_key` are the client
    certificate, if the server requires one. Without any `ssl_*` the connection is not encrypted.
    """
    asked = {name: value for name, value in url.query.items() if name.startswith("ssl")}
    if not asked:
        return url, {}
    if set(asked) - {"ssl_ca", "ssl_cert", "ssl_key"} or not isinstance(asked.get("ssl_ca"), str):
        raise SettingsError(
            "TLS to the database must verify the server: set ssl_ca=FILE or ssl_ca=system in the URL "
            "(with ssl_cert and ssl_key for a client certificate), and no other ssl parameter"
        )
    try:
        context = verifying_context(
            str(asked["ssl_ca"]),
            certificate=str(asked.get("ssl_cert") or "") or None,
            key=str(asked.get("ssl_key") or "") or None,
        )
    except ValueError as error:
        raise SettingsError(f"TLS to the database: {error}.") from None
    return url.difference_update_query(list(asked)), {"ssl": context}


def _note_lost_status(context: Any) -> None:
    # An error packet has no transaction flag, so the current flag may be stale after it.
    connection = context.connection
    if connection is not None and not (connection.invalidated or connection.closed):
        connection.info[LOST_STATUS] = True
        if driver.ends_transaction(context.original_exception):
            connection.info[ENDED] = True


def _reset_if_open(dbapi_connection: Any, record: Any, state: Any) -> None:
    """Roll back on return to the pool only if a transaction is open; the driver knows that without a round trip."""
    if not state.asyncio_safe or state.terminate_only:  # the server rolls back a connection that is closed
        return
    lost = record.info.pop(LOST_STATUS, False)
    record.info.pop(ENDED, None)
    if state.transaction_was_reset:
        return
    if lost or dbapi_connection.driver_connection.get_transaction_status():
        try:
            dbapi_connection.rollback()
        except Error as error:
            if not driver.is_lost(error):
                raise
            record.invalidate(error)  # the server rolls back too, and the pool would log a traceback


# ---------------------------------------------------------------------- SQLite

BUSY_PAUSE_S = 0.02


def _sqlite_arguments(settings: Settings) -> dict[str, Any]:
    connect = {
        "timeout": settings.lock_wait_s,
        "factory": sqlite.RollingBackConnection,
        "async_creator_fn": sqlite.Connection,
    }
    return {"connect_args": connect, **_pool(settings)}


def _prepare_sqlite(engine: AsyncEngine, lock_wait_s: float) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # BEGIN is sent below
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            cursor = dbapi_connection.cursor()
            try:
                _execute_unless_busy(cursor, f"PRAGMA {pragma}", lock_wait_s)
            except sqlite3.DatabaseError as error:
                sqlite.name_file(error, engine.url.database or "")
                raise
            finally:
                cursor.close()


def _execute_unless_busy(cursor: Any, statement: str, wait_s: float) -> None:
    """Execute a statement, again while the file is locked: SQLite does not wait when it sets the journal mode of a new file."""
    ends = time.monotonic() + wait_s
    while True:
        try:
            cursor.execute(statement)
        except sqlite3.OperationalError as error:
            if not sqlite.is_busy(error) or time.monotonic() >= ends:
                raise
            await_only(asyncio.sleep(BUSY_PAUSE_S))
        else:
            return


def _begin_immediate(connection: Any) -> None:
    """Take the write lock at the start: if two read transactions upgraded, one would fail at once."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
