"""URLs with a user and a password, as of a database or of Redis."""

import re

RESERVED = re.compile(r"[/?#@]|%(?![0-9A-Fa-f]{2})")
"""Characters that end or begin another part of a URL (RFC 3986, section 3), and a `%` that escapes nothing."""

ESCAPES = (
    "the user or the password contains one of @ / ? # %, which must be percent-encoded: "
    "@ as %40, / as %2F, ? as %3F, # as %23, % as %25"
)


def has_reserved_character(url: str) -> bool:
    """Return whether the part of a URL before its last `@` contains a character that must be percent-encoded there.

    Otherwise a part of the password may be taken for the host or the name of the database, which messages show.
    """
    user, at, _ = url.partition("://")[2].rpartition("@")
    return bool(at) and RESERVED.search(user) is not None
