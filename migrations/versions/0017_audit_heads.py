"""The head of the audit log."""

from typing import Any

import sqlalchemy as sa

from latchkey.migrations.steps import create_table
from latchkey.migrations.types import binary

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "audit_heads",
        sa.Column("id", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("chain", binary(32), nullable=False),
        sa.Column("proof", binary(36), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_heads"),
        **TABLE,
    )
