"""Limits and quotas of keys and owners, and their counters; NULL means no limit."""

from typing import Any

import sqlalchemy as sa

from latchkey.migrations.steps import add_column, create_index, create_table
from latchkey.migrations.types import UtcDateTime, binary

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    for table in ("users", "api_keys"):
        add_column(table, sa.Column("limits", sa.Text, nullable=True))
        add_column(table, sa.Column("quota", sa.Text, nullable=True))
    create_table(
        "limit_counters",
        sa.Column("subject", binary(32), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_limit_counters"),
        **TABLE,
    )
    create_index("ix_limit_counters_expires_at", "limit_counters", ["expires_at"])
