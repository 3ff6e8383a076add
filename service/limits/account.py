"""Who is charged for a call: its key, its key's owner, or both, each by its own rules."""

import msgspec

from models.limit import Quota, RateLimit
from service import shapes


class Account(msgspec.Struct, frozen=True):
    """One subject that is limited, and by what."""

    subject: str
    """The primary key of its counter."""
    prefix: str
    """What stands before the names of its rules where those of several subjects stand together."""
    limits: tuple[RateLimit, ...]
    quota: Quota | None


Accounts = tuple[Account, ...]


def accounts_of(key_id: int, key: shapes.Key, user: shapes.User) -> Accounts:
    """List whom a call of a key is charged to; nobody when neither the key nor its owner is limited."""
    accounts: Accounts = ()
    if key.limits or key.quota:
        accounts += (Account(f"key:{key_id}", "", key.limits, key.quota),)
    if user.limits or user.quota:
        accounts += (Account(f"user:{user.id}", "owner.", user.limits, user.quota),)
    return accounts


def holds(held: tuple[RateLimit, ...], asked: tuple[RateLimit, ...]) -> bool:
    """Tell whether whoever keeps the limits `asked` also keeps those of `held`.

    A limit keeps another one if it allows no more in no shorter a window.
    """
    return all(
        any(other.limit <= one.limit and other.window_s >= one.window_s for other in asked) for one in held
    )


def holds_quota(held: Quota | None, asked: Quota | None) -> bool:
    """Tell whether whoever keeps the quota `asked` also keeps that of `held`: one of a month is kept day by day."""
    if held is None:
        return True
    return asked is not None and asked.limit <= held.limit and asked.per in {held.per, "month"}
