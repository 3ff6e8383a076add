"""The memory of a time limit that the database exceeded, so that a request does not wait for further ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from latchkey.middleware.request_scope import RequestScope


class Wait:
    """The waits of work that several requests share; `stalled` is True once the database has exceeded a time limit."""

    def __init__(self) -> None:
        self.stalled = False

    def mark(self, request_scope: RequestScope | None) -> None:
        """Pass an exceeded time limit on to a request that waited for this work, so that it does not wait again."""
        if self.stalled and request_scope is not None:
            request_scope.stalled = True


_shared: ContextVar[Wait | None] = ContextVar("latchkey_wait", default=None)


@contextmanager
def waiting_once() -> Iterator[Wait]:
    """Limit the waits of work outside requests to one time limit of the database, as for a request."""
    wait = Wait()
    token = _shared.set(wait)
    try:
        yield wait
    finally:
        _shared.reset(token)


def current_wait() -> RequestScope | Wait | None:
    """Return the object that records exceeded time limits here: the request, or the work that several requests share."""
    return RequestScope.current() or _shared.get()


def has_stalled() -> bool:
    """Return whether the database has already exceeded a time limit in this request."""
    wait = current_wait()
    return wait is not None and wait.stalled


def note_stall() -> None:
    """Record that the database exceeded a time limit, so that this request does not wait for further time limits."""
    if (wait := current_wait()) is not None:
        wait.stalled = True
