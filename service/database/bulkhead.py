"""A bulkhead in a pool: one locked row, or one owner, holds at most a part of the connections.

Requests that wait for the same row hold a connection each. Without a bound they would take the whole pool, and delay all
other requests until their waits time out.
"""

from collections import Counter

from latchkey.middleware.request_scope import Compartment, RequestScope

DIVISORS = {"row": 4, "owner": 2}  # a compartment of this kind holds at most this part of a pool
SMALLEST = 2  # connections; a smaller pool has no part to reserve


class Bulkhead:
    """The compartments of one pool, and the requests that hold a connection in them.

    A request with several connections counts once: it must not wait for itself.
    """

    def __init__(self, size: int) -> None:
        self._limits = {kind: max(SMALLEST, size // divisor) for kind, divisor in DIVISORS.items()}
        self._holding: Counter[Compartment] = Counter()
        self._waiting: Counter[Compartment] = Counter()
        self._inside: dict[RequestScope, tuple[int, tuple[Compartment, ...]]] = {}

    @property
    def is_empty(self) -> bool:
        """Return whether no request holds or awaits a connection."""
        return not (self._inside or self._holding or self._waiting)

    def admits(self, request_scope: RequestScope | None) -> bool:
        """Return whether a request may take a connection now."""
        if request_scope is None or request_scope in self._inside:
            return True
        return all(self._holding[one] < self._limits[one[0]] for one in request_scope.compartments)

    def enter(self, request_scope: RequestScope | None) -> None:
        """Count a connection that a request takes."""
        if request_scope is None:
            return
        number, compartments = self._inside.get(request_scope, (0, request_scope.compartments))
        if not number:
            self._holding.update(compartments)
        self._inside[request_scope] = number + 1, compartments

    def leave(self, request_scope: RequestScope | None) -> None:
        """Count a connection that a request returned."""
        if request_scope is None:
            return
        number, compartments = self._inside.pop(request_scope)
        if number > 1:
            self._inside[request_scope] = number - 1, compartments
        else:
            _remove(self._holding, compartments)

    def may_wait(self, request_scope: RequestScope | None, waiters_per_connection: int) -> bool:
        """Return whether a request may join the queue; a compartment may hold only a part of the queue, too."""
        return request_scope is None or all(
            self._waiting[one] < self._limits[one[0]] * waiters_per_connection
            for one in request_scope.compartments
        )

    def begin_wait(self, request_scope: RequestScope | None) -> None:
        """Count a request in the queue."""
        if request_scope is not None:
            self._waiting.update(request_scope.compartments)

    def end_wait(self, request_scope: RequestScope | None) -> None:
        """Count a request that left the queue."""
        if request_scope is not None:
            _remove(self._waiting, request_scope.compartments)


def _remove(counter: Counter[Compartment], compartments: tuple[Compartment, ...]) -> None:
    for one in compartments:
        counter[one] -= 1
        if not counter[one]:
            del counter[one]
