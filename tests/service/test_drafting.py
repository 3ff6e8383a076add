"""`latchkey migrations new`: the draft of a team's migration brings the database to its models, on every server."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    text,
)
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from latchkey import BigId, Binary, BinaryText, Json, Schema, SchemaError, User, UtcDateTime, Words
from latchkey.service.database import drafting, schema
from latchkey.service.database.engines import create_engines, name_of, parse_url
from latchkey.service.settings import Settings
from tests.models.test_broken_migrations import Killed, killed_before

ROOT = Path(__file__).parents[2]


class First(DeclarativeBase):
    """The models of a team on its first day."""

    metadata = MetaData(naming_convention=User.metadata.naming_convention)


class Item(First):
    __tablename__ = "stock_items"
    __table_args__ = (CheckConstraint("in_stock >= 0", name="not_negative"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    code: Mapped[str] = mapped_column(BinaryText(40), unique=True)
    title: Mapped[str] = mapped_column(String(50), index=True)
    price: Mapped[Any] = mapped_column(Numeric(10, 2))
    in_stock: Mapped[int]
    labels: Mapped[tuple[str, ...]] = mapped_column(Words)
    origin: Mapped[dict[str, str]] = mapped_column(Json(dict[str, str]))
    digest: Mapped[bytes] = mapped_column(Binary(32))
    counted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Move(First):
    __tablename__ = "stock_moves"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey(Item.id, ondelete="CASCADE"))
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))


class Later(DeclarativeBase):
    """The same tables, changed in every way that a draft knows."""

    metadata = MetaData(naming_convention=User.metadata.naming_convention)


class LaterItem(Later):
    __tablename__ = "stock_items"
    __table_args__ = (
        CheckConstraint("in_stock >= 0", name="not_negative"),
        Index("ix_stock_items_title_price", "title", "price"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    code: Mapped[str] = mapped_column(BinaryText(40))
    title: Mapped[str] = mapped_column(String(80), unique=True)
    price: Mapped[Any] = mapped_column(Numeric(10, 2))
    in_stock: Mapped[int]
    labels: Mapped[tuple[str, ...]] = mapped_column(Words)
    origin: Mapped[dict[str, str]] = mapped_column(Json(dict[str, str]))
    counted_at: Mapped[datetime] = mapped_column(UtcDateTime)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    weight: Mapped[int] = mapped_column(server_default="0")


class LaterMove(Later):
    __tablename__ = "stock_moves"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey(LaterItem.id, ondelete="CASCADE"))
    user_id: Mapped[int]


ROWS = """
    INSERT INTO users (id, email, email_key, name, status, created_at, updated_at)
        VALUES (7, 'a', 'a', 'a', 'active', '2031-01-01', '2031-01-01');
    INSERT INTO stock_items VALUES (1, 'a', 't', 9.5, 3, 'x', '{}', 'd', '2031-01-01 01:02:03.000004');
    INSERT INTO stock_moves VALUES (1, 1, 7)
