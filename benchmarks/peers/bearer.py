"""How every peer processes the `Authorization` header before it queries the database: the same rules at the same cost."""

from latchkey.service.authentication.wire.credentials import hash_secret, parse_secret

SCHEME = "bearer "


def digest_of_token(token: str) -> bytes | None:
    """Return the SHA-256 of a secret; None for a text that is not a secret, or has a typo."""
    secret = parse_secret(token, "lk")
    return None if secret is None else hash_secret(secret)


def digest_of_header(value: str | None) -> bytes | None:
    """Return the SHA-256 of the secret in an `Authorization` header; None without one."""
    if value is None or value[: len(SCHEME)].lower() != SCHEME:
        return None
    return digest_of_token(value[len(SCHEME) :])
