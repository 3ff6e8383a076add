"""`python -m latchkey.migrations.check`: the models match the migrations, tried on an empty SQLite file."""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings


async def check(schemas: Sequence[schema.Schema] = ()) -> list[str]:
    """Migrate an empty file and list where the models differ from it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(database_url=f"sqlite+aiosqlite:///{Path(folder) / 'check.db'}")
        engine = create_engines(settings).writer
        try:
            await schema.upgrade(engine, schemas=schemas)
            without = await schema.undescribed(engine, schemas)
            return [
                *await schema.differences(engine, schemas),
                *(
                    f"the table {name} is made by a migration, and no metadata that is given has it"
                    for name in without
                ),
            ]
        finally:
            await engine.dispose()


if __name__ == "__main__":
    found = asyncio.run(check())
    for line in found:
        sys.stderr.write(f"the models and the migrations differ: {line}\n")
    sys.exit(1 if found else 0)
