"""The authenticated caller: a plain, immutable value that outlives the session it was read with (R5)."""

import msgspec
from starlette.authentication import BaseUser

from latchkey.service.authentication.nonces import NonceClaim
from latchkey.service.authentication.records import KeyRecord, UserRecord
from latchkey.service.authentication.scopes import holds
from latchkey.service.problems import scope_missing


class Principal(msgspec.Struct, BaseUser, frozen=True, kw_only=True):
    """An authenticated caller, which an endpoint takes as `caller: Principal`.

    `user` is the owner of the key, `key` the key, and `scopes` its scopes, all in their state at authentication.
    `hold_caller` locks both and returns their current state. Both are Structs with the fields that the API shows, such
    as `caller.user.id`, `.name` and `.email`, or `caller.key.access_key` and `.mode`, and no rows: set a foreign key to
    `caller.user.id`, or read the row with `await User.get(caller.user.id)`.
    """

    key_id: int
    secret_version: int
    """The version of the secret that proved the call."""
    user: UserRecord
    key: KeyRecord
    scopes: frozenset[str]
    signed_by_query: bool
    claim: NonceClaim | None
    """The nonce that the call uses up; None when the call may be repeated."""
    content_sha256: bytes | None
    """The digest that the body must have; None when nothing covers the body."""

    def require_scope(self, scope: str) -> None:
        """Raise the problem 403 `scope_missing` unless the key has a scope."""
        if not holds(self.scopes, scope):
            raise scope_missing(scope)

    @property
    def is_authenticated(self) -> bool:
        """Return True."""
        return True

    @property
    def display_name(self) -> str:
        """Return the owner's name."""
        return self.user.name

    @property
    def identity(self) -> str:
        """Return the access key."""
        return self.key.access_key
