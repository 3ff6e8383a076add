"""The settings of this package: the variables `ORDERS_*`."""

from typing import Annotated

import msgspec
from msgspec import Meta


class OrderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a process."""

    carrier: str = "post"
    largest_order: Annotated[int, Meta(ge=1, le=1000)] = 100
