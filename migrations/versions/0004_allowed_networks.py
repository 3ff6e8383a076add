"""Where keys may be used from; those that are there already, from anywhere."""

import sqlalchemy as sa
from alembic import op

from latchkey.migrations.steps import add_column
from latchkey.migrations.types import Words

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # MySQL takes no default of a text but an expression, and SQLite no expression with a new column.
    empty = "''" if op.get_bind().dialect.name == "sqlite" else "('')"
    add_column(
        "api_keys", sa.Column("allowed_networks", Words, nullable=False, server_default=sa.text(empty))
    )
