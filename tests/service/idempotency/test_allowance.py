"""The number of stored answers of an access key is limited."""

import asyncio
from collections import Counter

import pytest
from starlette.applications import Starlette

from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem, hold_key
from tests.conftest import KEYRING
from tests.service.idempotency.endpoints import ANN, is_replay, rows, send

LIMIT = 3


@pytest.fixture
def settings(database_url: str, limit: int) -> Settings:
    return Settings(
        database_url=database_url,
        keyring=KEYRING,
        pool_size=2,
        pool_timeout_s=10.0,
        stored_answers_per_key=limit,
    )


@pytest.fixture
def limit(request: pytest.FixtureRequest) -> int:
    return getattr(request, "param", LIMIT)


def person(number: int) -> dict[str, str]:
    return {**ANN, "email": f"p{number}@example.com"}


async def test_beyond_the_bound_nothing_is_changed_and_replays_go_on(
    app: Starlette, operator: HeldKey
) -> None:
    answers = [await send(app, key=operator, body=person(one), once=str(one)) for one in range(LIMIT + 2)]
    replay = await send(app, key=operator, body=person(0), once="0")
    other = await send(app, key=await hold_key(app), body=person(9), once="9")

    assert [one.status for one in answers[:LIMIT]] == [201] * LIMIT
    for one in answers[LIMIT:]:
        assert_problem(one, 429, "too_many_stored_answers")
        assert 0 < int(one.headers["retry-after"]) <= 25 * 60 * 60
    assert is_replay(replay)
    assert other.status == 201
    assert len(await rows(app)) == LIMIT + 1


async def test_a_call_that_stores_no_answer_does_not_count(app: Starlette, operator: HeldKey) -> None:
    for one in range(LIMIT + 2):
        assert_problem(
            await send(app, "/v1/users", key=operator, body=b"{", once=f"f{one}"), 400, "malformed_json"
        )
    await send(app, key=operator, body=person(0), once="first")
    for one in range(LIMIT + 2):
        assert_problem(await send(app, key=operator, body=person(0), once=f"t{one}"), 409, "email_taken")

    answers = [await send(app, key=operator, body=person(one), once=str(one)) for one in range(1, LIMIT)]

    assert [one.status for one in answers] == [201] * (LIMIT - 1)


async def test_calls_at_the_same_moment_do_not_pass_the_bound_together(
    app: Starlette, operator: HeldKey
) -> None:
    answers = await asyncio.gather(
        *(
            asyncio.create_task(send(app, key=operator, body=person(one), once=str(one)))
            for one in range(LIMIT * 3)
        )
    )

    assert Counter(one.status for one in answers) == {201: LIMIT, 429: LIMIT * 2}
    assert len(await rows(app)) == LIMIT


@pytest.mark.parametrize("limit", [64 * 3], indirect=True)
async def test_within_a_share_nothing_is_asked(app: Starlette, operator: HeldKey) -> None:
    await send(app, key=operator, body=person(0), once="0")

    costs = []
    for one in range(1, 4):
        with wire.listening() as commands:
            assert (await send(app, key=operator, body=person(one), once=str(one))).status == 201
        costs.append(sum("limit_counters" in command for command in commands))

    assert costs[:2] == [0, 0]
    assert costs[2] > 0
