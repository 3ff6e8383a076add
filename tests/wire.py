"""The commands on the wire, counted as in the tests of a team, see `latchkey.service.testing.wire`."""

from latchkey.service.testing.wire import CountingConnection, count_on_sqlite, listening, note

__all__ = ["CountingConnection", "count_on_sqlite", "listening", "note"]
