"""Models whose changes a watcher is notified of, because data that was read from them before is stale."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncSession

from latchkey.models.base import Base

Watcher = Callable[[str, int], Awaitable[None]]
"""Called with the name of the table and the id of the row."""


class Watched(Base):
    """A model whose watcher is notified of each row that was inserted, changed or deleted.

    It is notified once the change is durable and before the commit returns, and also when the outcome of the COMMIT is
    unknown. Core statements do not notify it, as they run no hooks.
    """

    __abstract__ = True
    runs_in_doubt = True

    watcher: ClassVar[Watcher | None] = None
    """Set by `db.watch` and reset by `db.close`; without a watcher, no hook runs."""

    async def after_commit(self, session: AsyncSession) -> None:  # noqa: ARG002 - it reads nothing
        identity = inspect(self).identity
        if Watched.watcher is not None and identity is not None:
            await Watched.watcher(self.__tablename__, identity[0])

    @classmethod
    def has_after_commit(cls) -> bool:
        return Watched.watcher is not None or cls.after_commit is not Watched.after_commit
