"""Roles, and the roles of keys with their scopes; existing keys have none."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from latchkey.migrations.steps import add_column, create_table
from latchkey.migrations.types import BigId, UtcDateTime, Words, binary

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    create_table(
        "roles",
        sa.Column("id", BigId, nullable=False),
        sa.Column("name", binary(40), nullable=False),
        sa.Column("scopes", Words, nullable=False),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_roles"),
        sa.UniqueConstraint("name", name="uq_roles_name"),
        **TABLE,
    )
    # MySQL accepts only an expression as the default of a text, and SQLite accepts no expression for a new column.
    empty = "''" if op.get_bind().dialect.name == "sqlite" else "('')"
    for name in ("roles", "role_scopes"):
        add_column("api_keys", sa.Column(name, Words, nullable=False, server_default=sa.text(empty)))
