"""The effect of a statement determines its engine, and whether its loss is an error (R8)."""

from typing import Any

import pytest
from sqlalchemy import (
    Integer,
    column,
    func,
    insert,
    lambda_stmt,
    literal,
    select,
    text,
    union,
    union_all,
    update,
)
from sqlalchemy.schema import CreateTable, DropTable
from starlette.requests import Request

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.session import RequestSession
from latchkey.service.database.statements import Effect, effect_of, effect_of_text, is_plain_read
from tests.conftest import table_of
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route

TEXTS = {
    "SELECT 1": Effect.READS,
    "  select 1 -- delete": Effect.READS,
    "/* DELETE FROM users */ SELECT 1": Effect.READS,
    "-- DELETE\n# UPDATE\nSELECT 1": Effect.READS,
    "(SELECT 1) UNION (SELECT 2)": Effect.READS,
    "((SELECT 1))": Effect.READS,
    "VALUES (1), (2)": Effect.READS,
    "TABLE users": Effect.READS,
    "SHOW TABLES": Effect.READS,
    "EXPLAIN UPDATE users SET name = 'x'": Effect.READS,
    "DESCRIBE users": Effect.READS,
    "PRAGMA table_info(users)": Effect.READS,
    "SET SESSION sql_mode = ''": Effect.READS,
    "WITH x AS (SELECT 1) SELECT * FROM x": Effect.READS,
    "WITH RECURSIVE x AS (SELECT 1 UNION SELECT n FROM x) SELECT REPLACE(n, 'a', 'b') FROM x": Effect.READS,
    "WITH x AS (SELECT 'DELETE FROM users') SELECT `update` FROM x": Effect.READS,
    "SELECT 'it''s FOR UPDATE', \"x\\\" INTO\"": Effect.READS,
    "SELECT replace(name, 'a', 'b') FROM users": Effect.READS,
    "SELECT * FROM users FOR UPDATE": Effect.LOCKS,
    "SELECT * FROM users FOR\nSHARE": Effect.LOCKS,
    "SELECT * FROM users LOCK IN SHARE MODE": Effect.LOCKS,
    "WITH x AS (SELECT 1) SELECT * FROM users FOR UPDATE": Effect.LOCKS,
    "(SELECT 1 FROM users FOR UPDATE) UNION (SELECT 2)": Effect.LOCKS,
    "UPDATE users SET name = 'x'": Effect.WRITES,
    "/* SELECT */ DELETE FROM users": Effect.WRITES,
    "REPLACE INTO users VALUES (1)": Effect.WRITES,
    "CALL change_everything()": Effect.COMMITS,
    "LOAD DATA INFILE 'x' INTO TABLE users": Effect.WRITES,
    "CREATE TABLE x (y INT)": Effect.COMMITS,
    "TRUNCATE users": Effect.COMMITS,
    "SELECT 1; DROP TABLE x": Effect.COMMITS,
    "DELETE FROM x; DROP TABLE x": Effect.WRITES,
    "CREATE TEMPORARY TABLE x (y INT)": Effect.UNKNOWN,
    "CREATE OR REPLACE TEMPORARY TABLE x (y INT)": Effect.UNKNOWN,
    "DROP TEMPORARY TABLE x": Effect.UNKNOWN,
    "WITH x AS (SELECT 1) DELETE FROM users": Effect.WRITES,
    "WITH x AS (SELECT 1) INSERT INTO users SELECT * FROM x": Effect.WRITES,
    "WITH x AS (SELECT 1) UPDATE users SET name = 'x'": Effect.WRITES,
    "/*!50000 DELETE FROM users */": Effect.WRITES,
    "/*M! UPDATE users SET name = 'x' */": Effect.WRITES,
    "SELECT 1; DELETE FROM users": Effect.WRITES,
    "ANALYZE UPDATE users SET name = 'x'": Effect.WRITES,
    "ANALYZE FORMAT=JSON SELECT 1": Effect.READS,
    "EXPLAIN ANALYZE SELECT 1": Effect.READS,
    "ANALYZE TABLE users": Effect.UNKNOWN,
    "SELECT 1 INTO @x": Effect.UNKNOWN,
    "HANDLER users OPEN": Effect.UNKNOWN,
    "LOCK TABLES users WRITE": Effect.UNKNOWN,
    "": Effect.UNKNOWN,
    "'SELECT 1'": Effect.UNKNOWN,
}


