"""A session of an application that is not served, for a script or a team's own command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from latchkey.service.authentication import canary
from latchkey.service.database import schema
from latchkey.service.database.session import RequestSession
from latchkey.service.origin import as_origin, command_origin
from latchkey.service.parts import parts_of


@asynccontextmanager
async def open_session(app: Starlette) -> AsyncIterator[RequestSession]:
    """Yield a session of an application that is not served, and close the application afterwards.

    The code must commit its changes::

        async def main() -> None:
            async with open_session(create_app()) as session:
                await Order.create(title="first")
                await session.commit()


        asyncio.run(main())

    Args:
        app: the result of `create_app`.

    Raises:
        NotMigratedError: the database is not at the revisions of Latchkey and of the application.
        WrongKeyRingError: the database was used with another key ring.
    """
    parts = parts_of(app)
    db = parts.db
    try:
        await schema.require_migrated(db.engine, parts.schemas)
        await canary.require_right_keyring(db.engine, parts.keyring)
        async with db.scoped_session() as session:
            with as_origin(command_origin):
                yield session
    finally:
        await parts.revocations.close()
        await db.close()
