"""Whether a key spends credits, which are in its counter."""

import sqlalchemy as sa

from latchkey.migrations.steps import add_column

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_column("api_keys", sa.Column("has_credits", sa.Boolean, nullable=False, server_default=sa.text("0")))
