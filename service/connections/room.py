"""The space that all connections of a server share: the order of waiting connections, and the memory for requests."""

from typing import Generic, Protocol, TypeVar

from latchkey.service.connections.refusals import Refusals


class WaitingConnection(Protocol):
    """A connection; `held_bytes` is its part of the memory for requests."""

    held_bytes: int


C = TypeVar("C", bound=WaitingConnection)


class Room(Generic[C]):
    """The space that the connections of one server share.

    A connection waits while it depends on its client: while it has no request or an incomplete one, or while the client
    does not read its response. When space is short, the connection that has waited longest is closed.

    A closing connection lingers while its client may still send. At most `lingering` connections do.
    """

    def __init__(self, *, lingering: int = 64) -> None:
        self.held_bytes = 0
        self.refusals = Refusals()
        self._waiting: dict[C, None] = {}  # in the order in which they started to wait
        self._lingering: dict[C, None] = {}  # in the order in which they were refused
        self._most_lingering = lingering

    def enter(self, connection: C) -> None:
        """Record that a connection waits, unless it waits already."""
        self._waiting.setdefault(connection)

    def leave(self, connection: C) -> None:
        """Record that a connection no longer waits."""
        self._waiting.pop(connection, None)

    def longest(self, *, holding: bool = False) -> C | None:
        """Return the connection that has waited longest; with `holding`, only of those with an incomplete request."""
        if not holding:
            return next(iter(self._waiting), None)
        return next((one for one in self._waiting if one.held_bytes), None)

    @property
    def lingering(self) -> int:
        """Return the number of lingering connections."""
        return len(self._lingering)

    def linger(self, connection: C) -> C | None:
        """Record that a connection lingers until it is lost; if there are too many, return the one to abort."""
        self._lingering[connection] = None
        return next(iter(self._lingering)) if len(self._lingering) > self._most_lingering else None

    def lose(self, connection: C) -> None:
        """Record that a connection is closed."""
        self.leave(connection)
        self._lingering.pop(connection, None)
