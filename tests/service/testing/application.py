"""An application as a team builds it, which reads the time of its database."""

from datetime import datetime

import msgspec
from sqlalchemy import func, select
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey import create_app as create_latchkey
from latchkey import route, utc_now

APP = "tests.service.testing.application:create_app"


class Times(msgspec.Struct):
    of_latchkey: datetime
    of_sqlalchemy: datetime


async def read_times(request: Request) -> Times:
    """Read the time of the database, in both ways."""
    row = (await request.state.session.execute(select(utc_now(), func.now()))).one()
    return Times(row[0], row[1])


def create_app() -> Starlette:
    return create_latchkey(routes=[route("GET", "/v1/times", read_times, public=True)])
