"""Tags."""

import sqlalchemy as sa

from latchkey import BigId, steps

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.create_table(
        "newsroom_tags",
        sa.Column("id", BigId, nullable=False),
        sa.Column("name", sa.String(30), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_newsroom_tags"),
        sa.UniqueConstraint("name", name="uq_newsroom_tags_name"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
