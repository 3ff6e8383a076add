"""A team's tables and migrations beside Latchkey's: the two histories are independent."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from latchkey import Schema, SchemaError, User
from latchkey.migrations.check import check
from latchkey.models import Base
from latchkey.models.types import BigId
from latchkey.service.app import create_app
from latchkey.service.database import SQLAlchemy, schema
from latchkey.service.database.engines import create_engines, name_of
from latchkey.service.settings import Settings
from tests.requests import request

pytestmark = pytest.mark.usefixtures("loggers")

OPTIONS = 'mysql_charset="utf8mb4", mysql_engine="InnoDB"'

FIRST = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

def upgrade():
    op.create_table(
        "orders",
        sa.Column("id", BigId, primary_key=True),
        sa.Column("user_id", BigId, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("title", sa.String(100), nullable=False),
        {OPTIONS},
    )
"""

SECOND = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

def upgrade():
    op.create_table("notes", sa.Column("id", BigId, primary_key=True), {OPTIONS})
"""


class TeamBase(DeclarativeBase):
    pass


class Order(TeamBase):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    title: Mapped[str] = mapped_column(String(100))


NOTES = MetaData()
Table("notes", NOTES, mapped_column("id", BigId, primary_key=True).column)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the team's revisions, with characters that a configuration would interpolate and split."""
    made = tmp_path / "100% ours, theirs" / "migrations"
    made.mkdir(parents=True)
    (made / "0001_orders.py").write_text(FIRST)
    return made


@pytest.fixture
def orders(folder: Path) -> Schema:
    return Schema("orders", migrations=folder, metadata=TeamBase.metadata)


async def start(settings: Settings, *schemas: Schema) -> None:
    """Start the application as a server does, answer one request, and stop it."""
    app = create_app(settings, schemas=schemas)
    try:
        async with app.router.lifespan_context(app):
            assert (await request(app, "GET", "/healthz")).status == 200
    finally:
        await SQLAlchemy().close()


async def test_both_histories_are_migrated_and_compared(
    engine: AsyncEngine, orders: Schema, place: Settings
) -> None:
    await schema.upgrade(engine, schemas=[orders])

    assert await schema.revision(engine) == schema.head()
    assert await schema.revision(engine, orders) == schema.head(orders) == "0001"
    assert await schema.differences(engine, [orders]) == []
    assert await schema.undescribed(engine, [orders]) == []
    await start(place, orders)


async def test_latchkey_is_upgraded_below_a_team_that_is_up_to_date(
    engine: AsyncEngine, orders: Schema
) -> None:
    """The database was one revision of Latchkey behind; the team's table existed already."""
    await schema.upgrade(engine, "0005", schemas=[orders])

    await schema.upgrade(engine, schemas=[orders])

    assert (await schema.revision(engine), await schema.revision(engine, orders)) == (schema.head(), "0001")
    assert await schema.differences(engine, [orders]) == []


async def test_a_team_goes_on_above_a_latchkey_that_is_up_to_date(
    engine: AsyncEngine, orders: Schema, folder: Path
) -> None:
    await schema.upgrade(engine, schemas=[orders])
    (folder / "0002_notes.py").write_text(SECOND)
    with pytest.raises(schema.NotMigratedError):
        await schema.require_migrated(engine, [orders])

    await schema.upgrade(engine, schemas=[orders])

    await schema.require_migrated(engine, [orders])
    assert await schema.revision(engine, orders) == "0002"


async def test_latchkey_alone_leaves_the_tables_of_a_team_alone(
    engine: AsyncEngine, orders: Schema, place: Settings
) -> None:
    """No comparison suggests dropping them, with or without the team's schema."""
    await schema.upgrade(engine, schemas=[orders])

    assert await schema.differences(engine) == []
    await schema.require_migrated(engine)
    await start(place)


async def test_a_team_whose_migrations_are_missing_is_refused_at_the_start(
    engine: AsyncEngine, orders: Schema, place: Settings
) -> None:
    await schema.upgrade(engine)

    with pytest.raises(schema.NotMigratedError) as raised:
        await start(place, orders)

    assert str(raised.value) == (
        f"the database {name_of(engine.url)} is at revision none of the schema orders and this application needs "
        "0001: "
        "run `latchkey migrate` with the application."
    )


async def test_tables_of_a_newer_application_are_refused_before_anything_is_migrated(
    engine: AsyncEngine, orders: Schema
) -> None:
    await schema.upgrade(engine, "0005", schemas=[orders])
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version_orders SET version_num = '0009'"))

    with pytest.raises(
        schema.NewerDatabaseError, match="0009 of the schema orders, which this application does"
    ):
        await schema.upgrade(engine, schemas=[orders])

    assert await schema.revision(engine) == "0005"


