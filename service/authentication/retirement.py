"""The deprecation of a replaced secret: its date, and the end of the time in which it is accepted."""

from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec

from latchkey.service.authentication.lookup import Found, StoredSecret

Headers = list[tuple[bytes, bytes]]


class Retirement(msgspec.Struct, frozen=True):
    """The deprecation of one replaced secret."""

    version: int
    rotated_at: datetime
    ends_at: datetime

    def headers(self) -> Headers:
        """Return `Deprecation` (RFC 9745) and `Sunset` (RFC 8594), in whole seconds.

        >>> Retirement(1, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 8, 12, tzinfo=UTC)).headers()
        [(b'deprecation', b'@1767225600'), (b'sunset', b'Thu, 08 Jan 2026 12:00:00 GMT')]
        """
        return [
            (b"deprecation", f"@{int(self.rotated_at.timestamp())}".encode()),
            (b"sunset", format_datetime(self.ends_at.astimezone(UTC), usegmt=True).encode()),
        ]


def retirement_of(found: Found, proved: StoredSecret) -> Retirement | None:
    """Return the deprecation of the secret that a call used; None for the current secret.

    A replaced secret ends at the latest when its key expires.
    """
    if proved.expires_at is None:
        return None
    ends = [moment for moment in (proved.expires_at, found.key.expires_at) if moment is not None]
    return Retirement(proved.version, found.secrets[0].created_at, min(ends))
