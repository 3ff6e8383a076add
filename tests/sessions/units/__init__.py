"""All units of work."""

from tests.sessions.units import basics, loading, reading, relations, statements, states, transactions
from tests.sessions.units.unit import UNITS, Unit

__all__ = [
    "UNITS",
    "Unit",
    "basics",
    "loading",
    "reading",
    "relations",
    "statements",
    "states",
    "transactions",
]
