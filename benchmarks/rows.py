"""The database of a run: a private MariaDB with Latchkey's migrations, and the requested number of users and keys."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks import processes
from benchmarks.mariadb import PrivateMariaDB
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.wire.credentials import (
    AccessKey,
    Secret,
    hash_secret,
    new_access_key,
    new_secret,
)
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.routes import ROUTES, declared_scopes
from latchkey.service.settings import Settings

PREFIX = "lk"
KEYS_IN_USE = 100
"""How many keys the load is spread over; of each there is one that signs and one that does not."""

# Nine servers with two pools of 80 connections exceed the default of 151, and a million users and keys exceed the
# default buffer of 128 MiB.
SERVER_SETTINGS = "SET GLOBAL max_connections = 2000; SET GLOBAL innodb_buffer_pool_size = 1024 * 1024 * 1024"
FILL = """
USE `{database}`;
SET @moment = TIMESTAMP'2026-01-02 03:04:05.678901';
INSERT INTO users (id, email, email_key, name, status, created_at, updated_at)
SELECT seq, CONCAT('user', seq, '@example.com'), CONCAT('user', seq, '@example.com'), CONCAT('User ', seq),
       'active', @moment, @moment FROM seq_1_to_{rows};
INSERT INTO api_keys (id, access_key, user_id, name, mode, scopes, allowed_networks, status, created_at, updated_at)
SELECT seq, CONCAT('lka_', LPAD(seq, 22, '0')), seq, CONCAT('Key ', seq), 'bearer', '{scopes}', '', 'active',
       @moment, @moment FROM seq_1_to_{rows};
INSERT INTO key_secrets (api_key_id, version, secret_sha256, created_at)
SELECT seq, 1, UNHEX(SHA2(CONCAT('nobody holds key ', seq), 256)), @moment FROM seq_1_to_{rows};
"""
ARTICLES = 1000
"""As many as there are users, and no more than these; each has three tags."""
FILL_ARTICLES = """
USE `{database}`;
CREATE TABLE bench_articles (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, slug VARCHAR(100) NOT NULL UNIQUE, title VARCHAR(200) NOT NULL,
  body VARCHAR(2000) NOT NULL, views INTEGER NOT NULL, published_at DATETIME(6) NOT NULL, author_id BIGINT NOT NULL,
  FOREIGN KEY (author_id) REFERENCES users (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE bench_tags (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, article_id BIGINT NOT NULL, name VARCHAR(50) NOT NULL,
  FOREIGN KEY (article_id) REFERENCES bench_articles (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
INSERT INTO bench_articles (id, slug, title, body, views, published_at, author_id)
SELECT seq, CONCAT('article-', seq), CONCAT('The article ', seq), REPEAT('A sentence. ', 20), seq,
       TIMESTAMP'2026-01-02 03:04:05.678901', seq FROM seq_1_to_{articles};
INSERT INTO bench_tags (article_id, name)
SELECT id, CONCAT('tag-', number) FROM bench_articles JOIN (SELECT seq AS number FROM seq_1_to_3) AS three;
ANALYZE TABLE bench_articles, bench_tags;
"""
HOLD = """
UPDATE `{database}`.api_keys SET access_key = '{access_key}', mode = '{mode}' WHERE id = {id};
UPDATE `{database}`.key_secrets SET secret_sha256 = 0x{digest}, sealed = {sealed} WHERE api_key_id = {id};
"""


class HeldKey(msgspec.Struct, frozen=True):
    """A key with its secret, for the load."""

    access_key: AccessKey
    secret: Secret


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """A migrated database with rows."""

    url: str
    keyring: str
    rows: int
    articles: int = 0
    """The articles that a team of its own has there."""
    bearer: tuple[HeldKey, ...]
    signed: tuple[HeldKey, ...]
    pid: int
    """The process id of the server."""


@contextmanager
def running() -> Iterator[PrivateMariaDB]:
    """Run a MariaDB that is configured for many connections and rows."""
    with PrivateMariaDB() as server:
        server.execute(SERVER_SETTINGS)
        yield server


def make_database(
    server: PrivateMariaDB, name: str, *, rows: int, keys_in_use: int = KEYS_IN_USE
) -> Database:
    """Create a database with `rows` users and as many keys; the keys of the load are spread evenly over them."""
    if rows < 2 * keys_in_use:
        raise ValueError(f"{rows} rows are too few for {keys_in_use} keys of each mode")
    server.create_database(name)
    url = server.url_of(name)
    asyncio.run(_migrate(url))
    scopes = " ".join(sorted(declared_scopes(ROUTES)))
    server.execute(FILL.format(database=name, rows=rows, scopes=scopes))
    articles = min(rows, ARTICLES)
    server.execute(FILL_ARTICLES.format(database=name, articles=articles))
    text = KeyRing.generate_text()
    ring = KeyRing.from_text(text)
    step = rows // keys_in_use
    bearer = _hold(server, name, range(1, rows + 1, step)[:keys_in_use], None)
    signed = _hold(server, name, range(2, rows + 1, step)[:keys_in_use], ring)
    server.execute(f"ANALYZE TABLE `{name}`.users, `{name}`.api_keys, `{name}`.key_secrets")
    return Database(
        url=url,
        keyring=text,
        rows=rows,
        articles=articles,
        bearer=bearer,
        signed=signed,
        pid=server_pid(server),
    )


def _hold(
    server: PrivateMariaDB, database: str, ids: Sequence[int], ring: KeyRing | None
) -> tuple[HeldKey, ...]:
    held, statements = [], ["START TRANSACTION;"]
    for row in ids:
        key = HeldKey(new_access_key(PREFIX), new_secret(PREFIX))
        sealed = "NULL" if ring is None else "0x" + ring.seal_secret(key.secret, key.access_key, 1).hex()
        statements.append(
            HOLD.format(
                database=database,
                id=row,
                access_key=key.access_key,
                mode="bearer" if ring is None else "signed",
                digest=hash_secret(key.secret).hex(),
                sealed=sealed,
            )
        )
        held.append(key)
    server.execute("".join([*statements, "COMMIT;"]))
    return tuple(held)


async def _migrate(url: str) -> None:
    engine = create_engines(Settings(database_url=url)).writer
    try:
        await schema.upgrade(engine)
    finally:
        await engine.dispose()


def server_pid(server: PrivateMariaDB) -> int:
    """Return the process id of the server."""
    return int(Path(server.execute("SELECT @@pid_file").strip()).read_text())


def database_cpu_s(database: Database) -> float:
    """Return the CPU time of the database, in seconds."""
    return processes.cpu_s(database.pid)
