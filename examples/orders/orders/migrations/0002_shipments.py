"""Shipments."""

import sqlalchemy as sa

from latchkey import BigId, steps

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.create_table(
        "shipments",
        sa.Column("id", BigId, nullable=False),
        sa.Column("order_id", BigId, nullable=False),
        sa.Column("signed_by", BigId, nullable=False),
        sa.Column("carrier", sa.String(50), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"]),
        sa.ForeignKeyConstraint(["signed_by"], ["users.id"]),
        sa.UniqueConstraint("order_id"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
