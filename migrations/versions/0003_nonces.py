"""Nonces of signed calls."""

from typing import Any

import sqlalchemy as sa

from latchkey.migrations.steps import create_index, create_table
from latchkey.migrations.types import UtcDateTime, binary

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "nonces",
        sa.Column("access_key", binary(64), nullable=False),
        sa.Column("nonce", binary(65), nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("access_key", "nonce", name="pk_nonces"),
        **TABLE,
    )
    create_index("ix_nonces_expires_at", "nonces", ["expires_at"])
