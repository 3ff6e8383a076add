"""`StatusInHeadersMiddleware`: a proxy gets only the statuses that it passes on."""

import json
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp

from latchkey.middleware.status_in_headers import LONGEST_PROBLEM, StatusInHeadersMiddleware
from tests.requests import Answer, request

PATH = "/gate"


async def ask(answer: ASGIApp, path: str = PATH) -> Answer:
    return await request(StatusInHeadersMiddleware(answer, paths={PATH}, passed={401, 403}), "GET", path)


def problem(status: int, **others: Any) -> JSONResponse:
    content = {"code": "a_code", "detail": "A detail.", "status": status, **others}
    return JSONResponse(content, status, {"retry-after": "7"})


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_a_success_is_unchanged(status: int) -> None:
    answer = await ask(PlainTextResponse("fine" if status == 200 else "", status))

    assert (answer.status, answer.starts) == (status, 1)
    assert "x-latchkey-status" not in answer.headers


@pytest.mark.parametrize(
    "status, sent",
    [(401, 401), (403, 403), (400, 403), (404, 403), (408, 403), (413, 403), (429, 403), (500, 403), (503, 403), (302, 403)],
)  # fmt: skip
async def test_a_refusal_carries_its_status(status: int, sent: int) -> None:
    answer = await ask(problem(status))

    assert (answer.status, answer.headers["x-latchkey-status"]) == (sent, str(status))
    assert (answer.headers["x-latchkey-code"], answer.headers["retry-after"]) == ("a_code", "7")
    assert json.loads(answer.headers["x-latchkey-problem"]) == answer.json
    assert (answer.starts, answer.complete) == (1, True)


async def test_another_path_is_unchanged() -> None:
    assert (await ask(problem(429), "/gate/")).status == 429


async def test_a_problem_is_ascii_and_bounded() -> None:
    answer = await ask(problem(400, detail="é\n" * 1000))

    carried = answer.headers["x-latchkey-problem"]
    assert carried.isascii()
    assert carried.isprintable()
    assert len(carried) <= LONGEST_PROBLEM
    assert json.loads(carried)["code"] == "a_code"


async def test_an_answer_that_is_no_problem_has_its_status() -> None:
    async def parts() -> Any:
        yield b"<html>"
        yield b"</html>"

    answer = await ask(StreamingResponse(parts(), 502))

    assert (answer.status, answer.headers["x-latchkey-status"], answer.body) == (403, "502", b"<html></html>")
    assert "x-latchkey-code" not in answer.headers
