"""Counted calls, the series that they belong to, and the marks that prevent counting them twice."""

from datetime import datetime

from sqlalchemy import BigInteger, Integer, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.base import Base
from latchkey.models.types import BigId, Binary, BinaryText, UtcDateTime

ROUTE_BYTES = 255
CODE_BYTES = 64
TAGS_BYTES = 700
MINUTE, HOUR, DAY = 1, 60, 24 * 60
"""The lengths of periods, in minutes."""
NO_KEY = 0
"""The `key_id` of calls without a known key, and of series without tags, which all keys share."""


class UsageCount(Base):
    """The calls of one key in one series and one period; each call is in exactly one row.

    `start` is the first minute of the period, in minutes since 1970, and `minutes` its length: a minute, an hour or a day.
    `units` are those that the calls were charged. The length comes first in the primary key, so that minutes are found
    without reading hours and days. There is no foreign key to `api_keys`, which a flush would lock.
    """

    __tablename__ = "usage_counts"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it, nobody changes it

    minutes: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    key_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    start: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    series_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    calls: Mapped[int] = mapped_column(BigInteger)
    units: Mapped[int] = mapped_column(BigInteger)


class UsageSeries(Base):
    """What calls are counted by: the route, the status, the code of a problem, and the tags.

    A series with tags belongs to one key, so that the tags of a key are bounded. `digest` identifies the other columns.
    """

    __tablename__ = "usage_series"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    digest: Mapped[bytes] = mapped_column(Binary(32), unique=True)
    key_id: Mapped[int] = mapped_column(BigInteger, index=True)
    route: Mapped[str] = mapped_column(BinaryText(ROUTE_BYTES))
    status: Mapped[int] = mapped_column(SmallInteger)
    code: Mapped[str] = mapped_column(BinaryText(CODE_BYTES))
    tags: Mapped[str] = mapped_column(BinaryText(TAGS_BYTES))


class UsageFlush(Base):
    """The number of the last flush of one worker, written in the transaction of the flush."""

    __tablename__ = "usage_flushes"

    worker: Mapped[bytes] = mapped_column(Binary(16), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
