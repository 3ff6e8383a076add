"""An endpoint may return its content in a further media type, which its route declares."""

import logging
from collections.abc import Sequence

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.openapi import document
from latchkey.service.operation import Answer, Operation, Text, route
from tests.api import assert_problem, call


class Format(msgspec.Struct, frozen=True):
    media_type: str = ""


class Greeting(msgspec.Struct):
    words: str


async def greet(query: Format) -> Answer:
    if not query.media_type:
        return Answer(content=Greeting(words="grüezi"))
    text = Text(content="grüezi", media_type=query.media_type)
    return Answer(content=text, headers={"x-greeting": "yes"})


GREET = route("GET", "/greeting", greet, public=True, answers=Greeting, also=("text/plain",))


@pytest.fixture
def routes() -> Sequence[Operation]:
    return [GREET]


async def test_it_is_sent_as_text_with_its_headers(app: Starlette) -> None:
    as_json = await call(app, "GET", "/greeting")
    as_text = await call(app, "GET", "/greeting?media_type=text/plain")

    assert as_json.json == {"words": "grüezi"}
    assert dict(as_json.headers)["content-type"] == "application/json"
    assert as_text.body == "grüezi".encode()
    assert dict(as_text.headers)["content-type"] == "text/plain; charset=utf-8"
    assert dict(as_text.headers)["content-length"] == "7"
    assert dict(as_text.headers)["x-greeting"] == "yes"


async def test_a_media_type_that_the_route_does_not_declare_is_a_fault(
    app: Starlette, log_lines: list[logging.LogRecord]
) -> None:
    answer = await call(app, "GET", "/greeting?media_type=text/html")

    assert_problem(answer, 500, "internal_error")
    errors = [line.exc_info[1] for line in log_lines if line.exc_info]
    assert [str(error) for error in errors] == ["greet: the route does not declare text/html in `also`."]


def test_openapi_lists_both_media_types() -> None:
    content = document([GREET])["paths"]["/greeting"]["get"]["responses"]["200"]["content"]

    assert list(content) == ["application/json", "text/plain"]
    assert content["text/plain"] == {"schema": {"type": "string"}}
