"""The connection of the MySQL driver, with the errors that asyncmy 0.2 keeps to itself."""

import asyncio
from typing import Any

from asyncmy import connection, errors

from latchkey.middleware.request_scope import RequestScope

# A deadlock, which is also a certification conflict on Galera; a snapshot conflict; a conflict in group replication.
CONFLICTS = frozenset({1213, 1020, 3101})
ERROR_DURING_COMMIT = 1180
LOCK_DEADLOCK = (
    "error 149 "  # the storage engine's number, by which group replication reports a conflict at COMMIT
)

# What a server answers that cannot do at the moment what it can do at others, beside the SQLSTATEs below.
UNAVAILABLE = frozenset({
    # no room: memory, disk, tables, threads, connections, transactions; an error while committing
    *(1021, 1037, 1038, 1040, 1041, 1114, 1135, 1203, 1206, 1226, 1637, ERROR_DURING_COMMIT),
    # going, gone, or no member of its cluster: shut down, killed, offline, no quorum (Galera), group replication
    *(1047, 1053, 1927, 3032, 3100, 3168, 4031),
    # it takes no writes: a replica, read_only, transaction_read_only
    *(1290, 1792, 1836),
    # it broke the statement off: killed, or over a time limit
    *(1317, 1969, 3024),
    # the account is locked, or its password has expired
    *(1820, 1862, 3118, 4151),
    # the client's own numbers: cannot connect, gone, lost
    *(2002, 2003, 2005, 2006, 2013, 2055),
})  # fmt: skip
# Connection exceptions, read-only transactions, statements that were broken off.
UNAVAILABLE_STATES = ("08", "25006", "70100")
CONNECT_TIMEOUT_S = 5  # a server that is gone would hold the connect for minutes
CANNOT_CONNECT = 2003  # CR_CONN_HOST_ERROR, the client's own number for it

WAIT_FOR_CLUSTER = "SET SESSION wsrep_sync_wait = @@SESSION.wsrep_sync_wait | 1"  # 1: reads wait
UNKNOWN_VARIABLE = 1193

# Errors of preparing after which the text protocol does the same, or reports the error itself: the statement cannot be
# prepared (1295), has a mistake (1064), or the server holds no more prepared statements (1461).
HARMLESS = frozenset({1064, 1295, 1461})


class ConnectError(errors.OperationalError):
    """A connection could not be made: trouble of the server, or of the way to it."""


class Connection(connection.Connection):
    """A connection that raises what the server answers while a statement is prepared, and keeps its transaction flag.

    asyncmy takes every such error for a statement that cannot be prepared, and sends its text instead. Galera may
    answer there that the transaction was rolled back: what follows would run in a new transaction and be committed
    without the part before it.
    """

    answer_timeout_s: float | None = None
    """How long the server may let a statement, or more of its answer, wait; None for ever."""

    _refusal: Exception | None = None

    async def prepare(self, query: bytes | str) -> Any:
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
        # asyncmy passes over a status without flags, which is what a session with autocommit off has outside of a
        # transaction: the flag of the statement before would stay.
        result = getattr(self, "_result", None)
        if result is not None and not unbuffered and not result.server_status:
            self.server_status = 0

    async def _fill_buffer(self, need: int) -> None:
        # The driver's own read_timeout makes a task for each read, before Python 3.12.
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
        """Drop the connection, so that who reads gets the error of a lost one."""
        note_stall()
        transport = getattr(self, "_transport", None)
        if transport is not None:
            transport.abort()

    def _take_refusal(self) -> Exception | None:
        refusal, self._refusal = self._refusal, None
        return refusal


def has_stalled() -> bool:
    """Return whether the database has let this request wait for too long already."""
    request_scope = RequestScope.current()
    return request_scope is not None and request_scope.stalled


def note_stall() -> None:
    """Have what follows in this request wait no more: its waits would add up to several timeouts."""
    if (request_scope := RequestScope.current()) is not None:
        request_scope.stalled = True


async def connect(
    *,
    sets_autocommit: bool = False,
    waits_for_cluster: bool = False,
    answer_timeout_s: float | None = None,
    **arguments: Any,
) -> Connection:
    """Connect.

    Args:
        answer_timeout_s: how long the server may take to answer, and to be connected to at most. In a request that
            has waited for so long already, nothing more is waited for.
        sets_autocommit: set autocommit by a statement. MySQL that starts sessions with autocommit off shows it as on,
            so the driver would send nothing.
        waits_for_cluster: on a Galera cluster, have each read wait until the node has applied what was committed on
            the others before it. On every other server it changes nothing.
        arguments: of the driver's connection. Its connect_timeout holds for the whole of connecting: the driver
            would wait for a greeting for ever.

    Raises:
        ConnectError: for whatever goes wrong. A proxy without a server, for one, accepts and closes, which asyncmy
            reports as a RuntimeError.
    """
    password = arguments.get("password")
    if isinstance(password, str):
        # The driver would encode it as Latin-1, and the server has hashed what a client in UTF-8 sent.
        arguments["password"] = password.encode()
    if has_stalled():
        raise ConnectError(
            CANNOT_CONNECT, "cannot connect: the server has let this request wait for too long"
        )
    timeout_s = float(arguments.get("connect_timeout", CONNECT_TIMEOUT_S))
    made = Connection(**arguments)  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(
            timeout_s if answer_timeout_s is None else min(timeout_s, answer_timeout_s)
        ):
            await made.connect()
            if sets_autocommit:
                await made.query("SET autocommit=1")  # type: ignore[no-untyped-call]
            if waits_for_cluster:
                await wait_for_cluster(made)
    except BaseException as error:
        made.close()
        if isinstance(error, TimeoutError):
            note_stall()
        if isinstance(error, errors.Error):
            raise ConnectError(*error.args) from error
        if isinstance(error, Exception):
            raise ConnectError(
                CANNOT_CONNECT, f"cannot connect: {str(error) or type(error).__name__}"
            ) from error
        raise
    made.answer_timeout_s = answer_timeout_s
    return made


async def wait_for_cluster(made: Connection) -> None:
    """Have the session read what was committed on any node of its cluster; other servers do not know the variable."""
    try:
        await made.query(WAIT_FOR_CLUSTER)  # type: ignore[no-untyped-call]
    except errors.Error as error:
        if number_of(error) != UNKNOWN_VARIABLE:
            raise


def is_conflict(error: BaseException | None) -> bool:
    """Return whether the server rolled a transaction back because of another one, so that it may be run again."""
    if error is None:
        return False
    number = number_of(error)
    return number in CONFLICTS or (number == ERROR_DURING_COMMIT and LOCK_DEADLOCK in str(error))


def is_unavailable(error: BaseException | None) -> bool:
    """Return whether the server, or the way to it, is in trouble, so that the same call may succeed later."""
    if error is None:
        return False
    state = str(getattr(error, "sqlstate", None) or "")
    return (
        isinstance(error, ConnectError)
        or number_of(error) in UNAVAILABLE
        or state.startswith(UNAVAILABLE_STATES)
    )


def number_of(error: BaseException) -> int | None:
    """Return the error number of the server or the client library, where the driver gives one."""
    arguments = error.args
    return arguments[0] if arguments and isinstance(arguments[0], int) else None
