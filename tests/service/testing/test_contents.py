"""A database is as after its migration again: without rows but those that a migration has inserted."""

import pytest
from sqlalchemy import text

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings
from latchkey.service.testing.contents import Contents, drop_tables, names_of_tables
from tests.mariadb import PrivateMariaDB

TABLE = "CREATE TABLE countries (code VARCHAR(2) PRIMARY KEY, `order` INTEGER, of_user INTEGER)"


async def test_rows_of_a_migration_are_kept(db: SQLAlchemy) -> None:
    async with db.engine.begin() as connection:
        await connection.execute(text(TABLE))
        await connection.execute(text("INSERT INTO countries VALUES ('no', 1, NULL), ('se', 2, NULL)"))
    contents = Contents(db.engine)
    try:
        await contents.read()
        async with db.scoped_session() as session:
            await User.create(email="ann@example.com", name="Ann")
            await session.execute(text("DELETE FROM countries WHERE code = 'no'"))
            await session.execute(text("UPDATE countries SET `order` = 3"))
            await session.commit()

        for _ in range(2):
            await contents.restore()

        async with db.engine.connect() as connection:
            rows = (await connection.execute(text("SELECT * FROM countries ORDER BY code"))).all()
            assert [tuple(row) for row in rows] == [("no", 1, None), ("se", 2, None)]
        assert await User.filter().count() == 0
    finally:
        async with db.engine.begin() as connection:
            await connection.execute(text("DROP TABLE countries"))


@pytest.mark.mariadb
async def test_all_tables_of_a_server_are_dropped(mariadb: PrivateMariaDB) -> None:
    mariadb.create_database("dropped")
    engine = create_engines(Settings(database_url=mariadb.url_of("dropped"))).writer
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE a (id INTEGER PRIMARY KEY)"))
        await connection.execute(text("CREATE TABLE b (id INTEGER, FOREIGN KEY (id) REFERENCES a (id))"))

    await drop_tables(engine.url)

    async with engine.connect() as connection:
        assert await connection.run_sync(names_of_tables) == []
    await engine.dispose()
