"""`python -m latchkey.migrations.check`: check on an empty SQLite file that the models match the migrations.

With `--app`, `LATCHKEY_APP` or the entry point of an installed package, it also checks those of a team's application.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from latchkey.service.application import installed_application, read_declaration
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings, application_named_in


async def check(schemas: Sequence[schema.Schema] = ()) -> list[str]:
    """Migrate an empty file, and return the differences between it and the models."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(database_url=f"sqlite+aiosqlite:///{Path(folder) / 'check.db'}")
        engine = create_engines(settings).writer
        try:
            await schema.upgrade(engine, schemas=schemas)
            without = await schema.undescribed(engine, schemas)
            return [
                *await schema.differences(engine, schemas),
                *(
                    f"a migration creates the table {name}, and none of the given metadata contains it"
                    for name in without
                ),
            ]
        finally:
            await engine.dispose()


def main() -> int:
    """Print the differences; return 1 when there are any."""
    parser = argparse.ArgumentParser(prog="python -m latchkey.migrations.check", description=__doc__)
    parser.add_argument("--app", default=application_named_in(os.environ), help="as orders:create_app")
    named = parser.parse_args().app or installed_application()
    found = asyncio.run(check(read_declaration(named).schemas if named else ()))
    for line in found:
        sys.stderr.write(f"the models and the migrations differ: {line}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
