"""The application in a process that only serves it, as started by `latchkey serve`."""

import gc
import os

from sqlalchemy.orm import configure_mappers
from starlette.types import ASGIApp

from latchkey.service import logs
from latchkey.service.app import create_app
from latchkey.service.application import find_factory
from latchkey.service.settings import application_named_in

NEW_OBJECTS = 20_000  # the number of new objects after which the garbage collector runs


def create_served_app() -> ASGIApp:
    """Build the application that the environment names, and exclude the existing objects from garbage collection.

    Modules, mappers and routes live as long as the process. Scanning all of them for garbage again and again stops every
    request of the worker, for tens of milliseconds each time. Objects of requests are hardly ever garbage either: reference
    counting frees them. A collection is therefore worth it only after many new objects.
    """
    logs.configure_process()
    named = application_named_in(os.environ)
    app = create_app() if named is None else find_factory(named)()
    configure_mappers()  # otherwise the first query would do it
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
    return app
