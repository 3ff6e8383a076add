"""The environments of keys; NULL is the first one, which existing keys have."""

import sqlalchemy as sa

from latchkey.migrations.steps import add_column
from latchkey.migrations.types import binary

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_column("api_keys", sa.Column("environment", binary(16), nullable=True))
