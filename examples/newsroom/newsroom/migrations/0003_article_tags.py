"""The tags of articles."""

import sqlalchemy as sa

from latchkey import BigId, steps

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.create_table(
        "newsroom_article_tags",
        sa.Column("article_id", BigId, nullable=False),
        sa.Column("tag_id", BigId, nullable=False),
        sa.PrimaryKeyConstraint("article_id", "tag_id", name="pk_newsroom_article_tags"),
        sa.ForeignKeyConstraint(
            ["article_id"],
            ["newsroom_articles.id"],
            name="fk_newsroom_article_tags_article_id_newsroom_articles",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tag_id"], ["newsroom_tags.id"], name="fk_newsroom_article_tags_tag_id_newsroom_tags"
        ),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    steps.create_index("ix_newsroom_article_tags_tag_id", "newsroom_article_tags", ["tag_id"])
