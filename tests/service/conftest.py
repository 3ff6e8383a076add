"""The whole application on an open database, and keys to call it with."""

import datetime as dt
import ipaddress
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette

from latchkey.service import input_types, logs, openapi
from latchkey.service.app import create_app
from latchkey.service.database.engines import create_engines
from latchkey.service.endpoints import adapter
from latchkey.service.operation import Operation
from latchkey.service.problems.registry import known
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import KEYRING, MARIADB, opened
from tests.mariadb import PrivateMariaDB


@pytest.fixture
def routes() -> Sequence[Operation]:
    """Return a team's own routes; a module may override this fixture."""
    return ()


@pytest.fixture
def loggers() -> Iterator[None]:
    """Restore the loggers: `create_app` configures them for the whole process."""
    found = [logging.getLogger(name) for name in (*logs.LEVELS, "uvicorn.access")]
    before = [(one, one.level, one.handlers, one.propagate) for one in found]
    yield
    for one, level, handlers, propagate in before:
        one.setLevel(level)
        one.handlers, one.propagate = handlers, propagate


@pytest.fixture(params=["sqlite", MARIADB])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A database without a table."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'team.db'}"
    if request.param == "mariadb":
        server = request.getfixturevalue("mariadb")
        server.create_database("team")
        url = server.url_of("team")
    return Settings(database_url=url, keyring=KEYRING, pool_size=2)


@pytest.fixture
async def engine(place: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_engines(place).writer
    yield engine
    await engine.dispose()


class Lines(logging.Handler):
    """A handler that collects every log record."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def log_lines(app: Starlette) -> Iterator[list[logging.LogRecord]]:
    """Return every record of every logger from DEBUG on, including those that the application does not show."""
    lines = Lines()
    heard = [logging.getLogger(), *(logging.getLogger(name) for name in logs.LEVELS)]
    before = [(one, one.level, one.handlers) for one in heard]
    for one in heard:
        one.handlers = [*one.handlers, lines]
        one.setLevel(logging.DEBUG)
    yield lines.records
    for one, level, handlers in before:
        one.handlers = handlers
        one.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def described_once() -> Iterator[None]:
    """Build the description of the same routes once, and the decoder of a body: most of the time to build an application."""
    build, decoder_of = openapi.document, input_types.decoder_of
    built: dict[Any, Any] = {}
    decoders: dict[int, Any] = {}

    def document(operations: Sequence[Operation], **options: Any) -> Any:
        described = (*map(id, operations), *options.items(), *known().items())
        if described not in built:
            # The operations are kept as well, so that no other one gets the id of one of them.
            built[described] = build(operations, **options), operations
        return built[described][0]

    def decoder(kind: Any) -> Any:
        # The type is kept as well, for the same reason.
        if id(kind) not in decoders:
            decoders[id(kind)] = decoder_of(kind), kind
        return decoders[id(kind)][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openapi, "document", document)
        patch.setattr(adapter, "decoder_of", decoder)
        yield


@pytest.fixture
async def app(settings: Settings, routes: Sequence[Operation], loggers: None) -> AsyncIterator[Starlette]:
    """Return the application, and assert afterwards that nothing is left behind."""
    async with opened(lambda: create_app(settings, routes=routes), settings) as app:
        yield app


@pytest.fixture
async def operator(app: Starlette) -> HeldKey:
    """Return a bearer key with every scope."""
    return await hold_key(app)


@pytest.fixture
async def signer(app: Starlette) -> HeldKey:
    """Return a signing key of the same owner with every scope."""
    return await hold_key(app, mode="signed")


@pytest.fixture
def open_transactions(settings: Settings, request: pytest.FixtureRequest) -> Callable[[], Awaitable[int]]:
    """Return a function that counts the open transactions on the database, of all connections."""
    if "mysql" in settings.database_url:
        server: PrivateMariaDB = request.getfixturevalue("mariadb")
        return server.open_transactions

    async def count() -> int:
        """Return 1 if another transaction of SQLite's single writer is open."""
        with closing(sqlite3.connect(settings.database_url.partition("///")[2], timeout=0)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return 1
        return 0

    return count


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a file with a certificate for 127.0.0.1 that no authority has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file
