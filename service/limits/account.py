"""The accounts that a call is charged to: its key, the owner of the key, or both."""

import msgspec

from latchkey.models.limit import Quota, RateLimit
from latchkey.models.limit_counter import subject_of
from latchkey.service.authentication.lookup import Found


class Account(msgspec.Struct, frozen=True):
    """One limited subject with its rules."""

    subject: str
    """The primary key of its counter."""
    prefix: str
    """The prefix of its rule names in headers that list several subjects."""
    limits: tuple[RateLimit, ...]
    quota: Quota | None
    has_credits: bool = False
    """Whether it spends credits; its counter holds them."""
    owner_id: int = 0
    """The owner, whose counters and those of its keys are kept together."""


Accounts = tuple[Account, ...]


def accounts_of(found: Found) -> Accounts:
    """Return the accounts that a call with this key is charged to; empty when nothing is limited."""
    key, user = found.key, found.user
    accounts: Accounts = ()
    if key.limits or key.quota or key.has_credits:
        accounts += (Account(subject_of(found.key_id), "", key.limits, key.quota, key.has_credits, user.id),)
    if user.limits or user.quota:
        accounts += (Account(f"user:{user.id}", "owner.", user.limits, user.quota, False, user.id),)
    return accounts
