"""Rules, and the headers of answers about them."""

from typing import Any

import http_sf
from starlette.applications import Starlette

from latchkey.models import User
from latchkey.models.limit import Quota, RateLimit
from tests.requests import Answer

MINUTE_S = 60


def limit(name: str = "burst", limit: int = 2, window_s: int = MINUTE_S) -> RateLimit:
    return RateLimit(name=name, limit=limit, window_s=window_s)


def per_day(limit: int) -> Quota:
    return Quota(limit=limit, per="day")


async def limit_owner(app: Starlette, user_id: int, *limits: RateLimit, quota: Quota | None = None) -> None:
    """Limit all keys of a user together."""
    async with app.state.db.scoped_session() as session:
        await (await User.filter_by(id=user_id).one()).update(limits=limits, quota=quota)
        await session.commit()


def policy(answer: Answer) -> dict[str, dict[str, Any]]:
    """Parse `RateLimit-Policy` as a structured list."""
    return listed(answer, "ratelimit-policy")


def standing(answer: Answer) -> dict[str, dict[str, Any]]:
    """Parse `RateLimit` as a structured list."""
    return listed(answer, "ratelimit")


def remaining(answer: Answer) -> dict[str, int]:
    """Return the rest of each rule."""
    return {name: parameters["r"] for name, parameters in standing(answer).items()}


def listed(answer: Answer, name: str) -> dict[str, dict[str, Any]]:
    items: Any = http_sf.parse(answer.headers[name].encode(), tltype="list")
    assert len({text for text, _ in items}) == len(items)
    return dict(items)
