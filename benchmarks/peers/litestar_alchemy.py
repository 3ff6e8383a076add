"""Litestar with Advanced Alchemy, its official companion for SQLAlchemy.

The plugin provides the session and commits after a successful answer, services with their repositories read and write,
and msgspec Structs are the schemas, as in both documentations. The key is a dependency: Litestar also documents a
middleware for authentication, which would only open a second session here.
"""

import os
from datetime import UTC, datetime

from advanced_alchemy.base import DefaultBase
from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
    providers,
)
from advanced_alchemy.filters import LimitOffset, OrderBy
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import SQLAlchemyAsyncRepositoryService
from litestar import Litestar, Request, get, post
from litestar.di import Provide
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from sqlalchemy.orm import Mapped, joinedload, relationship, selectinload

from benchmarks.peers.bearer import digest_of_header
from benchmarks.peers.structs import PAGE, Articles, Me, NewUser
from benchmarks.peers.structs import Article as ArticleOut
from benchmarks.peers.structs import Key as KeyOut
from benchmarks.peers.structs import User as UserOut
from benchmarks.peers.tables import (
    ArticleColumns,
    KeyColumns,
    SecretColumns,
    TagColumns,
    UserColumns,
    is_valid,
)


class User(UserColumns, DefaultBase):
    """An owner of keys."""


class ApiKey(KeyColumns, DefaultBase):
    """A key and its owner."""

    user: Mapped[User] = relationship()


class KeySecret(SecretColumns, DefaultBase):
    """A version of a key's secret, and the key."""

    api_key: Mapped[ApiKey] = relationship()


class Tag(TagColumns, DefaultBase):
    """A tag of an article."""


class Article(ArticleColumns, DefaultBase):
    """An article, its author and its tags."""

    author: Mapped[User] = relationship()
    tags: Mapped[list[Tag]] = relationship(order_by=Tag.id)


class UserService(SQLAlchemyAsyncRepositoryService[User]):
    """Users."""

    class Repository(SQLAlchemyAsyncRepository[User]):
        """Users in the database."""

        model_type = User

    repository_type = Repository


class SecretService(SQLAlchemyAsyncRepositoryService[KeySecret]):
    """Secrets of keys."""

    class Repository(SQLAlchemyAsyncRepository[KeySecret]):
        """Secrets in the database."""

        model_type = KeySecret

    repository_type = Repository


class ArticleService(SQLAlchemyAsyncRepositoryService[Article]):
    """Articles."""

    class Repository(SQLAlchemyAsyncRepository[Article]):
        """Articles in the database."""

        model_type = Article

    repository_type = Repository


WITH_RELATIONS = [joinedload(Article.author), selectinload(Article.tags)]
WITH_OWNER = [joinedload(KeySecret.api_key).joinedload(ApiKey.user)]


async def provide_key(request: Request, secrets: SecretService) -> ApiKey:
    """Return the calling key, or raise a 401."""
    digest = digest_of_header(request.headers.get("authorization"))
    found = None
    if digest is not None:
        found = await secrets.get_one_or_none(secret_sha256=digest, load=WITH_OWNER)
    if found is None or not is_valid(found, found.api_key, found.api_key.user, datetime.now(UTC)):
        raise NotAuthorizedException
    return found.api_key


@get("/v1/me")
async def read_me(key: ApiKey, secrets: SecretService) -> Me:
    """Read the caller."""
    return Me(
        user=secrets.to_schema(key.user, schema_type=UserOut), key=secrets.to_schema(key, schema_type=KeyOut)
    )


@post("/v1/users")
async def create_user(data: NewUser, key: ApiKey, users: UserService) -> UserOut:
    """Create a user."""
    if "users:write" not in key.scopes:
        raise PermissionDeniedException
    user = await users.create({"email": data.email, "email_key": data.email.casefold(), "name": data.name})
    return users.to_schema(user, schema_type=UserOut)


async def find_article(articles: ArticleService, slug: str) -> ArticleOut:
    """Return an article with its author and its tags."""
    found = await articles.get_one(slug=slug, load=WITH_RELATIONS)
    return articles.to_schema(found, schema_type=ArticleOut)


async def find_page(articles: ArticleService, before: int) -> Articles:
    """Return a page of articles."""
    found = await articles.list(
        Article.id < before, OrderBy("id", "desc"), LimitOffset(PAGE, 0), load=WITH_RELATIONS
    )
    return Articles([articles.to_schema(one, schema_type=ArticleOut) for one in found])


@get("/articles/{slug:str}")
async def read_article(
    slug: str,
    key: ApiKey,  # noqa: ARG001 - it is asked for its effect
    articles: ArticleService,
) -> ArticleOut:
    """Read an article, with a key."""
    return await find_article(articles, slug)


@get("/articles")
async def list_articles(
    before: int,
    key: ApiKey,  # noqa: ARG001 - as above
    articles: ArticleService,
) -> Articles:
    """Read a page, with a key."""
    return await find_page(articles, before)


@get("/public/articles/{slug:str}")
async def read_public_article(slug: str, articles: ArticleService) -> ArticleOut:
    """Read an article."""
    return await find_article(articles, slug)


@get("/public/articles")
async def list_public_articles(before: int, articles: ArticleService) -> Articles:
    """Read a page."""
    return await find_page(articles, before)


def create_app() -> Litestar:
    """Build the application."""
    config = SQLAlchemyAsyncConfig(
        connection_string=os.environ["DATABASE_URL"],
        engine_config=EngineConfig(pool_size=int(os.environ["POOL_SIZE"]), max_overflow=0),
        session_config=AsyncSessionConfig(expire_on_commit=False),
        before_send_handler="autocommit",
    )
    return Litestar(
        route_handlers=[
            read_me,
            create_user,
            read_article,
            list_articles,
            read_public_article,
            list_public_articles,
        ],
        plugins=[SQLAlchemyPlugin(config=config)],
        dependencies={
            "articles": Provide(providers.create_service_provider(ArticleService)),
            "users": Provide(providers.create_service_provider(UserService)),
            "secrets": Provide(providers.create_service_provider(SecretService)),
            "key": Provide(provide_key),
        },
    )
