"""Counted calls, their series, and the flushes of the workers."""

from typing import Any

import sqlalchemy as sa

from latchkey.migrations.steps import create_index, create_table
from latchkey.migrations.types import BigId, UtcDateTime, binary

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "usage_counts",
        sa.Column("minutes", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("key_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("start", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("series_id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("minutes", "key_id", "start", "series_id", name="pk_usage_counts"),
        sqlite_with_rowid=False,
        **TABLE,
    )
    create_table(
        "usage_series",
        sa.Column("id", BigId, nullable=False),
        sa.Column("digest", binary(32), nullable=False),
        sa.Column("key_id", sa.BigInteger, nullable=False),
        sa.Column("route", binary(255), nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("code", binary(64), nullable=False),
        sa.Column("tags", binary(700), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_series"),
        sa.UniqueConstraint("digest", name="uq_usage_series_digest"),
        **TABLE,
    )
    create_index("ix_usage_series_key_id", "usage_series", ["key_id"])
    create_table(
        "usage_flushes",
        sa.Column("worker", binary(16), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("worker", name="pk_usage_flushes"),
        **TABLE,
    )
    create_index("ix_usage_flushes_expires_at", "usage_flushes", ["expires_at"])
