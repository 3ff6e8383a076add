"""What the connections of one server share: the order of those that wait, and the memory for bodies."""

from typing import Generic, Protocol, TypeVar

from latchkey.service.connections.refusals import Refusals


class Connection(Protocol):
    """A connection; `body_bytes` of the bodies in memory are its own."""

    body_bytes: int


C = TypeVar("C", bound=Connection)


class Room(Generic[C]):
    """The space that the connections of one server share.

    A connection waits while it can do nothing without its client: while it has no request, a part of one, or an
    answer that the client does not take. When space is short, the one that has waited longest gives way.
    """

    def __init__(self) -> None:
        self.body_bytes = 0
        self.refusals = Refusals()
        self._waiting: dict[C, None] = {}  # in the order in which they began to wait

    def enter(self, connection: C) -> None:
        """Note that a connection waits, unless it did before."""
        self._waiting.setdefault(connection)

    def leave(self, connection: C) -> None:
        """Note that a connection no longer waits."""
        self._waiting.pop(connection, None)

    def longest(self, *, with_body: bool = False) -> C | None:
        """Return the connection that has waited longest; with `with_body`, of those that hold a part of a body."""
        if not with_body:
            return next(iter(self._waiting), None)
        return next((one for one in self._waiting if one.body_bytes), None)
