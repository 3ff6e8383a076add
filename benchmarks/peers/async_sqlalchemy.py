"""FastAPI with fastapi-async-sqlalchemy, whose middleware opens a session for each request.

`db.session` is that session everywhere, as in the package's documentation; the rest is as in `fastapi_depends`.
"""

import os
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_async_sqlalchemy import SQLAlchemyMiddleware, db
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from benchmarks.peers import schemas
from benchmarks.peers.bearer import digest_of_token
from benchmarks.peers.tables import ApiKey, KeySecret, User, is_valid

bearer = HTTPBearer()


async def get_key(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> ApiKey:
    """Return the calling key, or raise a 401."""
    digest = digest_of_token(credentials.credentials)
    found = None
    if digest is not None:
        found = await db.session.scalar(
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


async def create_user(body: schemas.NewUser, key: KeyDep) -> User:
    """Create a user."""
    if "users:write" not in key.scopes:
        raise HTTPException(status.HTTP_403_FORBIDDEN)
    user = User(email=body.email, email_key=body.email.casefold(), name=body.name)
    db.session.add(user)
    await db.session.commit()
    await db.session.refresh(user)
    return user


def create_app() -> FastAPI:
    """Build the application."""
    app = FastAPI()
    app.add_middleware(
        SQLAlchemyMiddleware,
        db_url=os.environ["DATABASE_URL"],
        engine_args={"pool_size": int(os.environ["POOL_SIZE"]), "max_overflow": 0},
    )
    app.get("/v1/me")(read_me)
    app.post("/v1/users", status_code=status.HTTP_201_CREATED, response_model=schemas.User)(create_user)
    return app
