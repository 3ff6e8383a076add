"""Rows whose changes somebody else must hear of: what was read of them before is no longer so."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncSession

from latchkey.models.base import Base

Watcher = Callable[[str, int], Awaitable[None]]
"""Told the name of the table and the id of the row."""


class Watched(Base):
    """A model whose watcher is told of each row that was inserted, changed or deleted.

    It is told once the change is durable and before the commit returns, and also when nobody knows whether a
    COMMIT went through. Core statements pass it by, as they do all hooks.
    """

    __abstract__ = True
    runs_in_doubt = True

    watcher: ClassVar[Watcher | None] = None
    """`db.watch` sets it and `db.close` takes it back; without one, no hook is run."""

    async def after_commit(self, session: AsyncSession) -> None:  # noqa: ARG002 - it reads nothing
        identity = inspect(self).identity
        if Watched.watcher is not None and identity is not None:
            await Watched.watcher(self.__tablename__, identity[0])

    @classmethod
    def has_after_commit(cls) -> bool:
        return Watched.watcher is not None or cls.after_commit is not Watched.after_commit
