"""Users, their keys, and the sealed secrets of keys that sign."""

from typing import Any

import sqlalchemy as sa

from latchkey.migrations.steps import create_index, create_table
from latchkey.migrations.types import BigId, UtcDateTime, Words, binary

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "users",
        sa.Column("id", BigId, nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("email_key", binary(1524), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email_key", name="uq_users_email_key"),
        **TABLE,
    )
    create_table(
        "api_keys",
        sa.Column("id", BigId, nullable=False),
        sa.Column("access_key", binary(64), nullable=False),
        sa.Column("user_id", BigId, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("scopes", Words, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("secret_sha256", binary(32), nullable=True),
        sa.Column("expires_at", UtcDateTime, nullable=True),
        sa.Column("last_used_at", UtcDateTime, nullable=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_keys_user_id_users"),
        sa.UniqueConstraint("access_key", name="uq_api_keys_access_key"),
        sa.UniqueConstraint("secret_sha256", name="uq_api_keys_secret_sha256"),
        **TABLE,
    )
    create_index("ix_api_keys_user_id", "api_keys", ["user_id"])
    create_table(
        "key_secrets",
        sa.Column("api_key_id", BigId, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("sealed", binary(255), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("api_key_id", "version", name="pk_key_secrets"),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"], name="fk_key_secrets_api_key_id_api_keys"),
        **TABLE,
    )
