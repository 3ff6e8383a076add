"""The origin of a change: its actor, the address of the client and the request, as the audit log records them."""

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import msgspec

KEY, ANONYMOUS, COMMAND, SYSTEM = "key", "anonymous", "command", "system"
KINDS = (KEY, ANONYMOUS, COMMAND, SYSTEM)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of a change.

    The actor is a key with its access key as `actor_id` and its owner as `actor_user_id`; a call without a key; a command
    with the name of the user of the operating system; or the service itself.
    """

    actor_kind: str
    actor_id: str | None = None
    actor_user_id: int | None = None
    address: str | None = None
    request_id: str | None = None


_origin: ContextVar[Callable[[], Origin]] = ContextVar(
    "latchkey_origin", default=lambda: Origin(actor_kind=SYSTEM)
)


@contextmanager
def as_origin(find: Callable[[], Origin]) -> Iterator[None]:
    """Make the result of a function the origin of all changes until the end of the block, in child tasks too.

    The function is called only when something has changed.
    """
    token = _origin.set(find)
    try:
        yield
    finally:
        # A fixture of a test may leave the block in another task, whose context never had the origin.
        with suppress(ValueError):
            _origin.reset(token)


def current_origin() -> Origin:
    """Return the origin of a change that is made now; outside of calls and commands it is the service itself."""
    return _origin.get()()


def command_origin() -> Origin:
    """Return the origin of the changes of a command: the user of the operating system that runs it."""
    user_id = os.getuid()
    try:
        name = pwd.getpwuid(user_id).pw_name
    except KeyError:  # as in a container
        name = f"uid {user_id}"
    return Origin(actor_kind=COMMAND, actor_id=name)
