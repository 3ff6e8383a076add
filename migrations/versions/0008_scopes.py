"""Scopes that the operator registers."""

from typing import Any

import sqlalchemy as sa

from latchkey.migrations.steps import create_index, create_table
from latchkey.migrations.types import BigId, UtcDateTime, binary

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "scopes",
        sa.Column("id", BigId, nullable=False),
        sa.Column("name", binary(81), nullable=False),
        sa.Column("noun", binary(40), nullable=False),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_scopes"),
        sa.UniqueConstraint("name", name="uq_scopes_name"),
        **TABLE,
    )
    create_index("ix_scopes_noun", "scopes", ["noun"])
