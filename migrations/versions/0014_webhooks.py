"""Webhooks, the outbox of their deliveries, and the marks of events that time causes."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from latchkey.migrations.steps import create_index, create_table
from latchkey.migrations.types import BigId, UtcDateTime, Words, binary

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}
PAYLOAD = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")


def upgrade() -> None:
    create_table(
        "webhooks",
        sa.Column("id", BigId, nullable=False),
        sa.Column("url", binary(2048), nullable=False),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("events", Words, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("secret_version", sa.Integer, nullable=False),
        sa.Column("sealed", binary(255), nullable=False),
        sa.Column("old_sealed", binary(255), nullable=True),
        sa.Column("old_secret_expires_at", UtcDateTime, nullable=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failing_since", UtcDateTime, nullable=True),
        sa.Column("retry_at", UtcDateTime, nullable=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        **TABLE,
    )
    create_table(
        "webhook_deliveries",
        sa.Column("id", BigId, nullable=False),
        sa.Column("webhook_id", BigId, nullable=False),
        sa.Column("event_id", binary(64), nullable=False),
        sa.Column("type", binary(40), nullable=False),
        sa.Column("payload", PAYLOAD, nullable=False),
        sa.Column("status", binary(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("response", sa.SmallInteger, nullable=True),
        sa.Column("error", sa.String(200), nullable=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("tried_at", UtcDateTime, nullable=True),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        **TABLE,
    )
    create_index(
        "ix_webhook_deliveries_webhook_id_status_id", "webhook_deliveries", ["webhook_id", "status", "id"]
    )
    create_index("ix_webhook_deliveries_expires_at", "webhook_deliveries", ["expires_at"])
    create_table(
        "event_marks",
        sa.Column("type", binary(40), nullable=False),
        sa.Column("written_until", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("type", name="pk_event_marks"),
        **TABLE,
    )
    create_index("ix_api_keys_expires_at", "api_keys", ["expires_at"])