@pytest.mark.parametrize(("sql", "wanted"), TEXTS.items())
def test_text_is_judged_as_a_whole(sql: str, wanted: Effect) -> None:
    assert effect_of_text(sql) is wanted
    assert effect_of(text(sql), sql) is wanted


locked = select(User.id).with_for_update()
MADE: dict[str, tuple[Any, bool, Effect]] = {
    "a SELECT": (select(User.id), True, Effect.READS),
    "a SELECT of nothing of ours": (select(func.now()), True, Effect.READS),
    "a UNION": (union_all(select(literal(1)), select(literal(2))), True, Effect.READS),
    "a UNION of instances": (
        select(User).from_statement(union(select(User), select(User))),
        True,
        Effect.READS,
    ),
    "a lambda": (lambda_stmt(lambda: select(User.id)), True, Effect.READS),
    "a lambda that locks": (lambda_stmt(lambda: locked), False, Effect.LOCKS),
    "FOR UPDATE": (locked, False, Effect.LOCKS),
    "FOR UPDATE in a part": (union(locked, select(User.id)), False, Effect.LOCKS),
    "instances of text": (select(User).from_statement(text("SELECT * FROM users")), False, Effect.READS),
    "columns of text": (text("SELECT 1 AS a").columns(column("a", Integer)), False, Effect.READS),
    "text": (text("SELECT 1"), False, Effect.READS),
    "an INSERT": (insert(User), False, Effect.WRITES),
    "instances of an INSERT": (
        select(User).from_statement(insert(User).returning(User)),
        False,
        Effect.WRITES,
    ),
    "an UPDATE": (update(User), False, Effect.WRITES),
    "DDL": (DropTable(table_of(User)), False, Effect.COMMITS),
    "more DDL": (CreateTable(table_of(User)), False, Effect.COMMITS),
}


@pytest.mark.parametrize(("statement", "reads", "effect"), MADE.values(), ids=MADE)
def test_a_statement_of_sqlalchemy_s_is_asked(statement: Any, reads: bool, effect: Effect) -> None:
    sql = statement.text if hasattr(statement, "text") else str(statement)

    assert is_plain_read(statement) is reads
    assert effect_of(statement, sql) is effect


READS = {
    "WITH": text("WITH x AS (SELECT 1 AS a) SELECT a FROM x"),
    "a comment": text("/* why */ SELECT 1"),
    "a parenthesis": text("SELECT * FROM (SELECT 1 AS a) AS x"),
    "instances of a UNION": select(User).from_statement(union(select(User), select(User))),
    "a lambda": lambda_stmt(lambda: select(User)),
    "instances of text": select(User).from_statement(text("SELECT * FROM users")),
}


@pytest.mark.parametrize("statement", READS.values(), ids=READS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_read_is_no_open_write(
    make_app: MakeApp, db: SQLAlchemy, method: str, statement: Any
) -> None:
    async def read(request: Request) -> Any:
        session: RequestSession = request.state.session
        (await session.execute(statement)).all()
        said = session.unwritten
        await session.release_connection()
        return said, db.checked_out()

    answer = await request(make_app(value_route(read, method)), method, "/probe")

    assert answer.json == {"seen": [None, 0]}


@pytest.mark.parametrize("statement", READS.values(), ids=READS)
async def test_a_block_that_only_read_has_lost_nothing(db: SQLAlchemy, statement: Any) -> None:
    async with db.scoped_session() as session:
        (await session.execute(statement)).all()

    assert db.checked_out() == 0
