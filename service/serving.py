"""The application in a process that does nothing else, as `latchkey serve` runs it."""

import gc
import os

from sqlalchemy.orm import configure_mappers
from starlette.types import ASGIApp

from latchkey.service.app import create_app
from latchkey.service.application import find_factory
from latchkey.service.settings import application_named_in

NEW_OBJECTS = 20_000  # more than are made before the collector looks for garbage among them


def create_served_app() -> ASGIApp:
    """Build the application that the environment names, and take what is there by then out of the garbage collector's way.

    Modules, mappers and routes live as long as the process does. To look through all of them again and again for
    garbage stops every request of the worker, for tens of milliseconds each time. What requests leave behind is hardly
    ever garbage either: it goes when its last user does, so looking for it is worth that many new objects.
    """
    named = application_named_in(os.environ)
    app = create_app() if named is None else find_factory(named)()
    configure_mappers()  # else the first query does it
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
    return app
