"""R8: the engines for reads and for writes."""

from typing import Any

import pytest
from sqlalchemy import insert, literal, select, text, union_all
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.engines import parse_url, verified_tls
from latchkey.service.database.session import RequestSession
from latchkey.service.settings import Settings, SettingsError
from tests import wire
from tests.conftest import loading
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route

STATEMENTS = {
    "a plain SELECT": (select(User.id), "reader"),
    "a union": (union_all(select(literal(1)), select(literal(2))), "reader"),
    "FOR UPDATE": (select(User.id).with_for_update(), "writer"),
    "text": (text("SELECT 1"), "writer"),
    "an INSERT": (insert(User), "writer"),
}


def engine_of(session: RequestSession, bind: Any) -> str:
    engines = session.rules.engines
    names = {engines.writer: "writer", engines.reader: "reader", engines.replica: "replica"}
    return next(name for engine, name in names.items() if engine is not None and engine.sync_engine is bind)


@pytest.mark.parametrize("statement, wanted", STATEMENTS.values(), ids=STATEMENTS)
async def test_only_a_plain_select_reads_on_the_reader(db: SQLAlchemy, statement: Any, wanted: str) -> None:
    session = db.scoped_session()
    found = engine_of(session, session.sync_session.get_bind(clause=statement))
    await db.scoped_session.remove()

    assert found == wanted


async def test_after_its_first_write_a_session_stays_on_the_writer_until_it_commits(db: SQLAlchemy) -> None:
    where: list[str] = []

    async with db.scoped_session() as session:

        def note() -> None:
            where.append("writer" if session.on_writer else "reader")

        await session.execute(select(User.id))
        note()
        await User.create(email="a@b", name="n")
        await session.execute(select(User.id))
        note()
        await session.commit()
        await session.execute(select(User.id))
        note()

    assert where == ["reader", "writer", "reader"]


