"""The architecture that Latchkey replaces: FastAPI with class-based HTTP middleware, aiomysql, and a pool that pings first.

A middleware opens the session and stores it in the request's state. The key and then its owner are selected one after
the other, and a create commits and refreshes. `@app.middleware("http")` is FastAPI's form of Starlette's base class
for HTTP middleware, which runs the endpoint in another task.
"""

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import contains_eager

from benchmarks.peers import schemas
from benchmarks.peers.bearer import digest_of_token
from benchmarks.peers.tables import ApiKey, KeySecret, User, is_valid

bearer = HTTPBearer()


class Caller(NamedTuple):
    """The calling user and key."""

    key: ApiKey
    owner: User


async def get_caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]
) -> Caller:
    """Return the caller, or raise a 401."""
    session: AsyncSession = request.state.session
    digest = digest_of_token(credentials.credentials)
    found = owner = None
    if digest is not None:
        found = await session.scalar(
            select(KeySecret)
            .join(KeySecret.api_key)
            .options(contains_eager(KeySecret.api_key))
            .where(KeySecret.secret_sha256 == digest)
        )
    if found is not None:
        owner = await session.scalar(select(User).where(User.id == found.api_key.user_id))
    if found is None or owner is None or not is_valid(found, found.api_key, owner, datetime.now(UTC)):
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
    return Caller(found.api_key, owner)


CallerDep = Annotated[Caller, Depends(get_caller)]


async def read_me(caller: CallerDep) -> schemas.Me:
    """Read the caller."""
    return schemas.Me(
        user=schemas.User.model_validate(caller.owner), key=schemas.Key.model_validate(caller.key)
    )


async def create_user(request: Request, body: schemas.NewUser, caller: CallerDep) -> User:
    """Create a user."""
    if "users:write" not in caller.key.scopes:
        raise HTTPException(status.HTTP_403_FORBIDDEN)
    session = request.state.session
    user = User(email=body.email, email_key=body.email.casefold(), name=body.name)
    session.add(user)
    await session.commit()
    await session.refresh(user)
    return user


def create_app() -> FastAPI:
    """Build the application."""
    engine = create_async_engine(
        os.environ["DATABASE_URL"].replace("+asyncmy", "+aiomysql"),
        pool_size=int(os.environ["POOL_SIZE"]),
        max_overflow=0,
        pool_pre_ping=True,
    )
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    app = FastAPI()

    @app.middleware("http")
    async def open_session(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Open a session for each request."""
        async with sessions() as session:
            request.state.session = session
            return await call_next(request)

    app.get("/v1/me")(read_me)
    app.post("/v1/users", status_code=status.HTTP_201_CREATED, response_model=schemas.User)(create_user)
    return app
