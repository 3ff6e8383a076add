"""The tables of the probing models, and a few rows."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import text

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from tests.conftest import MARIADB, tables_of
from tests.models import newspaper
from tests.models.migrations import Place
from tests.models.refresh_models import RefreshBase
from tests.wire import listening


@pytest.fixture(params=["sqlite", MARIADB])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Return an empty database of each kind."""
    found = Place(request, tmp_path)
    yield found
    for engine in found.engines:
        await engine.dispose()


@pytest.fixture
async def refresh_tables(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(RefreshBase.metadata, db):
        yield


@pytest.fixture
async def wire(db: SQLAlchemy) -> Callable[[], AbstractContextManager[list[str]]]:
    """Count the commands on existing connections: logging in is not counted."""
    for engine in (db.engine, db.reader):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    return listening


@pytest.fixture
async def ann(db: SQLAlchemy) -> User:
    return await User.create(id=1, email="ann@example.com", name="Ann", auto_commit=True)


@pytest.fixture
async def bob(db: SQLAlchemy) -> User:
    return await User.create(id=2, email="bob@example.com", name="Bob", auto_commit=True)


@pytest.fixture
async def articles(db: SQLAlchemy) -> AsyncIterator[None]:
    """Three articles: with an editor, comments and tags; with comments; with nothing."""
    async with tables_of(newspaper.NewspaperBase.metadata, db):
        async with db.scoped_session() as session:
            publisher = newspaper.Publisher(id=1, name="The Publisher")
            ann = newspaper.Author(id=1, name="Ann", publisher=publisher)
            bob = newspaper.Author(id=2, name="Bob", bio="writes", publisher=publisher, mentor=ann)
            news, sport = newspaper.Tag(id=1, name="news"), newspaper.Tag(id=2, name="sport")
            one = newspaper.Article(id=1, slug="one", title="One", author=ann, editor=bob, views=3)
            two = newspaper.Article(id=2, slug="two", title="Two", author=bob, subtitle="more")
            three = newspaper.Article(id=3, slug="three", title="Three", author=bob)
            session.add_all([publisher, ann, bob, news, sport, one, two, three])
            session.add_all(
                [
                    newspaper.Comment(id=1, body="first", article=one, author=bob),
                    newspaper.Comment(id=2, body="second", article=one, author=ann, hidden=True),
                    newspaper.Comment(id=3, body="third", article=two, author=ann),
                    newspaper.Desk(id=1, place="window", author=ann),
                ]
            )
            await session.flush()
            rows = [(1, 2, 1), (1, 1, 2), (2, 1, 1)]
            for article, tag, position in rows:
                values = {"article_id": article, "tag_id": tag, "position": position}
                await session.execute(newspaper.article_tags.insert(), values)
            await session.commit()
        yield
