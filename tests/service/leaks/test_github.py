"""GitHub's secret scanning partner protocol, with keys of our own in the form of GitHub's list."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.datastructures import Headers

from latchkey.service.app import create_app
from latchkey.service.authentication.wire.credentials import new_secret
from latchkey.service.leaks.github import read_public_keys, read_signature
from latchkey.service.leaks.public_keys import (
    LARGEST_LIST_BYTES,
    PublicKeys,
    UnreadableKeysError,
    open_public_keys,
    read_url,
)
from latchkey.service.settings import Settings, SettingsError
from tests import wire
from tests.api import assert_problem, call, hold_key
from tests.conftest import on_mariadb, opened
from tests.receiver import receiving
from tests.requests import Answer
from tests.service.audit.events import events

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PATH = "/v1/leaks/github"
KEY_ID = "bcb53661c06b4728e59d897fb6165d5c9cda0fd9cdf9d09ead458168deb7518c"
PRIVATE = ec.generate_private_key(ec.SECP256R1())
DOCUMENTED_BODY = b'[{"source":"commit","token":"some_token","type":"some_type","url":"https://example.com/base-repo-url/"}]'


def listed(key: Any = PRIVATE, identifier: str = KEY_ID) -> bytes:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return json.dumps(
        {"public_keys": [{"key_identifier": identifier, "key": pem, "is_current": True}]}
    ).encode()


def signature_of(body: bytes, key: ec.EllipticCurvePrivateKey = PRIVATE) -> str:
    return base64.b64encode(key.sign(body, ec.ECDSA(SHA256()))).decode()


def match(secret: str, **others: Any) -> dict[str, Any]:
    return {"token": secret, "type": "latchkey_secret", "url": "", "source": "commit", **others}


async def send(
    app: Starlette, body: bytes, *, signature: str | None = None, identifier: str = KEY_ID
) -> Answer:
    headers = [
        ("content-type", "application/json"),
        ("github-public-key-identifier", identifier),
        ("github-public-key-signature", signature or signature_of(body)),
    ]
    return await call(app, "POST", PATH, body=body, headers=headers)


@pytest.fixture
async def app(settings: Settings, loggers: None, tmp_path: Path) -> AsyncIterator[Starlette]:
    file = tmp_path / "github-keys.json"
    file.write_bytes(listed())
    settings = msgspec.structs.replace(settings, github_public_keys=str(file), auth_failures_per_min=3)
    async with opened(lambda: create_app(settings), settings) as app:
        yield app


async def test_a_signed_report_revokes_keys_and_labels_each_match(app: Starlette) -> None:
    leaked = await hold_key(app)
    unknown = new_secret("lk")
    url = "https://github.com/octocat/Hello-World/blob/main/.env"
    body = json.dumps([match(leaked.secret, url=url), match(unknown, note="a new field")]).encode()

    answer = await send(app, body)

    assert answer.status == 200, answer.body
    assert answer.json == [
        {
            "token_hash": hashlib.sha256(secret.encode()).hexdigest(),
            "token_type": "latchkey_secret",
            "label": label,
        }
        for secret, label in ((leaked.secret, "true_positive"), (unknown, "false_positive"))
    ]
    assert_problem(await call(app, "GET", "/v1/me", key=leaked), 401, "key_revoked")
    event = (await events())[-1]
    assert (event.actor_kind, event.action) == ("anonymous", "key.exposed")
    assert event.after["exposed"] == {"secret_version": 1, "source": "github", "url": url}


@on_sqlite
async def test_a_report_that_github_did_not_sign_is_refused(app: Starlette) -> None:
    leaked = await hold_key(app)
    body = json.dumps([match(leaked.secret)]).encode()
    other = ec.generate_private_key(ec.SECP256R1())

    refused = [
        await send(app, body, signature=signature_of(body, other)),
        await send(app, body, signature=signature_of(body + b" ")),
        await send(app, body, identifier="0" * 64),
    ]
    too_many = await send(app, body)

    for answer in refused:
        assert_problem(answer, 401, "unauthenticated")
    assert {answer.json["detail"] for answer in refused} == {"Not authenticated."}
    assert_problem(too_many, 429, "too_many_failures")
    assert (await call(app, "GET", "/v1/me", key=leaked)).status == 200


@on_mariadb
async def test_a_refused_report_and_one_without_secrets_cost_no_query(app: Starlette) -> None:
    secret = new_secret("lk")
    wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")

    with wire.listening() as commands:
        refused = await send(app, DOCUMENTED_BODY, signature="AAAA")
        labelled = await send(app, json.dumps([match(wrong)]).encode())

    assert (refused.status, labelled.status) == (401, 200)
    assert labelled.json[0]["label"] == "false_positive"
    assert not commands


@on_sqlite
async def test_the_path_does_not_exist_without_keys(settings: Settings, loggers: None) -> None:
    async with opened(lambda: create_app(settings), settings) as app:
        assert_problem(await send(app, b"[]"), 404, "not_found")


def test_the_example_of_the_protocol_is_read() -> None:
    # The values of the sample request in GitHub's documentation of the protocol.
    signature = (
        "MEQCIQDaMKqrGnE27S0kgMrEK0eYBmyG0LeZismAEz/BgZyt7AIfXt9fErtRS4XaeSt/AO1RtBY66YcAdjxji410VQV4xg=="
    )
    found = read_signature(
        Headers({"Github-Public-Key-Identifier": KEY_ID, "Github-Public-Key-Signature": signature})
    )

    assert found is not None
    assert found.identifier == KEY_ID
    assert not found.proves(PRIVATE.public_key(), DOCUMENTED_BODY)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param([], id="none"),
        pytest.param([(b"github-public-key-identifier", b"a")], id="no signature"),
        pytest.param([(b"github-public-key-signature", b"AAAA")], id="no identifier"),
        pytest.param(
            [(b"github-public-key-identifier", b"a"), *[(b"github-public-key-signature", b"AAAA")] * 2],
            id="twice",
        ),
        pytest.param(
            [(b"github-public-key-identifier", b"a b"), (b"github-public-key-signature", b"AAAA")],
            id="identifier",
        ),
        pytest.param(
            [(b"github-public-key-identifier", b"a"), (b"github-public-key-signature", b"AAB=")], id="base64"
        ),
        pytest.param(
            [(b"github-public-key-identifier", b"a"), (b"github-public-key-signature", b"A" * 132)], id="long"
        ),
    ],
)
def test_an_ill_formed_signature_is_none(raw: list[tuple[bytes, bytes]]) -> None:
    assert read_signature(Headers(raw=raw)) is None


@pytest.mark.parametrize(
    "content, fault",
    [
        pytest.param(b"{", "no list|not a list", id="no JSON"),
        pytest.param(b'{"public_keys":[]}', "not a list", id="empty"),
        pytest.param(b'{"public_keys":[{"key_identifier":"a","key":"b"}]}', "key a is not", id="no PEM"),
        pytest.param(listed(ec.generate_private_key(ec.SECP384R1()), "b"), "key b is not", id="curve"),
    ],
)
def test_a_wrong_list_of_keys_is_refused(content: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_public_keys(content)


class Source:
    """A list of keys that a test changes, and the number of times that it was read."""

    def __init__(self) -> None:
        self.content: bytes | None = listed()
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        if self.content is None:
            raise UnreadableKeysError("gone")
        return self.content


async def test_the_list_is_read_again_for_an_unknown_key_at_most_once_a_minute() -> None:
    now, source = [0.0], Source()
    keys = PublicKeys(source.read, clock=lambda: now[0])

    assert await keys.find(KEY_ID) is not None
    source.content = listed(identifier="new")
    assert await keys.find("new") is None
    now[0] = 61
    assert await keys.find("new") is not None
    assert await keys.find("none") is None
    assert source.reads == 2
    source.content = None
    now[0] = 7200
    assert await keys.find("new") is not None
    assert source.reads == 3


async def test_keys_that_were_never_read_are_an_error_of_the_service() -> None:
    source = Source()
    source.content = None
    keys = PublicKeys(source.read)

    for _ in range(2):
        with pytest.raises(UnreadableKeysError):
            await keys.find(KEY_ID)
    assert source.reads == 1


async def test_the_list_is_read_from_a_url_within_bounds() -> None:
    async with receiving() as receiver:
        receiver.answer = lambda _: answered(listed())
        assert read_public_keys(await read_url(receiver.url)).keys() == {KEY_ID}

        for content, fault in (
            (answered(b"x" * (LARGEST_LIST_BYTES + 1)), "more than"),
            (b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", "answered with 302"),
            (None, "the connection"),
        ):
            receiver.answer = always(content)
            with pytest.raises(UnreadableKeysError, match=fault):
                await read_url(receiver.url)


def answered(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content)


def always(content: bytes | None) -> Any:
    return lambda _: content


@pytest.mark.parametrize(
    "place", ["http://keys.example.com/", "ftp://keys.example.com/", "https://[/", "absent.json"]
)
def test_a_wrong_setting_stops_the_start(place: str) -> None:
    with pytest.raises(SettingsError, match="LATCHKEY_GITHUB_PUBLIC_KEYS"):
        open_public_keys(Settings(github_public_keys=place))
