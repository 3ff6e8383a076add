"""Articles."""

import sqlalchemy as sa

from latchkey import BigId, UtcDateTime, steps

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.create_table(
        "newsroom_articles",
        sa.Column("id", BigId, nullable=False),
        sa.Column("slug", sa.String(120), nullable=False),
        sa.Column("title", sa.String(120), nullable=False),
        sa.Column("summary", sa.String(300), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("favourites", sa.Integer, nullable=False),
        sa.Column("author_id", BigId, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_newsroom_articles"),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_newsroom_articles_author_id_users"),
        sa.UniqueConstraint("slug", name="uq_newsroom_articles_slug"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    steps.create_index("ix_newsroom_articles_author_id", "newsroom_articles", ["author_id"])