async def test_session_connection_and_a_transaction_begun_by_hand_are_on_the_writer(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        connection = await session.connection()
        assert connection.engine.sync_engine is db.engine.sync_engine
        await session.rollback()

        async with session.begin():
            await session.execute(select(User.id))
            assert session.on_writer
        async with session.begin(), session.begin_nested():
            await session.execute(select(User.id))
            assert session.on_writer


@pytest.mark.parametrize("method, wanted", [("GET", "reader"), ("POST", "writer"), ("DELETE", "writer")])
async def test_an_unsafe_methods_endpoint_reads_on_the_writer(
    make_app: MakeApp, first: int, method: str, wanted: str
) -> None:
    async def look(request: Request) -> Any:
        await User.get(first)
        return "writer" if request.state.session.on_writer else "reader"

    answer = await request(make_app(value_route(look, method)), method, "/probe")

    assert answer.json == {"seen": wanted}


async def test_with_a_reader_url_safe_endpoints_read_on_the_replica(
    settings: Settings, make_app: Any, db: SQLAlchemy
) -> None:
    await db.close()
    replicated = Settings(
        database_url=settings.database_url,
        reader_url=settings.database_url,
        pool_size=2,
        keyring=settings.keyring,
    )
    db.init_app(None, replicated)
    session = db.scoped_session()
    plain = select(User.id)

    before = engine_of(session, session.sync_session.get_bind(clause=plain))
    session.enter_endpoint(safe=True)
    safe = engine_of(session, session.sync_session.get_bind(clause=plain))
    session.enter_endpoint(safe=False)
    unsafe = engine_of(session, session.sync_session.get_bind(clause=plain))
    await session.rollback()
    await db.scoped_session.remove()

    assert (before, safe, unsafe) == ("reader", "replica", "writer"), "credentials are read on the primary"


async def test_the_reader_gives_back_before_the_writer_is_taken(db: SQLAlchemy, first: int) -> None:
    most = 0

    def work(session: Any) -> None:
        nonlocal most
        session.get(User, first)
        session.add(User(email="a@b", name="n"))
        session.flush()
        most = db.checked_out()

    async with db.scoped_session() as session:
        await session.run_sync(work)
        await session.commit()

    assert most == 1


async def test_for_update_holds_its_lock(db: SQLAlchemy, first: int) -> None:
    """On the AUTOCOMMIT engine it would hold none."""
    async with db.scoped_session() as session:
        await User.filter(id=first).for_update().one()
        assert session.on_writer
        assert session.sync_session.in_transaction()
        await session.rollback()


@pytest.mark.mariadb
class TestOnTheWire:
    """The number of commands, on MariaDB or MySQL."""

    @pytest.fixture
    def database_url(self, mariadb_url: str) -> str:
        return mariadb_url

    async def test_a_read_is_one_round_trip(self, db: SQLAlchemy, make_app: MakeApp, first: int) -> None:
        async def read(request: Request) -> None:
            await User.get(first)

        app = make_app(value_route(read))
        await request(app, "GET", "/probe")
        with wire.listening() as commands:
            await request(app, "GET", "/probe")

        assert len(commands) == 1

    async def test_a_connection_prepares_a_statement_once(
        self, db: SQLAlchemy, make_app: MakeApp, first: int
    ) -> None:
        async def read(request: Request) -> None:
            await User.get(first)

        app = make_app(value_route(read))
        with wire.listening(preparing=True) as commands:
            await request(app, "GET", "/probe")
            await request(app, "GET", "/probe")

        assert [command.split()[0] for command in commands][-3:] == ["PREPARE", "SELECT", "SELECT"]

    async def test_a_create_is_two_inserts_and_commit(
        self, db: SQLAlchemy, make_app: MakeApp, first: int
    ) -> None:
        """With refreshed values in the answer; the pool sends nothing when the connection is returned."""

        async def create(request: Request) -> Any:
            user = await User.create(email=request.headers["x-email"], name="n")
            return user.created_at.isoformat()

        app = make_app(value_route(create, "POST"))
        await request(app, "POST", "/probe", headers={"x-email": "1@x"})
        with wire.listening() as commands:
            await request(app, "POST", "/probe", headers={"x-email": "2@x"})

        # The last INSERT is the audit event.
        assert [command.split()[0] for command in commands] == [
            "INSERT",
            *loading("mysql:"),
            "INSERT",
            "COMMIT",
        ]

    async def test_a_connection_whose_status_is_unknown_is_rolled_back_on_return(
        self, db: SQLAlchemy, first: int
    ) -> None:
        """After a duplicate key the flag in the driver is stale, and the server holds a transaction with locks."""
        async with db.engine.connect() as connection:
            with wire.listening() as commands:
                with pytest.raises(Exception, match="Duplicate"):
                    await connection.execute(
                        text(
                            "INSERT INTO users (email, email_key, name, status, created_at, updated_at) "
                            "VALUES ('x', 'first@example.com', 'n', 'active', now(), now())"
                        )
                    )
                await connection.close()

        assert commands[-1] == "ROLLBACK"

    async def test_a_read_whose_pooled_connection_is_dead_is_run_once_more(
        self, db: SQLAlchemy, mariadb: Any, make_app: MakeApp, first: int
    ) -> None:
        async def read(request: Request) -> Any:
            return (await User.get(first)).name

        app = make_app(value_route(read), value_route(read, "POST", "/unsafe"))
        await request(app, "GET", "/probe")
        await request(app, "POST", "/unsafe")
        mariadb.kill_connections()

        assert (await request(app, "GET", "/probe")).json == {"seen": "first"}
        assert (await request(app, "POST", "/unsafe")).json == {"seen": "first"}


URL_FAULTS = {
    "no URL": ("nonsense", "is not a database URL"),
    "another database": ("postgresql+asyncpg://u:pw@h/d", "not supported"),
    "a blocking driver": ("mysql+pymysql://u:pw@h/d", "not supported"),
    "a parameter that nobody knows": ("mysql+asyncmy://u:pw@h/d?foo=1", "no parameter foo"),
    "a time-out in words": ("mysql+asyncmy://u:pw@h/d?connect_timeout=abc", "number of seconds"),
    "a parameter of SQLite's": ("sqlite+aiosqlite:///x.db?mode=ro", "no parameter mode"),
    "in memory": ("sqlite+aiosqlite://", "name a file"),
    "TLS without a check": ("mysql+asyncmy://u:pw@h/d?ssl=true", "must verify the server"),
    "TLS with the check off": (
        "mysql+asyncmy://u:pw@h/d?ssl_ca=/ca.pem&ssl_verify_cert=false",
        "must verify the server",
    ),
    "an authority that is not there": (
        "mysql+asyncmy://u:pw@h/d?ssl_ca=/nowhere/ca.pem",
        "ssl_ca=/nowhere/ca.pem: No such file",
    ),
    "an authority that is a folder": ("mysql+asyncmy://u:pw@h/d?ssl_ca=/", "ssl_ca=/: Is a directory"),
    "an authority that is no certificate": (
        "mysql+asyncmy://u:pw@h/d?ssl_ca=/dev/null",
        "ssl_ca=/dev/null is not a file of certificates",
    ),
    "a certificate that is not there": (
        "mysql+asyncmy://u:pw@h/d?ssl_ca=system&ssl_cert=/nowhere/c.pem",
        "ssl_cert=/nowhere/c.pem: No such file",
    ),
    "a key that is not there": (
        "mysql+asyncmy://u:pw@h/d?ssl_ca=system&ssl_cert=/dev/null&ssl_key=/nowhere/k.pem",
        "ssl_key=/nowhere/k.pem: No such file",
    ),
    "a certificate that is none": (
        "mysql+asyncmy://u:pw@h/d?ssl_ca=system&ssl_cert=/dev/null",
        "ssl_cert=/dev/null: not a certificate",
    ),
    "a port that is too large": ("mysql+asyncmy://u:pw@h:99999/d", "the port must be from 1 to 65535"),
    "port 0": ("mysql+asyncmy://u:pw@h:0/d", "the port must be from 1 to 65535"),
    "a password with @": ("mysql+asyncmy://u:pw@pw@h/d", "@ as %40"),
    "a password with @ at its end": ("mysql+asyncmy://u:pw@@h/d", "@ as %40"),
    "a password with /": ("mysql+asyncmy://u:pw/pw@h/d", "/ as %2F"),
    "a password with @ and /": ("mysql+asyncmy://u:x@pw/pw@h/d", "/ as %2F"),
    "a password with ?": ("mysql+asyncmy://u:pw?pw=pw@h/d", r"\? as %3F"),
    "a password with #": ("mysql+asyncmy://u:pw#pw@h/d", "# as %23"),
    "a password with %": ("mysql+asyncmy://u:pw%pw@h/d", "% as %25"),
    "a user with /": ("mysql+asyncmy://u/s:pw@h/d", "/ as %2F"),
}


@pytest.mark.parametrize("password", ["p:w", "p+w", "p%40w", "pä w", "p[w]", "p&w=;,$!*'()~"])
def test_other_characters_may_be_in_a_password(password: str) -> None:
    url = parse_url(f"mysql+asyncmy://u:{password}@h/d", "LATCHKEY_DATABASE_URL")

    assert (url.host, url.password) == ("h", password.replace("%40", "@"))


@pytest.mark.parametrize("url, sentence", URL_FAULTS.values(), ids=URL_FAULTS)
def test_a_database_url_that_cannot_be_right_stops_the_start(url: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as raised:
        verified_tls(parse_url(url, "LATCHKEY_DATABASE_URL"))

    assert "pw" not in str(raised.value)


def test_tls_with_the_machines_authorities_checks_the_server() -> None:
    url, arguments = verified_tls(parse_url("mysql+asyncmy://u:pw@h/d?ssl_ca=system", "X"))

    assert arguments["ssl"].check_hostname
    assert "ssl_ca" not in url.query


async def test_changes_are_not_lost_when_rows_are_locked(db: SQLAlchemy, first: int) -> None:
    """Locking reads rows again; a pending change is written first."""
    async with db.scoped_session() as session:
        user = await User.get(first)
        user.name = "changed"
        await session.execute(select(User).with_for_update())
        await session.commit()

    assert user.name == "changed"
    assert (await User.get(first)).name == "changed"


async def test_the_text_of_an_error_shows_no_values(db: SQLAlchemy) -> None:
    """It is logged, and values may be personal or secret."""
    async with db.engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT :email FROM nowhere"), {"email": "ann@example.com"})

    assert "ann@example.com" not in str(raised.value)
