"""Many refusals are logged with one line a second, and none is lost."""

import logging

import pytest

from latchkey.service.connections.refusals import Refusals


def test_refusals_are_logged_once_a_second_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    refusals = Refusals(clock=lambda: now)
    logger = logging.getLogger("latchkey.connections")
    logger.addHandler(caplog.handler)
    try:
        for number in range(25):
            now = number / 10
            refusals.note("busy", ("192.0.2.1", 1))
        now = 3.5
        refusals.note("busy", None)
    finally:
        logger.removeHandler(caplog.handler)

    lines = list(dict.fromkeys(caplog.messages))
    assert lines == [
        "refused a connection from 192.0.2.1: busy (0 more since the line before)",
        "refused a connection from 192.0.2.1: busy (9 more since the line before)",
        "refused a connection from an unknown address: busy (4 more since the line before)",
    ]
