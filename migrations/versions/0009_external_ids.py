"""The ids that users and keys have in other systems, and metadata for them; NULL metadata means none."""

import sqlalchemy as sa

from latchkey.migrations.steps import add_column, create_index
from latchkey.migrations.types import binary

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("users", "api_keys"):
        add_column(table, sa.Column("external_id", binary(255), nullable=True))
        add_column(table, sa.Column("meta", sa.Text, nullable=True))
        create_index(f"ix_{table}_external_id", table, ["external_id"], unique=True)
