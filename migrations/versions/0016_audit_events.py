"""The audit log."""

from typing import Any

import sqlalchemy as sa

from latchkey.migrations.steps import create_index, create_table
from latchkey.migrations.types import LongText, UtcDateTime, binary

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}
INDEXED = ("action", "actor_kind", "actor_id", "actor_user_id", "target_id")


def upgrade() -> None:
    create_table(
        "audit_events",
        sa.Column("id", binary(16), nullable=False),
        sa.Column("occurred_at", UtcDateTime, nullable=False),
        sa.Column("actor_kind", binary(16), nullable=False),
        sa.Column("actor_id", binary(64), nullable=True),
        sa.Column("actor_user_id", sa.BigInteger, nullable=True),
        sa.Column("action", binary(40), nullable=False),
        sa.Column("target_kind", binary(16), nullable=False),
        sa.Column("target_id", binary(100), nullable=False),
        sa.Column("values_before", LongText, nullable=True),
        sa.Column("values_after", LongText, nullable=True),
        sa.Column("address", binary(64), nullable=True),
        sa.Column("request_id", binary(64), nullable=True),
        sa.Column("position", sa.BigInteger, nullable=True),
        sa.Column("seal", binary(68), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
        sa.UniqueConstraint("position", name="uq_audit_events_position"),
        **TABLE,
    )
    for name in INDEXED:
        create_index(f"ix_audit_events_{name}", "audit_events", [name, "id"])
