"""Seals of audit events with the salts of what may be erased."""

import sqlalchemy as sa
from alembic import op

from latchkey.migrations.steps import alter_column
from latchkey.migrations.types import binary

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":  # which bounds no column
        alter_column("audit_events", "seal", existing_type=sa.LargeBinary(68), type_=binary(100))
