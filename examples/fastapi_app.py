"""The sessions of Latchkey in a FastAPI application, by dependency injection.

    latchkey migrate
    uvicorn --factory examples.fastapi_app:create_app

There is no session middleware here: `Depends(db.session)` gives each request its session, and the
endpoint commits.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import IntegrityError

from latchkey import RequestSession, Settings, User, db, require_migrated

# With scope="function" the session ends before the response is sent, so a write that was not committed becomes a 500;
# FastAPI's default would end it after a 2xx had been sent.
Session = Annotated[RequestSession, Depends(db.session, scope="function")]


class NewUser(BaseModel):
    """The body of a request."""

    email: str
    name: str


class UserOut(BaseModel):
    """The body of a response."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    name: str


async def create_user(new: NewUser, session: Session) -> UserOut:
    """Create a user; the unique constraint decides whether the email is free."""
    try:
        user = await User.create(email=new.email, name=new.name, session=session)
        await session.commit()
    except IntegrityError as error:
        raise HTTPException(409, "the email is taken") from error
    return UserOut.model_validate(user)


async def read_user(user_id: int, session: Session) -> UserOut:
    """Read a user."""
    user = await User.get(user_id, session=session)
    if user is None:
        raise HTTPException(404)
    return UserOut.model_validate(user)


async def rename_user(user_id: int, name: str, session: Session) -> UserOut:
    """Rename a user; verbs without `session=` use the same session. An error after a change rolls it back."""
    user = await User.filter(id=user_id).for_update().first()
    if user is None:
        raise HTTPException(404)
    await user.update(name=name)
    if name == "root":
        raise HTTPException(403, "that name is reserved")
    await session.commit()
    return UserOut.model_validate(user)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Refuse a database that is not migrated, and close at the end."""
    try:
        await require_migrated(db.engine)
        yield
    finally:
        await db.close()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; None reads the settings from the environment."""
    app = FastAPI(lifespan=lifespan)
    app.post("/users", status_code=201)(create_user)
    app.get("/users/{user_id}")(read_user)
    app.post("/users/{user_id}/rename")(rename_user)
    db.init_app(app, settings or Settings.from_env(os.environ))
    return app
