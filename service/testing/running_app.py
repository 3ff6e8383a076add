"""The application under test: it runs once for all tests, and its database is emptied after each of them."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Literal

import pytest
from anyio.from_thread import BlockingPortal
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from latchkey.middleware import background
from latchkey.models import User
from latchkey.service.application import Factory, find_factory
from latchkey.service.authentication.failures import Failures
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.client import Form
from latchkey.service.database import SQLAlchemy, driver, schema
from latchkey.service.from_code.keys import IssuedKey, issue_key
from latchkey.service.origin import as_origin, command_origin
from latchkey.service.outbox.listeners import listeners
from latchkey.service.parts import parts_of
from latchkey.service.testing import wire
from latchkey.service.testing.clients import BearerKey, Client, PartnerClient, SigningKey
from latchkey.service.testing.contents import Contents, drop_tables, prepare
from latchkey.service.testing.moved_clock import Clock, install

BACKGROUND_S = 10.0  # how long the background work of a test may continue after it


class RunningApp:
    """The application of a team while its tests run: the fixture `latchkey`.

    `app` is what the function of the team has built, and `clock` is the time of the application and of its database.
    """

    def __init__(self, app: ASGIApp, portal: BlockingPortal, clock: Clock) -> None:
        self.app = app
        self.clock = clock
        self._portal = portal
        self._db = SQLAlchemy()
        self._parts = parts_of(self._db.app)
        self._contents = Contents(self._db.engine)
        self._numbers = count(1)
        portal.call(self._contents.read)

    def client(
        self,
        *scopes: str,
        mode: Literal["bearer", "signed"] = "bearer",
        form: Form = "query",
        email: str | None = None,
        name: str = "Ann",
        **key: Any,
    ) -> PartnerClient:
        """Return a client with a new key, which has these scopes.

        Args:
            scopes: of the key.
            mode: `"bearer"` sends the secret, `"signed"` signs each request with it.
            form: the place of the signatures: `"query"`, or `"message"` for headers (RFC 9421).
            email: of the key's owner, who is created unless it is one already; None creates an owner of its own.
            name: of an owner that is created.
            key: the other arguments of `latchkey.issue_key`, such as `expires_at=` and `limits=`.

        Raises:
            Problem: an argument is one that no key can have, such as an unknown scope.
        """
        address = f"partner-{next(self._numbers)}@example.com" if email is None else email
        owner, issued = self.call(partial(self._issue, address, name, scopes, mode, key))
        client = PartnerClient(
            self.app, self._portal, key_of(issued.secret, issued.key.access_key, mode=mode, form=form)
        )
        client.user_id, client.email = owner, address
        client.access_key, client.secret = issued.key.access_key, issued.secret
        return client

    def client_with(self, secret: str, *, access_key: str | None = None, form: Form = "query") -> Client:
        """Return a client with a key that exists, such as one that an endpoint has issued.

        Args:
            secret: of the key.
            access_key: of a key that signs; None sends the secret as a bearer key.
            form: as for `client`.
        """
        mode: Literal["bearer", "signed"] = "bearer" if access_key is None else "signed"
        return Client(self.app, self._portal, key_of(secret, access_key or "", mode=mode, form=form))

    def client_without_key(self) -> Client:
        """Return a client that sends no credential."""
        return Client(self.app, self._portal)

    def call(self, work: Callable[[], Any]) -> Any:
        """Run an async function in the event loop of the application, with a session, and return its result.

        It commits at the end. The verbs of the models use this session::

            order = latchkey.call(lambda: Order.create(item="paper"))
        """

        async def in_session() -> Any:
            async with self._db.scoped_session() as session:
                with as_origin(command_origin):
                    found = await work()
                await session.commit()
            return found

        return self._portal.call(in_session)

    @contextmanager
    def assert_round_trips(self, expected: int, *, mysql: int | None = None) -> Iterator[None]:
        """Assert that the calls in the block send this number of commands to the database, on pooled connections.

        SQLite has no wire: its statements are counted, COMMIT and ROLLBACK too, so that the number is that of MariaDB.

        Args:
            expected: the number of commands.
            mysql: the number on MySQL, which has no `INSERT … RETURNING`; None means the same.

        Raises:
            AssertionError: there were more or fewer; the message lists them.
        """
        with wire.listening() as commands:
            yield
        sent = [one for one in commands if one != wire.BEGIN_ON_SQLITE]
        dialect = self._db.engine.dialect
        if mysql is not None and dialect.name == "mysql" and not getattr(dialect, "is_mariadb", False):
            expected = mysql
        if len(sent) != expected:
            raise AssertionError("\n    ".join([f"{len(sent)} round trips, not {expected}:", *sent]))

    def assert_migrated(self) -> None:
        """Assert that the migrations create what the models describe, as `latchkey migrate --check` does.

        Raises:
            AssertionError: they differ; the message lists the differences.
        """
        found = self._portal.call(schema.differences, self._db.engine, self._parts.schemas)
        if found:
            raise AssertionError("\n    ".join(["the models and the migrations differ:", *found]))

    def reset(self) -> None:
        """Undo what a test did: return to the right time, delete its rows, forget what the application remembers."""
        self.clock.reset()
        self._numbers = count(1)
        self._portal.call(self._reset)

    async def _reset(self) -> None:
        parts = self._parts
        await background.finish(BACKGROUND_S)
        await parts.last_used.write()
        await parts.usage.flush()
        await self._contents.restore()
        parts.verifier.failures = Failures(parts.verifier.failures.limit)
        listeners.reset()
        await listeners.read(self._db.reader)

    @staticmethod
    async def _issue(
        email: str, name: str, scopes: tuple[str, ...], mode: Any, key: Mapping[str, Any]
    ) -> tuple[int, IssuedKey]:
        owner = await User.filter(email_key=email.casefold()).first()
        owner = owner or await User.create(email=email, name=name)
        return owner.id, await issue_key(owner, scopes=scopes, mode=mode, **{"name": f"{mode} key", **key})


def key_of(secret: str, access_key: str, *, mode: str, form: Form) -> BearerKey | SigningKey:
    """Return what authenticates the requests of a client."""
    return BearerKey(secret) if mode == "bearer" else SigningKey(access_key, secret, form)


@contextmanager
def run_app(reference: str, database_url: str, environ: Mapping[str, str]) -> Iterator[RunningApp]:
    """Run an application on an empty database, which is migrated; at the end its tables are dropped.

    The environment of the process has no other setting of Latchkey meanwhile, so that processes which a test starts
    use the same database.

    Args:
        reference: the application, as `orders.app:create_app`.
        database_url: of the database.
        environ: more environment variables.

    Raises:
        ApplicationError: there is no such application.
        NotEmptyError: the database has tables.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("LATCHKEY_") and not name.startswith("LATCHKEY_TEST_"):
                patch.delenv(name)
        set_here = {"LATCHKEY_DATABASE_URL": database_url, "LATCHKEY_KEYRING": KeyRing.generate_text()}
        for name, value in (set_here | dict(environ)).items():
            patch.setenv(name, value)
        factory: Factory = find_factory(reference)
        clock = Clock()
        patch.setattr(driver, "Connection", install(clock, patch))
        app = factory()
        db = SQLAlchemy()
        url, on_server = db.engine.url, db.engine.dialect.name != "sqlite"
        if not on_server:
            wire.count_on_sqlite(db.engine.sync_engine, patch)
        try:
            asyncio.run(prepare(url, parts_of(db.app).schemas))
        except BaseException:
            asyncio.run(db.close())
            raise
        try:
            with TestClient(app) as opened:
                assert opened.portal is not None  # noqa: S101 - it is open
                yield RunningApp(app, opened.portal, clock)
        finally:
            if on_server:
                asyncio.run(drop_tables(url))
