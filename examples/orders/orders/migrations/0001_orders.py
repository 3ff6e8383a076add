"""Orders."""

import sqlalchemy as sa

from latchkey import BigId, UtcDateTime, steps

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.create_table(
        "orders",
        sa.Column("id", BigId, nullable=False),
        sa.Column("owner_id", BigId, nullable=False),
        sa.Column("item", sa.String(100), nullable=False),
        sa.Column("pieces", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_orders_owner_id_users"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    steps.create_index("ix_orders_owner_id", "orders", ["owner_id"])
