"""The articles that readers marked."""

import sqlalchemy as sa
from alembic import op

from latchkey import BigId

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
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
        sa.Index("ix_newsroom_favourites_user_id", "user_id"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
