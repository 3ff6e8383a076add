"""The connection of the MySQL driver, which also raises the errors that asyncmy 0.2 suppresses."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from asyncmy import connection, errors
from asyncmy.constants.COMMAND import COM_STMT_CLOSE

from latchkey.middleware.measured import note_round_trip
from latchkey.service.database.stalls import has_stalled, note_stall

# A deadlock, also used for a certification conflict on Galera; a snapshot conflict; a conflict in group replication; a
# transaction that MariaDB has rolled back and does not commit.
CONFLICTS = frozenset({1213, 1020, 3101, 4060})
# A table was altered after the snapshot of the transaction, or since the statement was prepared.
OUTDATED = frozenset({1412, 1615})
ERROR_DURING_COMMIT = 1180
LOCK_DEADLOCK = (
    "error 149 "  # the storage engine's number, by which group replication reports a conflict at COMMIT
)

# Another transaction held the lock for too long, or, with NOWAIT, at all; or a table is about to be altered.
LOCKED = frozenset({1205, 1689, 3572})

# The connection is gone: the server shuts down, killed it, or closed it after its wait_timeout; or numbers of the client.
LOST = frozenset({1053, 1079, 1927, 2006, 2013, 2055, 3169, 4031})

# The server takes no writes: a replica, read_only, transaction_read_only.
DEMOTED = frozenset({1290, 1792, 1836})
READ_ONLY_STATE = "25006"

# Errors of a server that cannot do at the moment what it usually can; the SQLSTATEs below are added.
UNAVAILABLE = frozenset({
    # no room: memory, disk, tables, threads, connections, transactions, logs, locks; an error while committing
    *(1021, 1037, 1038, 1040, 1041, 1114, 1129, 1135, 1197, 1203, 1206, 1226, 1637, 1705, ERROR_DURING_COMMIT),
    *(3015, 3019, 3675, 3985, 5, 20),
    # its files: it cannot write, read, open, lock, sort or close one, or a table in it is damaged
    *(1015, 1016, 1023, 1024, 1026, 1028, 1030, 1194, 1195, 3),
    # a fault of the storage engine that it calls temporary
    1297,
    # going, gone, or no member of its cluster: shut down, killed, offline, no quorum (Galera), group replication
    *(1047, 3032, 3100, 3168, 3781, 3782, 3796, 3797, 3798, 3799, 6400),
    *LOST,
    *DEMOTED,
    # the storage engine, the table or the database takes no writes
    *(1036, 1874, 3989),
    # it aborted the statement: killed, or over a time limit
    *(1317, 1969, 3024),
    # the account is locked, or its password has expired
    *(1820, 1862, 3118, 4151),
    # numbers of the client library: cannot connect
    *(2002, 2003, 2005),
})  # fmt: skip
# Connection exceptions, read-only transactions, memory, aborted statements.
UNAVAILABLE_STATES = ("08", READ_ONLY_STATE, "HY001", "70100")
CONNECT_TIMEOUT_S = 5  # without it, connecting to a dead server could take minutes
DEFAULT_PORT = 3306
CANNOT_CONNECT = 2003  # CR_CONN_HOST_ERROR, a number of the client library

WAIT_FOR_CLUSTER = "SET SESSION wsrep_sync_wait = @@SESSION.wsrep_sync_wait | 1"  # 1: reads wait
UNKNOWN_VARIABLE = 1193

# Errors of a prepare after which the text protocol succeeds, or reports the error itself: the statement cannot be
# prepared (1295), has a syntax error (1064), or the server holds no more prepared statements (1461).
UNPREPARABLE = 1295
HARMLESS = frozenset({1064, UNPREPARABLE, 1461})

# A table value constructor: the word VALUES, except in an INSERT after its columns. A match elsewhere, such as in a string,
# costs the preparation of the statement and nothing else.
TABLE_VALUES = re.compile(r"\bVALUES\b", re.IGNORECASE)
TABLE_VALUES_OF_INSERT = re.compile(
    r"(\(|\*/|\b(UNION|EXCEPT|INTERSECT|ALL|DISTINCT))\s*VALUES\b", re.IGNORECASE
)
INSERT = re.compile(r"\s*(INSERT|REPLACE)\b", re.IGNORECASE)


def has_table_values(statement: str) -> bool:
    """Return whether a statement contains a table value constructor, such as `SELECT * FROM (VALUES (?, ?)) AS v`."""
    values = TABLE_VALUES_OF_INSERT if INSERT.match(statement) else TABLE_VALUES
    return values.search(statement) is not None


class ConnectError(errors.OperationalError):
    """A connection could not be opened: the server or the network has a fault."""


class Connection(connection.Connection):
    """A connection that raises the error of a failed prepare, and keeps its transaction flag correct.

    asyncmy treats every such error as a statement that cannot be prepared, and sends the statement as text instead. If the
    error was that Galera rolled the transaction back, the text would run in a new transaction, which would be committed
    without the first part.
    """

    answer_timeout_s: float | None = None
    """The maximum wait for the response of a statement, or for more of it, in seconds; None means no limit."""

    opening: "Opening"
    """How to open it again."""

    applied = ""
    """The last position in the binary log of the primary for which its server was waited for."""

    is_used = True
    """Whether a statement was sent since it was taken from the pool."""

    wait_timeout_s = 28_800.0
    """The time without use after which the server closes it."""

    _refusal: Exception | None = None

    @property
    def is_dead(self) -> bool:
        """Return whether the server or the network has closed it, as far as this process has been notified."""
        transport = getattr(self, "_transport", None)
        return transport is None or transport.is_closing()

    async def reopen(self) -> None:
        """Open it again in place, with a new session on the server.

        Raises:
            ConnectError: for any failure.
        """
        self.close()
        await self.opening.open(self, is_again=True)

    async def _execute_command(self, command: Any, sql: Any) -> Any:
        if command != COM_STMT_CLOSE:  # the server does not answer it
            note_round_trip()
        return await super()._execute_command(command, sql)  # type: ignore[misc]  # not in the stub

    async def prepare(self, query: bytes | str) -> Any:
        if isinstance(query, str) and has_table_values(query):
            # MariaDB prepares a parameter of it as a column of length 0: every value would be read, and written, as b''.
            raise errors.NotSupportedError(UNPREPARABLE, "a table value constructor is not prepared")
        try:
            return await super().prepare(query)  # type: ignore[no-untyped-call]
        except errors.Error as error:
            self._refusal = error
            raise

    async def _acquire_cached_statement(self, query: str, nargs: int) -> Any:
        self._refusal = None
        statement = await super()._acquire_cached_statement(query, nargs)  # type: ignore[misc]  # not in the stub
        refusal = self._take_refusal()
        if refusal is not None and number_of(refusal) not in HARMLESS:
            raise refusal
        return statement

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        await super()._read_query_result(unbuffered)  # type: ignore[misc]  # not in the stub
        # asyncmy ignores a status without flags, which a session with autocommit off has outside a transaction. The flag of
        # the previous statement would remain.
        result = getattr(self, "_result", None)
        if result is not None and not unbuffered and not result.server_status:
            self.server_status = 0

    async def _fill_buffer(self, need: int) -> None:
        # The driver's own read_timeout creates a task for each read before Python 3.12.
        if self.answer_timeout_s is None:
            await super()._fill_buffer(need)  # type: ignore[misc]  # not in the stub
            return
        timeout_s = 0 if has_stalled() else self.answer_timeout_s
        timer = asyncio.get_running_loop().call_later(timeout_s, self._give_up)
        try:
            await super()._fill_buffer(need)  # type: ignore[misc]  # not in the stub
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        if self.opening.notes_stalls:
            note_stall()
        self.abort()

    def abort(self) -> None:
        """Drop the connection, so that its user gets the error of a lost connection."""
        transport = getattr(self, "_transport", None)
        if transport is not None:
            transport.abort()

    def _take_refusal(self) -> Exception | None:
        refusal, self._refusal = self._refusal, None
        return refusal


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """How a connection is opened, and opened again.

    Args:
        timeout_s: covers the whole connect: the driver alone would wait for a greeting without a limit.
        address: the host and port or the socket, for messages.
        is_socket: whether it is a socket, which the driver's own messages do not name.
        answer_timeout_s: the maximum wait for a response of the server, and for the connection. A request in which this time
            limit was exceeded once does not wait again.
        variables: of the session, which are set with one statement. `autocommit` is one of them: a MySQL that starts
            sessions with autocommit off reports it as on, so the driver would send nothing.
        waits_for_cluster: on a Galera cluster, each read waits until the node has applied earlier commits of the other
            nodes. On other servers this has no effect.
        notes_stalls: a request in which a time limit was exceeded does not wait for the database again. False for a replica,
            whose reads go to the primary then.
        isolation_level: of the session; None for that of the server. SQLAlchemy sets the names of a new connection.
    """

    timeout_s: float
    address: str = "the server"
    is_socket: bool = False
    answer_timeout_s: float | None = None
    variables: Mapping[str, int | str] = {}
    waits_for_cluster: bool = False
    isolation_level: str | None = None
    notes_stalls: bool = True

    async def open(self, connection: Connection, *, is_again: bool = False) -> None:
        """Open a connection.

        Raises:
            ConnectError: for any failure. For example, a proxy without a server accepts and closes the connection, which
                asyncmy reports as a RuntimeError.
        """
        if has_stalled():
            raise ConnectError(
                CANNOT_CONNECT, "cannot connect: the server exceeded a time limit in this request already"
            )
        limit_s = self.timeout_s
        if self.answer_timeout_s is not None:
            limit_s = min(limit_s, self.answer_timeout_s)
        connection.answer_timeout_s = None
        connection.applied = ""
        try:
            async with asyncio.timeout(limit_s):
                await connection.connect()
                await self._set_session(connection, is_again=is_again)
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError) and self.notes_stalls:
                note_stall()
            if isinstance(error, errors.Error):
                raise ConnectError(*self._with_socket(error.args)) from error
            if isinstance(error, TimeoutError):
                reason = f"no response within {limit_s:g} seconds"
            else:
                reason = str(error) or type(error).__name__
            if isinstance(error, Exception):
                raise ConnectError(CANNOT_CONNECT, f"cannot connect to {self.address}: {reason}") from error
            raise
        connection.answer_timeout_s = self.answer_timeout_s

    def _with_socket(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.is_socket or arguments[:1] != (CANNOT_CONNECT,):
            return arguments
        return CANNOT_CONNECT, f"{arguments[-1]}: {self.address}"

    async def _set_session(self, connection: Connection, *, is_again: bool) -> None:
        if self.variables:
            await connection.query(set_statement(self.variables))  # type: ignore[no-untyped-call]
        if self.isolation_level is not None:
            await connection.query(f"SET SESSION TRANSACTION ISOLATION LEVEL {self.isolation_level}")  # type: ignore[no-untyped-call]
        if self.waits_for_cluster:
            await wait_for_cluster(connection)
        if is_again:
            await connection.query(f"SET NAMES {connection.character_set_name()}")  # type: ignore[no-untyped-call]
        async with connection.cursor() as cursor:
            await cursor.execute("SELECT @@SESSION.wait_timeout")
            (connection.wait_timeout_s,) = await cursor.fetchone()


async def connect(
    *,
    variables: Mapping[str, int | str] | None = None,
    waits_for_cluster: bool = False,
    answer_timeout_s: float | None = None,
    isolation_level: str | None = None,
    notes_stalls: bool = True,
    **arguments: Any,
) -> Connection:
    """Open a connection; see `Opening`. The other arguments are those of the driver's connection.

    Raises:
        ConnectError: for any failure.
    """
    password = arguments.get("password")
    if isinstance(password, str):
        # The driver would encode it as Latin-1, but the server has hashed the UTF-8 of the password.
        arguments["password"] = password.encode()
    made = Connection(**arguments)  # type: ignore[no-untyped-call]
    socket = arguments.get("unix_socket")
    made.opening = Opening(
        timeout_s=float(arguments.get("connect_timeout", CONNECT_TIMEOUT_S)),
        address=str(
            socket or f"{arguments.get('host') or 'localhost'}:{arguments.get('port') or DEFAULT_PORT}"
        ),
        is_socket=bool(socket),
        answer_timeout_s=answer_timeout_s,
        variables=variables or {},
        waits_for_cluster=waits_for_cluster,
        isolation_level=isolation_level,
        notes_stalls=notes_stalls,
    )
    await made.opening.open(made)
    return made


def set_statement(variables: Mapping[str, int | str]) -> str:
    """Return the statement that sets variables of a session."""
    values = [
        f"{name} = {value}" if isinstance(value, int) else f"{name} = '{value}'"
        for name, value in variables.items()
    ]
    return f"SET {', '.join(values)}"


async def wait_for_cluster(made: Connection) -> None:
    """Make the session read what was committed on any node of its cluster; other servers do not have the variable."""
    try:
        await made.query(WAIT_FOR_CLUSTER)  # type: ignore[no-untyped-call]
    except errors.Error as error:
        if number_of(error) != UNKNOWN_VARIABLE:
            raise


def reports_conflict(error: BaseException | None) -> bool:
    """Return whether the server refused a transaction because of another one, so that it can be run again."""
    return error is not None and (ends_transaction(error) or number_of(error) in OUTDATED)


def ends_transaction(error: BaseException | None) -> bool:
    """Return whether the server rolled a transaction back because of another one."""
    if error is None:
        return False
    number = number_of(error)
    return number in CONFLICTS or (number == ERROR_DURING_COMMIT and LOCK_DEADLOCK in str(error))


def is_lost(error: BaseException) -> bool:
    """Return whether the connection of a statement was lost, or ended by the server."""
    return number_of(error) in LOST or isinstance(error, errors.InterfaceError)


def is_demoted(error: BaseException | None) -> bool:
    """Return whether the server takes no writes: it is, or has become, no primary."""
    if error is None:
        return False
    return number_of(error) in DEMOTED or str(getattr(error, "sqlstate", None)) == READ_ONLY_STATE


def is_unavailable(error: BaseException | None) -> bool:
    """Return whether the server or the network has a fault, so that the same call may succeed later."""
    if error is None:
        return False
    state = str(getattr(error, "sqlstate", None) or "")
    return (
        isinstance(error, ConnectError)
        or is_lost(error)  # also by a cancellation, after which the rollback fails
        or number_of(error) in UNAVAILABLE
        or state.startswith(UNAVAILABLE_STATES)
    )


def number_of(error: BaseException) -> int | None:
    """Return the error number of the server or the client library, if the driver provides one."""
    arguments = error.args
    return arguments[0] if arguments and isinstance(arguments[0], int) else None
