"""The tables of the probing models, and a few rows."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager

import pytest
from sqlalchemy import text

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from tests.conftest import tables_of
from tests.models.refresh_models import RefreshBase
from tests.wire import listening


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