"""


@pytest.fixture(autouse=True)
def only_these_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the models on `latchkey.Base` that other test modules have imported."""
    for module in (schema, drafting):
        monkeypatch.setattr(module, "Base", SimpleNamespace(metadata=MetaData()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "revisions"
    made.mkdir()
    return made


async def drafted(engine: AsyncEngine, folder: Path, metadata: MetaData, **options: Any) -> str:
    """Draft a revision, and return its text."""
    stock = Schema("stock", migrations=folder, metadata=metadata)
    made = await drafting.draft(engine, stock, "a change", schemas=[stock], **options)
    assert made is not None
    return made.path.read_text()


async def upgrade_in_parts(engine: AsyncEngine, stock: Schema) -> int:
    """Kill the migration before its second statement, then before its third, until it ends; return how often.

    On SQLite it is one transaction, so there is one case.
    """
    for number in (1, 1000) if engine.dialect.name == "sqlite" else itertools.count(1):
        with killed_before(engine, number):
            try:
                await schema.upgrade(engine, schemas=[stock])
            except Killed:
                continue
            return number
    raise AssertionError


async def test_the_drafts_bring_the_database_to_the_models(engine: AsyncEngine, folder: Path) -> None:
    """The first one and a change that is killed many times; the rows stay, and a CHECK constraint does, too."""
    await schema.upgrade(engine)
    await drafted(engine, folder, First.metadata)
    first = Schema("stock", migrations=folder, metadata=First.metadata)
    await schema.upgrade(engine, schemas=[first])
    assert await schema.differences(engine, [first]) == []
    async with engine.begin() as connection:
        for statement in ROWS.split(";"):
            await connection.execute(text(statement))

    await drafted(engine, folder, Later.metadata)
    later = Schema("stock", migrations=folder, metadata=Later.metadata)
    number = await upgrade_in_parts(engine, later)

    assert await schema.differences(engine, [later]) == []
    async with engine.connect() as connection:
        (row,) = await connection.execute(text("SELECT counted_at, weight FROM stock_items"))
        moves = (await connection.execute(text("SELECT COUNT(*) FROM stock_moves"))).scalar()
    assert (str(row[0]), row[1], moves) == ("2031-01-01 01:02:03.000004", 0, 1)
    assert number > 5
    with pytest.raises(Exception, match="not_negative"):
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE stock_items SET in_stock = -1"))


async def test_a_draft_leaves_out_what_is_not_the_schemas_own(engine: AsyncEngine, folder: Path) -> None:
    """Tables of Latchkey, of another schema and of other software; then there is nothing to draft."""
    await schema.upgrade(engine)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE users ADD COLUMN foreign_software INTEGER"))
        await connection.execute(text("CREATE TABLE foreign_software (id INTEGER)"))
    other = MetaData()
    Table("stock_of_others", other, Column("id", BigId, primary_key=True))
    stock = Schema("stock", migrations=folder, metadata=First.metadata)
    others = Schema("others", migrations=folder, metadata=other)

    made = await drafting.draft(engine, stock, "First, 100% \u20ac", schemas=[stock, others])

    assert made is not None
    assert made.path == folder / "0001_first_100.py"
    assert set(re.findall(r"steps.create_table\(\s*'(\w+)'", made.path.read_text())) == {
        "stock_items",
        "stock_moves",
    }
    assert "foreign_software" not in made.path.read_text()
    await schema.upgrade(engine, schemas=[stock])
    assert await drafting.draft(engine, stock, "again", schemas=[stock, others]) is None


async def test_a_foreign_key_to_another_integer_type_is_refused(folder: Path) -> None:
    """SQLite accepts it, so it would fail on the server first."""
    metadata = MetaData()
    Table("stock_items", metadata, Column("id", BigId, primary_key=True))
    Table("stock_moves", metadata, Column("item_id", Integer, ForeignKey("stock_items.id"), primary_key=True))
    stock = Schema("stock", migrations=folder, metadata=metadata)
    engine = create_engines(Settings(database_url="sqlite+aiosqlite:///unused.db")).writer

    with pytest.raises(
        SchemaError, match=r"stock_moves.item_id is INTEGER and refers to .*, which is BIGINT: use"
    ):
        await drafting.draft(engine, stock, "a", schemas=[stock])


SCRIPT = """
import sys
from click.testing import CliRunner
from newsroom.__main__ import main

for arguments in (["migrate"], ["migrations", "new", "First tables"], ["migrate"], ["migrate", "--check"],
                  ["migrations", "new", "--empty", "by hand"], ["migrations", "new", "again"]):
    done = CliRunner().invoke(main, arguments)
    print(done.exit_code, done.output, end="")
"""


def test_a_package_without_a_migration_drafts_its_first_one(place: Settings, tmp_path: Path) -> None:
    """And the second one by hand, which the database on a server must have before the next draft."""
    shutil.copytree(ROOT / "examples" / "newsroom", tmp_path / "package")
    migrations = tmp_path / "package" / "newsroom" / "migrations"
    shutil.rmtree(migrations)
    migrations.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LATCHKEY_", "NEWSROOM_"))
    }

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path / "package",
        env=kept | {"LATCHKEY_DATABASE_URL": place.database_url},
        capture_output=True,
        text=True,
        check=False,
    )

    refused, *lines = done.stdout.splitlines()
    name = name_of(parse_url(place.database_url, "LATCHKEY_DATABASE_URL"))
    assert refused == (
        f"1 Error: the schema newsroom: the folder {migrations} contains no revision: draft the first one with "
        '`newsroom migrations new "first tables"`.'
    )
    assert lines == [
        f"0 {migrations / '0001_first_tables.py'}",
        f"0 Migrated the database {name} from revision none to {schema.head()}.",
        f"Migrated the database {name} from revision none to 0001 of the schema newsroom.",
        f"0 0 {migrations / '0002_by_hand.py'}",
        *(
            ["0 The models equal the migrations: there is nothing to draft."]
            if "sqlite" in place.database_url
            else [
                f"1 Error: the database {name} lacks revision 0002 of the schema newsroom: run `newsroom migrate`."
            ]
        ),
    ]
    assert (
        "from latchkey import BigId, UtcDateTime, steps\n"
        in (migrations / "0001_first_tables.py").read_text()
    )
