"""The application: Latchkey with the routes, problems and tables of this package."""

import logging
import os
from pathlib import Path

from starlette.applications import Starlette

from latchkey import Schema, read_settings
from latchkey import create_app as create_latchkey
from newsroom.problems import PROBLEMS
from newsroom.routes import ROUTES
from newsroom.settings import NewsroomSettings

SCHEMA = Schema("newsroom", migrations=Path(__file__).parent / "migrations")


def create_app() -> Starlette:
    """Build the application from the environment."""
    settings = read_settings(NewsroomSettings, os.environ, prefix="NEWSROOM_")
    app = create_latchkey(routes=ROUTES, problems=PROBLEMS, schemas=[SCHEMA], scopes=["articles:moderate"])
    app.state.newsroom = settings
    logging.getLogger("newsroom").setLevel(logging.INFO)
    return app
