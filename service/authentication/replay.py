"""No signed call is taken twice: its nonce is reserved, once it has proved itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import Table, insert, inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from starlette.types import Scope

from models import Nonce
from service.prepared import Prepared
from service.problems import Problem

SKEW_S = 10  # how far the clocks of several workers may be apart

_NONCES = inspect(Nonce).local_table
assert isinstance(_NONCES, Table)  # noqa: S101 - what a declared model has
_RESERVE = Prepared(insert(_NONCES))


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a signed call must be the first to use."""

    access_key: str
    nonce: bytes
    created: int
    """Unix seconds, as signed."""

    @classmethod
    def of_nonce(cls, access_key: str, nonce: str, created: int) -> "Claim":
        """Claim the nonce that the client chose."""
        return cls(access_key=access_key, nonce=b"n" + nonce.encode(), created=created)

    @classmethod
    def of_mac(cls, access_key: str, mac: bytes, created: int) -> "Claim":
        """Claim the decoded bytes of the MAC, for a call without a nonce."""
        return cls(access_key=access_key, nonce=b"m" + mac, created=created)


async def is_used(session: AsyncSession, claim: Claim) -> bool:
    """Look whether a nonce was used, without using it."""
    at = (claim.access_key, claim.nonce)
    return await session.get(Nonce, at) is not None


class Replays:
    """The nonces that were used.

    Args:
        primary: tells the AUTOCOMMIT engine on the primary; a replica would not know in time.
        window_s: the clock window, in seconds.
    """

    def __init__(self, primary: Callable[[], AsyncEngine], window_s: int) -> None:
        self.primary = primary
        self.window_s = window_s

    async def refusal(self, scope: Scope) -> Problem | None:
        """Reserve the nonce of an authenticated call; a problem when it was used before.

        With the database out of reach the error goes on and is answered with a 503: the call is not taken.
        """
        claim: Claim | None = scope["user"].claim
        if claim is None or await self.reserve(claim):
            return None
        return Problem("replayed")

    async def reserve(self, claim: Claim) -> bool:
        """Reserve a nonce with one INSERT that commits by itself; False when somebody was first.

        It stays when the endpoint fails: a call that was refused is not sent again, it is signed again. It
        is kept until no clock takes the signature any more, counted from its own `created`: counted from
        now, a call that is dated ahead could outlive its nonce.
        """
        expires_at = datetime.fromtimestamp(claim.created, UTC) + timedelta(seconds=self.window_s + SKEW_S)
        values = {"access_key": claim.access_key, "nonce": claim.nonce, "expires_at": expires_at}
        try:
            await _RESERVE.run(self.primary(), values)
        except IntegrityError:
            return False
        return True
