"""What the connections of one server share: the order of those that wait, and the memory for requests."""

from typing import Generic, Protocol, TypeVar

from latchkey.service.connections.refusals import Refusals


class Connection(Protocol):
    """A connection; `held_bytes` of the memory for requests are its own."""

    held_bytes: int


C = TypeVar("C", bound=Connection)


class Room(Generic[C]):
    """The space that the connections of one server share.

    A connection waits while it can do nothing without its client: while it has no request, a part of one, or an
    answer that the client does not take. When space is short, the one that has waited longest gives way.

    A connection lingers while it is closed for a client that may still send. At most `lingering` do.
    """

    def __init__(self, *, lingering: int = 64) -> None:
        self.held_bytes = 0
        self.refusals = Refusals()
        self._waiting: dict[C, None] = {}  # in the order in which they began to wait
        self._lingering: dict[C, None] = {}  # in the order in which they were refused
        self._most_lingering = lingering

    def enter(self, connection: C) -> None:
        """Note that a connection waits, unless it did before."""
        self._waiting.setdefault(connection)

    def leave(self, connection: C) -> None:
        """Note that a connection no longer waits."""
        self._waiting.pop(connection, None)

    def longest(self, *, holding: bool = False) -> C | None:
        """Return the connection that has waited longest; with `holding`, of those that hold a part of a request."""
        if not holding:
            return next(iter(self._waiting), None)
        return next((one for one in self._waiting if one.held_bytes), None)

    @property
    def lingering(self) -> int:
        """The number of connections that linger."""
        return len(self._lingering)

    def linger(self, connection: C) -> C | None:
        """Note that a connection lingers until it is lost; return the one that should no longer, when there are too many."""
        self._lingering[connection] = None
        return next(iter(self._lingering)) if len(self._lingering) > self._most_lingering else None

    def lose(self, connection: C) -> None:
        """Note that a connection is closed."""
        self.leave(connection)
        self._lingering.pop(connection, None)
