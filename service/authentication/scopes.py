"""Whether scopes include another: the exact name, or a trailing `:*` for every verb of its noun."""

from collections.abc import Collection, Iterable

ANY_VERB = "*"


def holds(held: Collection[str], wanted: str) -> bool:
    """Return whether `held` includes a scope; `orders:*` includes `orders:read`, and itself only as `orders:*`."""
    return wanted in held or f"{wanted.partition(':')[0]}:{ANY_VERB}" in held


def lacking(held: Collection[str], wanted: Iterable[str]) -> list[str]:
    """Return the scopes that `held` does not include, sorted."""
    return sorted({scope for scope in wanted if not holds(held, scope)})
