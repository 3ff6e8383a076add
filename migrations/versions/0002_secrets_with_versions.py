"""Move the secrets of both modes into `key_secrets`, where each has a version and an end."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from latchkey.migrations.steps import columns_of, create_table, drop_table, has_unique_constraint
from latchkey.migrations.types import BigId, UtcDateTime, binary

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def columns() -> list[sa.Column[Any]]:
    """Return the columns of a secret's row."""
    return [
        sa.Column("api_key_id", BigId, nullable=False, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("secret_sha256", binary(32), nullable=False),
        sa.Column("sealed", binary(255), nullable=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=True),
    ]


def upgrade() -> None:
    # SQLite can drop `api_keys.secret_sha256` only together with its whole table, which no other table may then
    # reference. The secrets are therefore kept in an intermediate table; at every point they are in one of the tables.
    if "sealed" in columns_of("key_secrets") and "secret_sha256" not in columns_of("key_secrets"):
        create_table("kept_secrets", *columns(), sa.PrimaryKeyConstraint("api_key_id", "version"), **TABLE)
        keep_secrets()
        drop_table("key_secrets")

    held = columns_of("api_keys")
    with op.batch_alter_table("api_keys") as table:
        if has_unique_constraint("uq_api_keys_secret_sha256", "api_keys"):
            table.drop_constraint("uq_api_keys_secret_sha256", type_="unique")
        if "secret_sha256" in held:
            table.drop_column("secret_sha256")
        for column in (
            sa.Column("secret_version", sa.Integer, nullable=False, server_default="1"),
            sa.Column("old_secret_calls", sa.BigInteger, nullable=False, server_default="0"),
            sa.Column("old_secret_last_used_at", UtcDateTime, nullable=True),
        ):
            if column.name not in held:
                table.add_column(column)

    create_table(
        "key_secrets",
        *columns(),
        sa.PrimaryKeyConstraint("api_key_id", "version", name="pk_key_secrets"),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"], name="fk_key_secrets_api_key_id_api_keys"),
        sa.UniqueConstraint("secret_sha256", name="uq_key_secrets_secret_sha256"),
        **TABLE,
    )
    if columns_of("kept_secrets"):
        op.execute(
            "INSERT INTO key_secrets SELECT * FROM kept_secrets k WHERE NOT EXISTS ("
            "SELECT 1 FROM key_secrets s WHERE s.api_key_id = k.api_key_id AND s.version = k.version)"
        )
        drop_table("kept_secrets")


def keep_secrets() -> None:
    """Copy every secret into an intermediate table; a secret that an earlier run copied is copied again."""
    op.execute("DELETE FROM kept_secrets")
    op.execute(
        "INSERT INTO kept_secrets (api_key_id, version, secret_sha256, sealed, created_at, expires_at) "
        "SELECT k.id, COALESCE(s.version, 1), k.secret_sha256, s.sealed, COALESCE(s.created_at, k.created_at), NULL "
        "FROM api_keys k LEFT JOIN key_secrets s ON s.api_key_id = k.id "
        "WHERE k.secret_sha256 IS NOT NULL"  # every key was created with a hash
    )
