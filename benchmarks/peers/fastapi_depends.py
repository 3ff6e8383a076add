"""FastAPI with `Depends`, SQLAlchemy's asyncio ORM and asyncmy.

A dependency with `yield` provides the session, another one the key, and response models encode the answer, as in
FastAPI's tutorial; `expire_on_commit=False` and the eager load follow SQLAlchemy's documentation of asyncio.
"""

import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import joinedload, selectinload

from benchmarks.peers import schemas
from benchmarks.peers.bearer import digest_of_token
from benchmarks.peers.structs import PAGE
from benchmarks.peers.tables import ApiKey, Article, KeySecret, User, is_valid

bearer = HTTPBearer()


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    """Yield a session for each request."""
    async with request.app.state.sessions() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]


async def get_key(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)], session: SessionDep
) -> ApiKey:
    """Return the calling key, or raise a 401."""
    digest = digest_of_token(credentials.credentials)
    found = None
    if digest is not None:
        found = await session.scalar(
            select(KeySecret)
            .options(joinedload(KeySecret.api_key).joinedload(ApiKey.user))
            .where(KeySecret.secret_sha256 == digest)
        )
    if found is None or not is_valid(found, found.api_key, found.api_key.user, datetime.now(UTC)):
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
    return found.api_key


KeyDep = Annotated[ApiKey, Depends(get_key)]


async def read_me(key: KeyDep) -> schemas.Me:
    """Read the caller."""
    return schemas.Me(user=schemas.User.model_validate(key.user), key=schemas.Key.model_validate(key))


async def ask_gate(request: Request, key: KeyDep) -> Response:
    """Permit a request of a key with the scope, and name the caller."""
    is_known = request.headers["x-forwarded-uri"].startswith("/orders/")
    if not is_known or "users:read" not in key.scopes:
        raise HTTPException(status.HTTP_403_FORBIDDEN)
    return Response(
        status_code=status.HTTP_204_NO_CONTENT,
        headers={
            "x-latchkey-owner": str(key.user.id),
            "x-latchkey-key": key.access_key,
            "x-latchkey-scopes": " ".join(key.scopes),
        },
    )


async def create_user(body: schemas.NewUser, key: KeyDep, session: SessionDep) -> User:
    """Create a user."""
    if "users:write" not in key.scopes:
        raise HTTPException(status.HTTP_403_FORBIDDEN)
    user = User(email=body.email, email_key=body.email.casefold(), name=body.name)
    session.add(user)
    await session.commit()
    await session.refresh(user)
    return user


WITH_RELATIONS = (joinedload(Article.author), selectinload(Article.tags))


async def read_public_article(slug: str, session: SessionDep) -> Article:
    """Read an article, its author and its tags."""
    found = await session.scalar(select(Article).options(*WITH_RELATIONS).where(Article.slug == slug))
    if found is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return found


async def read_article(slug: str, session: SessionDep, _key: KeyDep) -> Article:
    """Read an article, with a key."""
    return await read_public_article(slug, session)


async def list_public_articles(before: int, session: SessionDep) -> dict[str, Sequence[Article]]:
    """Read a page of articles."""
    page = select(Article).where(Article.id < before).order_by(Article.id.desc()).limit(PAGE)
    return {"items": (await session.scalars(page.options(*WITH_RELATIONS))).all()}


async def list_articles(before: int, session: SessionDep, _key: KeyDep) -> dict[str, Sequence[Article]]:
    """Read a page of articles, with a key."""
    return await list_public_articles(before, session)


def create_app() -> FastAPI:
    """Build the application."""
    engine = create_async_engine(
        os.environ["DATABASE_URL"], pool_size=int(os.environ["POOL_SIZE"]), max_overflow=0
    )
    app = FastAPI()
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    app.get("/v1/me")(read_me)
    app.get("/v1/gate", status_code=status.HTTP_204_NO_CONTENT)(ask_gate)
    app.post("/v1/users", status_code=status.HTTP_201_CREATED, response_model=schemas.User)(create_user)
    app.get("/articles/{slug}", response_model=schemas.Article)(read_article)
    app.get("/articles", response_model=schemas.Articles)(list_articles)
    app.get("/public/articles/{slug}", response_model=schemas.Article)(read_public_article)
    app.get("/public/articles", response_model=schemas.Articles)(list_public_articles)
    return app
