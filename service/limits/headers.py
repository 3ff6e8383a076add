"""The fields `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10."""

from collections.abc import Sequence

from latchkey.service.limits.ledger import Figure

Headers = list[tuple[bytes, bytes]]


def policy_header(figures: Sequence[Figure]) -> Headers:
    """Return `RateLimit-Policy`: each rule with its allowance (`q`) and its window in seconds (`w`).

    Credits without a refill have neither, so only `RateLimit` lists them.

    >>> policy_header([Figure("burst", 100, 60, 42, 30)])
    [(b'ratelimit-policy', b'"burst";q=100;w=60')]
    """
    return _listed(
        b"ratelimit-policy",
        [f'"{one.name}";q={one.limit};w={one.window_s}' for one in figures if one.window_s],
    )


def standing_header(figures: Sequence[Figure]) -> Headers:
    """Return `RateLimit`: what is left of each rule (`r`), and the seconds until some of it is available again (`t`).

    >>> standing_header([Figure("burst", 100, 60, 42, 30), Figure("daily", 5, 86400, 5, None)])
    [(b'ratelimit', b'"burst";r=42;t=30, "daily";r=5')]
    """
    return _listed(
        b"ratelimit",
        [
            f'"{one.name}";r={one.remaining}' + ("" if one.eases_in_s is None else f";t={one.eases_in_s}")
            for one in figures
        ],
    )


def _listed(name: bytes, items: list[str]) -> Headers:
    return [(name, ", ".join(items).encode())] if items else []
