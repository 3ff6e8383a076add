"""The draft of a team's next migration: the difference between its models and the migrated database."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import ops
from alembic.util import rev_id
from sqlalchemy import BigInteger, Connection, Integer, MetaData
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import TypeEngine

from latchkey.migrations import steps
from latchkey.models import Base, types
from latchkey.models.table_options import OPTIONS
from latchkey.service.database.schema import OURS, Schema, SchemaError, Tables, comparison, heads, tables_of

LINE = 87  # characters, and a comma
MESSAGE = re.compile(r'[^\x00-\x1f\x7f"\\]{1,100}')
"""A message that can stand in a docstring."""

REVISION = '''"""{message}."""

{imports}

revision = "{revision}"
down_revision = {previous}
branch_labels = None
depends_on = None


def upgrade() -> None:
{body}
'''


class Draft(msgspec.Struct, frozen=True):
    """A revision that was written, and the columns that existing rows cannot have yet."""

    path: Path
    without_value: tuple[str, ...]


async def draft(
    engine: AsyncEngine, schema: Schema, message: str, *, schemas: Iterable[Schema], empty: bool = False
) -> Draft | None:
    """Write the next revision of a schema; return None if its models equal the database.

    Tables of Latchkey and of the other schemas are left out, and a table without a model is never dropped.

    Args:
        engine: of a database with all revisions of the schema.
        schema: gets the revision.
        message: for the docstring of the revision and the name of its file.
        schemas: all of the application.
        empty: write a revision without steps, to be completed by hand.

    Raises:
        SchemaError: a foreign key refers to a column of another integer type.
    """
    every = [Base.metadata, *schema.metadata]
    foreign = tables_of(one for other in schemas if other is not schema for one in other.metadata)
    tables = frozenset(
        (place, name) for place, name in tables_of(every) - foreign if place is not None or name not in OURS
    )
    require_equal_types(every, tables)
    found = ops.UpgradeOps([])
    typed = Types()
    body = "    pass"
    if not empty:
        async with engine.connect() as connection:
            found = await connection.run_sync(differences, every, tables)
            if found.is_empty():
                return None
            body = await connection.run_sync(render, found, typed)
    revision, previous = next_revision(schema)
    words = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")[:40].strip("_")
    path = schema.folder / f"{'_'.join(filter(None, (revision, words)))}.py"
    with path.open("x", encoding="utf-8") as file:
        file.write(
            REVISION.format(
                message=message.rstrip("."),
                imports=typed.imports(body),
                revision=revision,
                previous="None" if previous is None else f'"{previous}"',
                body=body,
            )
        )
    return Draft(path, tuple(without_value(found)))


def require_equal_types(every: Iterable[MetaData], tables: Tables) -> None:
    """Raise an error for a foreign key that SQLite accepts, and MariaDB and MySQL refuse when it is created."""
    dialect = mysql.dialect()
    for table in (one for metadata in every for one in metadata.tables.values()):
        if (table.schema, table.name) not in tables:
            continue
        for key in table.foreign_keys:
            kinds = [one.type for one in (key.parent, key.column)]
            names = [one.compile(dialect) for one in kinds if isinstance(one, Integer)]
            if len(names) == len(kinds) and names[0] != names[1]:
                raise SchemaError(
                    f"{key.parent} is {names[0]} and refers to {key.column}, which is {names[1]}: use the same type, such as "
                    "BigId for ids, because MariaDB and MySQL refuse the foreign key."
                )


def next_revision(schema: Schema) -> tuple[str, str | None]:
    """Return the id of the next revision, and that of the one before: numbers go on, other ids are random."""
    previous = next(iter(heads(schema)), None)
    if previous is None:
        return "0001", None
    following = str(int(previous) + 1).zfill(len(previous)) if re.fullmatch("[0-9]+", previous) else rev_id()
    return following, previous


def differences(connection: Connection, every: list[MetaData], tables: Any) -> ops.UpgradeOps:
    """Compare the models with the database, and complete the result for MariaDB and MySQL."""
    script = produce_migrations(comparison(connection, tables), every)  # type: ignore[arg-type]  # it accepts several, too
    found = script.upgrade_ops or ops.UpgradeOps([])
    for changed in found.ops:
        if isinstance(changed, ops.ModifyTableOps):  # no column that a foreign key uses can be changed
            changed.ops.sort(key=lambda one: not isinstance(one, ops.DropConstraintOp))
    described = {(one.schema, one.name): one for metadata in every for one in metadata.tables.values()}
    for one in operations(found):
        if isinstance(one, ops.CreateTableOp):
            one.kw = {**OPTIONS, **one.kw}
        elif isinstance(one, ops.AlterColumnOp) and one.modify_type is None:
            # The type that the database reports may lack a part, such as the microseconds, and MODIFY sets the whole.
            one.existing_type = described[one.schema, one.table_name].columns[one.column_name].type
    return found


def operations(container: ops.OpContainer) -> Iterable[ops.MigrateOperation]:
    """Return the operations, those on one table included."""
    for one in container.ops:
        if isinstance(one, ops.OpContainer):
            yield from operations(one)
        else:
            yield one


def without_value(found: ops.UpgradeOps) -> Iterable[str]:
    """Return the new columns that need a value in existing rows, and have none."""
    for one in operations(found):
        if isinstance(one, ops.AddColumnOp) and not (
            one.column.nullable or one.column.server_default is not None
        ):
            yield f"{one.table_name}.{one.column.name}"


class Types:
    """Render column types as a migration can import them, and collect the imports."""

    def __init__(self) -> None:
        self.public: set[str] = set()
        self.others: set[str] = set()

    def __call__(self, kind: str, found: Any, _context: Any) -> str | Literal[False]:
        """Return the text of a type; False for what Alembic renders itself."""
        if kind != "type":
            return False
        module = type(found).__module__
        if is_big_id(found):
            self.public.add("BigId")
            return "BigId"
        if isinstance(found, types.Json):
            return "sa.Text()"  # the type of the values may change, their column does not
        if module == types.__name__:
            self.public.add(type(found).__name__)
            return repr(found)
        if module.startswith("sqlalchemy.dialects."):
            self.others.add(f"from sqlalchemy.dialects import {module.split('.')[2]}")
        elif not module.startswith("sqlalchemy."):
            self.others.add(f"import {module}")
        return False

    def imports(self, body: str) -> str:
        """Return the imports of a revision: those of its types, and the modules that its steps need."""
        if "sa." in body:
            self.others.add("import sqlalchemy as sa")
        if " op." in body:
            self.others.add("from alembic import op")
        self.public |= {"steps"} if "steps." in body else set()
        lines = sorted(self.others, key=lambda line: line.startswith("from"))
        if self.public:
            lines.append(f"\nfrom latchkey import {', '.join(sorted(self.public))}")
        return "\n".join(lines).strip()


def is_big_id(found: TypeEngine[Any]) -> bool:
    """Return whether a type is `BigId`, or the copy of it that a foreign key has."""
    return type(found) is BigInteger and type(found.dialect_impl(sqlite.dialect())) is not BigInteger


def render(connection: Connection, found: ops.UpgradeOps, typed: Types) -> str:
    """Return the body of `upgrade`: steps that can be run again, in place of Alembic's operations."""
    text = render_python_code(
        found, render_item=typed, migration_context=MigrationContext.configure(connection)
    )
    tree = ByStep().visit(ast.parse(f"if True:\n{text}").body[0])
    return "\n".join(laid_out(one.value, "    ") for one in tree.body if isinstance(one, ast.Expr))


class ByStep(ast.NodeTransformer):
    """Call steps in place of operations, and write names without the mark of Alembic's naming convention."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replace `op.create_table(…)` by `steps.create_table(…)`, and `op.f('a_name')` by `'a_name'`."""
        self.generic_visit(node)
        node.keywords = [one for one in node.keywords if ast.unparse(one) != "unique=False"]  # the default
        match node.func:
            case ast.Attribute(value=ast.Name(id="op"), attr="f"):
                return node.args[0]
            case ast.Attribute(value=ast.Name(id="op") as module, attr=attr) if attr in steps.__all__:
                module.id = "steps"
        return node


def laid_out(node: ast.expr, indent: str) -> str:
    """Return an expression as text; a call that does not fit into a line has a line for each argument."""
    line = indent + ast.unparse(node)
    if len(line) <= LINE or not isinstance(node, ast.Call):
        return line
    inner = indent + "    "
    arguments = [
        *(laid_out(one, inner) for one in node.args),
        *(f"{inner}{one.arg}={laid_out(one.value, inner).lstrip()}" for one in node.keywords),
    ]
    return "\n".join((f"{indent}{ast.unparse(node.func)}(", *(f"{one}," for one in arguments), f"{indent})"))
