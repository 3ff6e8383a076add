"""With `LATCHKEY_SERVER_TIMING`, responses say what took the time; without it they do not."""

import re

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.settings import Settings
from tests.api import HeldKey, call


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, server_timing=True)


async def test_the_statements_and_the_total_are_in_the_response(app: Starlette, operator: HeldKey) -> None:
    answer = await call(app, "GET", "/v1/users", key=operator)

    header = answer.headers["server-timing"]
    match = re.fullmatch(r'db;dur=([0-9.]+);desc="statements: 2", total;dur=([0-9.]+)', header)
    assert match, header
    assert 0 < float(match[1]) < float(match[2])


@pytest.mark.parametrize("target, status", [("/healthz", 200), ("/unknown", 404)])
async def test_a_response_without_statements_has_it_too(app: Starlette, target: str, status: int) -> None:
    answer = await call(app, "GET", target)

    assert answer.status == status
    assert re.fullmatch(
        r'db;dur=0\.0;desc="statements: 0", total;dur=[0-9.]+', answer.headers["server-timing"]
    )


class TestOff:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, server_timing=False)

    async def test_no_response_has_it(self, app: Starlette, operator: HeldKey) -> None:
        answer = await call(app, "GET", "/v1/users", key=operator)

        assert "server-timing" not in answer.headers
