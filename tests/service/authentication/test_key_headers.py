"""The secret of a bearer key in a header that the operator names."""

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.settings import Settings, SettingsError, read_key_headers
from tests import wire
from tests.api import assert_problem, call, hold_key
from tests.service.authentication.signed_requests import Attempt, HeldKeys, MakeAttempt, header, signed


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, key_headers="X-API-Key, Api-Key")


@pytest.mark.parametrize("name", ["x-api-key", "api-key"])
async def test_a_key_in_a_named_header_is_accepted(app: Starlette, held_keys: HeldKeys, name: str) -> None:
    with wire.listening() as commands:
        answer = await header(name, held_keys.bearer.secret).send(app)

    assert (answer.status, answer.json["key"]["access_key"]) == (200, held_keys.bearer.access_key)
    assert answer.headers["cache-control"] == "private, no-store"
    assert len(commands) == 1


@pytest.mark.parametrize(
    "make_attempt, word",
    [
        pytest.param(lambda c: header("x-api-key", ""), "empty", id="empty"),
        pytest.param(lambda c: header("x-api-key", f"Bearer {c.bearer.secret}"), "`Bearer`", id="with the scheme"),
        pytest.param(lambda c: header("x-api-key", f'"{c.bearer.secret}"'), "quotes", id="in quotes"),
        pytest.param(lambda c: header("x-api-key", c.bearer.access_key), "access key", id="the access key"),
        pytest.param(lambda c: header("x-api-key", c.bearer.secret[:-1]), "missing", id="cut off"),
        pytest.param(lambda c: header("x-api-key", "A" * 9000), "nothing else", id="too long"),
        pytest.param(
            lambda c: header("x-api-key", c.bearer.secret).adding(("x-api-key", c.bearer.secret)),
            "more than one header", id="twice",
        ),
        pytest.param(
            lambda c: header("x-api-key", c.bearer.secret).adding(("api-key", c.bearer.secret)),
            "more than one header", id="in two headers",
        ),
    ],
)  # fmt: skip
async def test_a_wrong_shape_is_named(
    app: Starlette, held_keys: HeldKeys, make_attempt: MakeAttempt, word: str
) -> None:
    with wire.listening() as commands:
        answer = await make_attempt(held_keys).send(app)

    assert_problem(answer, 401, "unauthenticated")
    assert word in answer.json["detail"]
    assert commands == []
    assert 'ApiKey realm="latchkey", header="X-API-Key"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "make_attempt",
    [
        pytest.param(lambda c: header("x-api-key", "x").adding(c.bearer.bearer), id="and a bearer"),
        pytest.param(lambda c: signed(c.signer).adding(("x-api-key", "")), id="and a signed query"),
        pytest.param(lambda c: header("x-api-key", "x").adding(("signature", "x")), id="and a message"),
    ],
)
async def test_a_second_credential_is_refused(
    app: Starlette, held_keys: HeldKeys, make_attempt: MakeAttempt
) -> None:
    assert_problem(await make_attempt(held_keys).send(app), 400, "two_credentials")


async def test_an_unknown_key_and_the_secret_of_a_signing_key_get_the_same_answer(
    app: Starlette, held_keys: HeldKeys
) -> None:
    answers = [
        await header("x-api-key", key.secret).send(app, ("x-request-id", "same"))
        for key in (held_keys.unknown, held_keys.signer)
    ]

    assert_problem(answers[0], 401, "unauthenticated")
    assert answers[0].body == answers[1].body


async def test_a_key_in_the_query_is_never_accepted(app: Starlette, held_keys: HeldKeys) -> None:
    for name in ("x-api-key", "X-API-Key", "api_key", "access_token"):
        answer = await Attempt(f"/v1/me?{name}={held_keys.bearer.secret}").send(app)
        assert_problem(answer, 401, "unauthenticated")
        assert "exposed" in answer.json["detail"]
        assert held_keys.bearer.secret not in answer.body.decode()


async def test_openapi_names_the_header(app: Starlette) -> None:
    document = (await call(app, "GET", "/openapi.json")).json

    schemes = document["components"]["securitySchemes"]
    assert [schemes[f"key_header_{name}"]["name"] for name in ("x_api_key", "api_key")] == [
        "X-API-Key",
        "Api-Key",
    ]
    assert {"key_header_x_api_key": []} in document["paths"]["/v1/me"]["get"]["security"]


class TestWithoutTheSetting:
    """No header but `Authorization` carries a key."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, key_headers=None)

    async def test_the_header_is_no_credential(self, app: Starlette) -> None:
        key = await hold_key(app)

        refused = await call(app, "GET", "/v1/me", headers=[("x-api-key", key.secret)])
        taken = await call(app, "GET", "/v1/me", key=key, headers=[("x-api-key", "x")])

        assert_problem(refused, 401, "unauthenticated")
        assert taken.status == 200


@pytest.mark.parametrize(
    "text, names", [(None, ()), ("", ()), ("X-API-Key", ("X-API-Key",)), ("A , B", ("A", "B"))]
)
def test_names_are_read(text: str | None, names: tuple[str, ...]) -> None:
    assert read_key_headers(text) == names


@pytest.mark.parametrize(
    "text, words",
    [
        ("Authorization", "another meaning"),
        ("x-api-key,SECRET", "another meaning"),
        ("host", "another meaning"),
        ("x-api-key,X-Api-Key", "given twice"),
        ("x api", "not the name"),
        ("x-api-key,", "not the name"),
        ("x_api\n", "not the name"),
        (",".join(f"x-{n}" for n in range(11)), "at most 10"),
    ],
)
def test_a_wrong_name_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_key_headers(text)
