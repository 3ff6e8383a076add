"""The settings of this package: the variables `NEWSROOM_*`."""

from typing import Annotated

import msgspec
from msgspec import Meta


class NewsroomSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a process."""

    tags_per_article: Annotated[int, Meta(ge=0, le=50)] = 10
    reader_key_days: Annotated[int, Meta(ge=1, le=3650)] = 365
