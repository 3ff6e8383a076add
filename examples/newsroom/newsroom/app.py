"""The application: Latchkey with the settings, routes, problems and tables of this package."""

import logging
import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.applications import Starlette

from latchkey import Schema, read_settings
from latchkey import create_app as create_latchkey
from newsroom.problems import PROBLEMS
from newsroom.routes import ROUTES


class NewsroomSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a process, from the variables `NEWSROOM_*`."""

    tags_per_article: Annotated[int, Meta(ge=0, le=50)] = 10
    reader_key_days: Annotated[int, Meta(ge=1, le=3650)] = 365


SCHEMA = Schema("newsroom", migrations=Path(__file__).parent / "migrations")


def create_app() -> Starlette:
    """Build the application from the environment."""
    settings = read_settings(NewsroomSettings, os.environ, prefix="NEWSROOM_")
    app = create_latchkey(routes=ROUTES, problems=PROBLEMS, schemas=[SCHEMA], scopes=["articles:moderate"])
    app.state.newsroom = settings
    logging.getLogger("newsroom").setLevel(logging.INFO)
    return app
