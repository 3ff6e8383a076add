"""Comments."""

import sqlalchemy as sa

from latchkey import BigId, UtcDateTime, steps

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.create_table(
        "newsroom_comments",
        sa.Column("id", BigId, nullable=False),
        sa.Column("article_id", BigId, nullable=False),
        sa.Column("author_id", BigId, nullable=False),
        sa.Column("body", sa.String(2000), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_newsroom_comments"),
        sa.ForeignKeyConstraint(
            ["article_id"],
            ["newsroom_articles.id"],
            name="fk_newsroom_comments_article_id_newsroom_articles",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_newsroom_comments_author_id_users"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    steps.create_index("ix_newsroom_comments_article_id", "newsroom_comments", ["article_id"])
    steps.create_index("ix_newsroom_comments_author_id", "newsroom_comments", ["author_id"])
