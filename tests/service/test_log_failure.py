"""Work beside requests that the database fails is one line in the log; a fault of ours is logged with its traceback."""

import logging

import pytest
from asyncmy import errors
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from latchkey.middleware.session_errors import CommitUnknownError
from latchkey.service.database.conflicts import log_failure

log = logging.getLogger("tests.log_failure")


def of_database(number: int) -> OperationalError:
    return OperationalError(
        "UPDATE secret_table", {"name": "Ann"}, errors.OperationalError(number, "its words")
    )


@pytest.mark.parametrize(
    "error",
    [of_database(2013), of_database(1290), of_database(1205), of_database(1213), PoolTimeoutError("its words"),
     CommitUnknownError("its words")],
)  # fmt: skip
def test_trouble_of_the_database_is_one_line(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    log_failure(log, "it could not be written", error)

    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert line.exc_info is None
    assert line.getMessage().startswith("it could not be written: ")
    assert "its words" in line.getMessage()
    assert "secret_table" not in line.getMessage()


def test_any_other_error_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    log_failure(log, "it could not be written", ValueError("a fault"))

    (line,) = caplog.records
    assert line.levelname == "ERROR"
    assert line.getMessage() == "it could not be written"
    assert line.exc_info is not None
