"""The articles that readers marked."""

import sqlalchemy as sa

from latchkey import BigId, steps

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    steps.create_table(
        "newsroom_favourites",
        sa.Column("article_id", BigId, nullable=False),
        sa.Column("user_id", BigId, nullable=False),
        sa.PrimaryKeyConstraint("article_id", "user_id", name="pk_newsroom_favourites"),
        sa.ForeignKeyConstraint(
            ["article_id"],
            ["newsroom_articles.id"],
            name="fk_newsroom_favourites_article_id_newsroom_articles",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_newsroom_favourites_user_id_users"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    steps.create_index("ix_newsroom_favourites_user_id", "newsroom_favourites", ["user_id"])
