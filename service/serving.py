"""The application in a process that does nothing else, as `latchkey serve` runs it."""

import gc

from sqlalchemy.orm import configure_mappers
from starlette.applications import Starlette

from service.app import create_app


def create_served_app() -> Starlette:
    """Build the application from the environment, and take what is there by then out of the garbage collector's way.

    Modules, mappers and routes live as long as the process does. To look through all of them again and again for
    garbage stops every request of the worker, for tens of milliseconds each time.
    """
    app = create_app()
    configure_mappers()  # else the first query does it
    gc.collect()
    gc.freeze()
    return app
