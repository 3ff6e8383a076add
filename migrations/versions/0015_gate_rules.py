"""The rules of the gate that calls store."""

from typing import Any

import sqlalchemy as sa

from latchkey.migrations.steps import create_table
from latchkey.migrations.types import LongText, UtcDateTime

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "gate_rule_sets",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("rules", LongText, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gate_rule_sets"),
        **TABLE,
    )
