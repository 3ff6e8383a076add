"""The cause of a database error: a conflict with another transaction, a lock, or a server out of reach."""

import logging

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from latchkey.middleware.session_errors import CommitUnknownError, TransactionEndedError
from latchkey.service.database import driver, sqlite

NO_SAVEPOINT = 1305
INVALID_VALUES = frozenset({1264, 1292, 1366, 1367, 1406, 1411, 1690, 3988})
"""Out of range, an incorrect time, an incorrect text or number, too long, a result out of range, a text that cannot be converted."""
VIOLATED_CHECKS = frozenset({3819, 4025})
"""A CHECK constraint of MySQL and MariaDB, for which the driver has no IntegrityError."""


def is_conflict(error: BaseException | None) -> bool:
    """Return whether a unit of work lost a conflict with another one, so that running it again may succeed.

    The database ended its transaction, or a row no longer had the version that was read.
    """
    if isinstance(error, StaleDataError | TransactionEndedError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    number = error_number(error)
    if number == NO_SAVEPOINT:
        return is_conflict(behind(error))
    return driver.reports_conflict(error.orig) or "40001" in str(getattr(error.orig, "sqlstate", ""))


def behind(error: DBAPIError) -> BaseException | None:
    """Return the error that made the server drop a SAVEPOINT together with its transaction, before the rollback to it failed."""
    found = error.__context__
    while found is not None and not (isinstance(found, DBAPIError) and error_number(found) != NO_SAVEPOINT):
        found = found.__context__
    return found


def refuses_value(error: DBAPIError) -> bool:
    """Return whether the server refuses a value that its column cannot hold."""
    return error_number(error) in INVALID_VALUES


def violates_constraint(error: DBAPIError) -> bool:
    """Return whether the change would violate a constraint; on SQLite each one is an IntegrityError."""
    return isinstance(error, IntegrityError) or error_number(error) in VIOLATED_CHECKS


def is_locked(error: DBAPIError) -> bool:
    """Return whether a wait for a lock timed out; the next wait may take as long, so the work is not run again.

    On SQLite the lock is that of the single writer.
    """
    return error_number(error) in driver.LOCKED or sqlite.is_busy(error.orig)


def is_unreachable(error: DBAPIError) -> bool:
    """Return whether the server, the network or the file has a fault, so that the same call may succeed later."""
    return (
        error.connection_invalidated or driver.is_unavailable(error.orig) or sqlite.is_unavailable(error.orig)
    )


def error_number(error: DBAPIError) -> int | None:
    """Return the server's error number, if the driver provides one."""
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def is_trouble(error: BaseException) -> bool:
    """Return whether the database, or the way to it, caused an exception, so that a traceback explains nothing."""
    if isinstance(error, PoolTimeoutError | CommitUnknownError) or is_conflict(error):
        return True
    return isinstance(error, DBAPIError) and (is_locked(error) or is_unreachable(error))


def log_failure(log: logging.Logger, sentence: str, error: Exception) -> None:
    """Log that work beside requests failed: trouble of the database in one line, any other error with its traceback."""
    if is_trouble(error):
        # Only the driver's message: an error of SQLAlchemy would show the statement and its values.
        log.warning("%s: %s", sentence, getattr(error, "orig", error))
    else:
        log.error("%s", sentence, exc_info=error)
