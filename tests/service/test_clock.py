"""Every time that the service stores or compares is that of `latchkey.service.clock`, which the tests of a team move."""

import re
from pathlib import Path

import pytest

from latchkey.service import clock

SERVICE = Path(__file__).parents[2] / "service"
OTHERS = {SERVICE / "clock.py", SERVICE / "testing" / "moved_clock.py"}


def test_no_other_clock_is_read() -> None:
    read = [
        str(path.relative_to(SERVICE))
        for path in SERVICE.rglob("*.py")
        if path not in OTHERS
        and "commands" not in path.parts  # a process of its own
        and re.search(r"\bdatetime\.now\(|\btime\.time\b", path.read_text())
    ]

    assert read == []


def test_both_forms_are_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_read", lambda: 1_800_000_000.25)

    assert clock.unix_s() == 1_800_000_000.25
    assert clock.now().isoformat() == "2027-01-15T08:00:00.250000+00:00"
