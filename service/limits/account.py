"""The accounts that a call is charged to: its key, the owner of the key, or both."""

import msgspec

from latchkey.models.limit import Quota, RateLimit
from latchkey.service import shapes


class Account(msgspec.Struct, frozen=True):
    """One limited subject with its rules."""

    subject: str
    """The primary key of its counter."""
    prefix: str
    """The prefix of its rule names in headers that list several subjects."""
    limits: tuple[RateLimit, ...]
    quota: Quota | None


Accounts = tuple[Account, ...]


def accounts_of(key_id: int, key: shapes.Key, user: shapes.User) -> Accounts:
    """Return the accounts that a call with this key is charged to; empty when nothing is limited."""
    accounts: Accounts = ()
    if key.limits or key.quota:
        accounts += (Account(f"key:{key_id}", "", key.limits, key.quota),)
    if user.limits or user.quota:
        accounts += (Account(f"user:{user.id}", "owner.", user.limits, user.quota),)
    return accounts


def holds(held: tuple[RateLimit, ...], asked: tuple[RateLimit, ...]) -> bool:
    """Return whether every caller within the limits `asked` is also within those of `held`.

    A limit implies another one if it allows the same or less in the same or a longer window.
    """
    return all(
        any(other.limit <= one.limit and other.window_s >= one.window_s for other in asked) for one in held
    )


def holds_quota(held: Quota | None, asked: Quota | None) -> bool:
    """Return whether every caller within the quota `asked` is also within `held`.

    A monthly quota implies a daily one of the same or a larger amount.
    """
    if held is None:
        return True
    return asked is not None and asked.limit <= held.limit and asked.per in {held.per, "month"}
