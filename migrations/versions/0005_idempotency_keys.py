"""Calls with an idempotency key, and their responses."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from latchkey.migrations.steps import create_index, create_table
from latchkey.migrations.types import UtcDateTime, binary

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}
BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def upgrade() -> None:
    create_table(
        "idempotency_keys",
        sa.Column("id", binary(32), nullable=False),
        sa.Column("fingerprint", binary(32), nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=True),
        sa.Column("headers", BYTES, nullable=True),
        sa.Column("body", BYTES, nullable=True),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_idempotency_keys"),
        **TABLE,
    )
    create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])
