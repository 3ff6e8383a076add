"""The networks from which keys may be used; existing keys may be used from anywhere."""

import sqlalchemy as sa
from alembic import op

from latchkey.migrations.steps import add_column
from latchkey.migrations.types import Words

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # MySQL accepts only an expression as the default of a text, and SQLite accepts no expression for a new column.
    empty = "''" if op.get_bind().dialect.name == "sqlite" else "('')"
    add_column(
        "api_keys", sa.Column("allowed_networks", Words, nullable=False, server_default=sa.text(empty))
    )
