"""All units of work."""

from tests.sessions.units import (
    basics,
    loading,
    mapping,
    reading,
    relations,
    statements,
    states,
    synchronous,
    transactions,
    writing,
)
from tests.sessions.units.unit import UNITS, Unit

__all__ = [
    "UNITS",
    "Unit",
    "basics",
    "loading",
    "mapping",
    "reading",
    "relations",
    "statements",
    "states",
    "synchronous",
    "transactions",
    "writing",
]
