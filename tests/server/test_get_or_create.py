"""Many clients that ask for the same row at once get one row, and no error (`get_or_create`)."""

import asyncio
from collections.abc import Sequence

import httpx2
import msgspec
import pytest

from latchkey.models import User
from latchkey.service.operation import Operation, route

CLIENTS = 32


class Wanted(msgspec.Struct):
    """The body."""

    email: str


class Found(msgspec.Struct):
    """The answer."""

    id: int
    is_new: bool


async def find_or_create(body: Wanted) -> Found:
    user, is_new = await User.get_or_create(
        email_key=body.email, defaults={"email": body.email, "name": "One"}
    )
    await user.update(name="One of many")
    return Found(user.id, is_new)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (route("POST", "/found", find_or_create, any_key=True),)


async def test_one_row_for_all_clients(client: httpx2.AsyncClient) -> None:
    for round_ in range(3):
        email = f"one{round_}@example.com"
        answers = await asyncio.gather(
            *(client.post("/found", json={"email": email}) for _ in range(CLIENTS))
        )

        assert {one.status_code for one in answers} == {200}
        found = [msgspec.json.decode(one.content, type=Found) for one in answers]
        assert len({one.id for one in found}) == 1
        assert sum(one.is_new for one in found) == 1
        assert await User.filter(email_key=email).count() == 1