async def test_a_difference_of_a_team_is_told(engine: AsyncEngine, orders: Schema) -> None:
    await schema.upgrade(engine, schemas=[orders])
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE orders ADD COLUMN paid INTEGER"))

    (told,) = await schema.differences(engine, [orders])

    assert "remove_column" in told
    assert "paid" in told


async def test_a_table_without_a_migration_and_one_without_a_model_are_told(
    orders: Schema, folder: Path
) -> None:
    missing = Schema("orders", migrations=folder, metadata=[TeamBase.metadata, NOTES])
    bare = Schema("orders", migrations=folder)

    (unmade,) = await check([missing])
    (unknown,) = await check([bare])

    assert await check([orders]) == []
    assert "add_table" in unmade
    assert unknown == "a migration creates the table orders, and none of the given metadata contains it"


@pytest.mark.parametrize("name", ["", "Orders", "1st", "a-b", "latchkey", "orders; DROP", "x" * 33, "a\n"])
def test_a_name_of_another_form_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(SchemaError, match="must be 1 to 32"):
        Schema(name, migrations=folder)


def test_a_folder_without_revisions_is_refused(folder: Path) -> None:
    with pytest.raises(SchemaError, match="does not exist"):
        Schema("orders", migrations=folder / "versions")


async def test_an_application_without_a_revision_is_refused(place: Settings, folder: Path) -> None:
    """The schema alone is not, so that `latchkey migrations new` can draft the first revision."""
    schemas = [Schema("orders", migrations=folder.parent)]
    engine = create_engines(place).writer

    with pytest.raises(SchemaError, match="contains no revision: draft the first one with"):
        create_app(place, schemas=schemas)
    with pytest.raises(SchemaError, match="contains no revision: draft the first one with"):
        await schema.upgrade(engine, schemas=schemas)


BROKEN = {
    "x = 1": "Could not determine revision id from filename 0002_x.py",
    'revision, down_revision = "0002", "0007"\ndef upgrade(): ...': "Revision 0007 referenced from .* is not present",
    'revision, down_revision = "0001", None\ndef upgrade(): ...': "Revision 0001 is present more than once",
    'revision, down_revision = "0002", "0002"\ndef upgrade(): ...': "Self-loop is detected in revisions",
    'revision, down_revision = "0002", None\ndef upgrade(): ...': "no revision follows 0001 or 0002, so their order is",
    'revision, down_revision = "0002", "0001"': r"the revision 0002 has no function upgrade\(\)",
}


@pytest.mark.parametrize("text", BROKEN)
def test_revisions_that_cannot_be_run_in_order_are_refused(text: str, folder: Path) -> None:
    """Alembic runs one of two files with the same revision id, and marks both as done."""
    (folder / "0002_x.py").write_text(text)

    with pytest.raises(SchemaError, match=f"the schema orders: the folder .*: {BROKEN[text]}"):
        Schema("orders", migrations=folder)


async def test_a_difference_names_its_constraint(folder: Path) -> None:
    """The name is the difference when a migration left it out."""
    found = MetaData(naming_convention=Base.metadata.naming_convention)
    kinds = (Column("id", Integer, primary_key=True), Column("title", String(100), unique=True, index=False))
    Table("orders", found, *kinds, Column("user_id", ForeignKey(User.id)))

    lines = await check([Schema("orders", migrations=folder, metadata=found)])

    assert [line.rpartition(": ")[2] for line in lines if "add_constraint" in line] == ["uq_orders_title"]


def users_of_a_team() -> MetaData:
    found = MetaData()
    Table("Users", found)
    return found


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        pytest.param(("orders", TeamBase.metadata), "the schema orders is given twice", id="one name"),
        pytest.param(
            ("shop", TeamBase.metadata), "and the schema orders both have a table orders", id="table"
        ),
        pytest.param(("shop", users_of_a_team()), "and Latchkey both have a table Users", id="our table"),
        pytest.param(("shop", Base.metadata), "omit the metadata of latchkey.Base", id="our metadata"),
    ],
)
async def test_two_owners_of_one_table_are_refused_when_the_application_is_built(
    place: Settings, orders: Schema, folder: Path, second: tuple[Any, ...], sentence: str
) -> None:
    other = Schema(second[0], migrations=folder, metadata=second[1])

    with pytest.raises(SchemaError, match=sentence):
        create_app(place, schemas=[orders, other])
