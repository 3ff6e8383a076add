"""Canaries of the key ring: the service writes them, because a migration has no key ring."""

from typing import Any

import sqlalchemy as sa

from latchkey.migrations.steps import create_table
from latchkey.migrations.types import UtcDateTime, binary

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "keyring_canaries",
        sa.Column("key_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("sealed", binary(255), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_keyring_canaries"),
        **TABLE,
    )
