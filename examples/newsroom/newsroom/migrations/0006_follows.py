"""The authors that readers follow."""

import sqlalchemy as sa

from latchkey import BigId, steps

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.create_table(
        "newsroom_follows",
        sa.Column("reader_id", BigId, nullable=False),
        sa.Column("author_id", BigId, nullable=False),
        sa.PrimaryKeyConstraint("reader_id", "author_id", name="pk_newsroom_follows"),
        sa.ForeignKeyConstraint(["reader_id"], ["users.id"], name="fk_newsroom_follows_reader_id_users"),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_newsroom_follows_author_id_users"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    steps.create_index("ix_newsroom_follows_author_id", "newsroom_follows", ["author_id"])
