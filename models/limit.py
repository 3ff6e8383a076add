"""Limits of a key or an owner: values that are stored, received and returned in the same form."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LIMIT_NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,31}$(?![\s\S])"
LARGEST = 1_000_000_000
LONGEST_WINDOW_S = 31 * 24 * 60 * 60  # 31 days

Amount = Annotated[int, Meta(ge=1, le=LARGEST)]
Period = Literal["day", "month"]
MOST_CREDITS = 1_000_000_000_000


class RateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """At most `limit` units in any `window_s` seconds."""

    name: Annotated[str, Meta(pattern=LIMIT_NAME_PATTERN)]
    limit: Amount
    window_s: Annotated[int, Meta(ge=1, le=LONGEST_WINDOW_S)]


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """At most `limit` units in a day or a month of the calendar in UTC."""

    limit: Amount
    per: Period


class Refill(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Fill credits up to `amount` at the start of each day or month of the calendar in UTC; more than that stay."""

    amount: Amount
    every: Period


class Credits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The units that a key may still spend, at any time; without a refill they are spent once."""

    remaining: Annotated[int, Meta(ge=0, le=MOST_CREDITS)]
    refill: Refill | None = None
