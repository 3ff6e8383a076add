"""A key with allowed networks works only from there, whatever a client claims."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from latchkey.service.app import create_app
from latchkey.service.settings import Settings, SettingsError
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key, key_row, stored
from tests.conftest import KEYRING
from tests.requests import Answer
from tests.service.authentication.signed_requests import NOW, HeldKeys, bearer, mac, signed

PROXY = "10.0.0.1"
OFFICE = ["192.0.2.0/24", "2001:db8::/32"]
PAST = (NOW - 1, NOW)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, trusted_proxies="10.0.0.0/8, fd00::/8")


@pytest.fixture
async def office_key(app: Starlette) -> HeldKey:
    """Return a key that may be used only from the office."""
    return await hold_key(app, allowed_networks=OFFICE)


def seen_from(app: Starlette, peer: str | None) -> ASGIApp:
    """Return the application as called from `peer`; None is a Unix socket."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "client": peer and (peer, 50000)}, receive, send)

    return called


async def ask(
    app: Starlette,
    key: HeldKey,
    peer: str | None,
    *forwarded_for: Any,
    method: str = "GET",
    target: str = "/v1/me",
) -> Answer:
    headers = [("x-forwarded-for", value) for value in forwarded_for]
    return await call(app, method, target, key=key, headers=headers, wrap=seen_from(app, peer))


ALLOWED = [
    pytest.param("192.0.2.7", [], id="IPv4"),
    pytest.param("2001:db8::7", [], id="IPv6"),
    pytest.param("::ffff:192.0.2.7", [], id="IPv4 seen by a socket that takes both"),
    pytest.param("192.0.2.7", ["203.0.113.9"], id="whatever it says of itself"),
    pytest.param(PROXY, ["192.0.2.7"], id="behind a proxy"),
    pytest.param("fd00::1", ["192.0.2.7, 10.0.0.2"], id="behind two proxies"),
    pytest.param("::ffff:10.0.0.1", ["[2001:db8::7]:4711"], id="behind a proxy in disguise, with a port"),
    pytest.param(PROXY, ["203.0.113.9", "192.0.2.7"], id="behind a proxy, in two headers"),
]
REFUSED = [
    pytest.param("203.0.113.9", [], "203.0.113.9", id="elsewhere"),
    pytest.param("2001:db9::7", [], "2001:db9::7", id="elsewhere, IPv6"),
    pytest.param("::ffff:203.0.113.9", [], "203.0.113.9", id="elsewhere, seen by a socket that takes both"),
    pytest.param("203.0.113.9", ["192.0.2.7"], "203.0.113.9", id="a header without a proxy"),
    pytest.param("203.0.113.9", ["192.0.2.7, 10.0.0.1"], "203.0.113.9", id="a header with a proxy that was not there"),
    pytest.param(PROXY, ["192.0.2.7, 203.0.113.9"], "203.0.113.9", id="what the client wrote before the proxy"),
    pytest.param(PROXY, ["192.0.2.7", "203.0.113.9"], "203.0.113.9", id="what the client wrote in a header of its own"),
    pytest.param(PROXY, [], PROXY, id="the proxy itself"),
    pytest.param(PROXY, ["192.0.2.7, unknown"], "an unknown address", id="behind a proxy that cannot tell"),
    pytest.param(None, [], "an unknown address", id="a Unix socket"),
    pytest.param(None, ["192.0.2.7"], "an unknown address", id="a Unix socket and a header"),
]  # fmt: skip


@pytest.mark.parametrize("peer, forwarded_for", ALLOWED)
async def test_a_key_is_used_from_its_networks(
    app: Starlette, office_key: HeldKey, peer: str, forwarded_for: list[Any]
) -> None:
    answer = await ask(app, office_key, peer, *forwarded_for)

    assert (answer.status, answer.json["key"]["allowed_networks"]) == (200, OFFICE)


@pytest.mark.parametrize("peer, forwarded_for, shown", REFUSED)
async def test_a_key_is_refused_from_elsewhere_and_was_not_used(
    app: Starlette, office_key: HeldKey, peer: str | None, forwarded_for: list[Any], shown: str
) -> None:
    with wire.listening() as commands:
        answer = await ask(app, office_key, peer, *forwarded_for)

    assert_problem(answer, 403, "network_not_allowed")
    assert answer.json["detail"] == f"The key may not be used from {shown}."
    assert len(commands) == 1
    await app.state.latchkey.last_used.write()
    assert (await key_row(office_key.access_key)).last_used_at is None


@pytest.mark.parametrize("peer", ["203.0.113.9", "2001:db9::7", PROXY, None])
async def test_a_key_without_networks_is_used_from_anywhere(
    app: Starlette, operator: HeldKey, peer: str | None
) -> None:
    assert (await ask(app, operator, peer)).status == 200


async def test_a_change_of_the_networks_holds_from_the_next_call_on(
    app: Starlette, operator: HeldKey, office_key: HeldKey
) -> None:
    path = f"/v1/keys/{office_key.access_key}"

    await call(app, "PATCH", path, key=operator, body={"allowed_networks": ["203.0.113.9"]})
    moved = [(await ask(app, office_key, peer)).status for peer in ("203.0.113.9", "192.0.2.7")]
    await call(app, "PATCH", path, key=operator, body={"allowed_networks": []})
    freed = [(await ask(app, office_key, peer)).status for peer in ("203.0.113.9", "192.0.2.7")]

    assert (moved, freed) == ([200, 403], [200, 200])


# ---------------------------------------------------------------------- without a trusted proxy


class TestWithoutATrustedProxy:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, trusted_proxies=None)

    @pytest.mark.parametrize("peer", [PROXY, "127.0.0.1", "::1", "203.0.113.9"])
    @pytest.mark.parametrize(
        "forwarded", [("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.7"), ("x-real-ip", "192.0.2.7")]
    )  # fmt: skip
    async def test_nothing_that_is_sent_moves_a_client(
        self,
        app: Starlette,
        office_key: HeldKey,
        log_lines: list[logging.LogRecord],
        peer: str,
        forwarded: tuple[str, str],
    ) -> None:
        answer = await call(
            app, "GET", "/v1/me", key=office_key, headers=[forwarded], wrap=seen_from(app, peer)
        )

        assert_problem(answer, 403, "network_not_allowed")
        (request_scope,) = (line.access for line in log_lines if hasattr(line, "access"))
        assert request_scope["client"] == peer


# ---------------------------------------------------------------------- the access log


@pytest.mark.parametrize(
    "peer, forwarded_for, logged",
    [
        pytest.param("203.0.113.9", [], "203.0.113.9", id="the peer"),
        pytest.param("203.0.113.9", ["192.0.2.7"], "203.0.113.9", id="not what it says"),
        pytest.param(PROXY, ["192.0.2.8, 192.0.2.7"], "192.0.2.7", id="whom the proxy names"),
        pytest.param("::ffff:10.0.0.1", [], "10.0.0.1", id="IPv4 seen by a socket that takes both"),
        pytest.param(PROXY, ["lks_forged\x1b[2J"], None, id="no address"),
        pytest.param(None, ["192.0.2.7"], None, id="a Unix socket"),
    ],
)
@pytest.mark.parametrize("target", ["/v1/me", "/healthz", "/nothing"])
async def test_the_access_log_says_where_a_call_came_from(
    app: Starlette,
    operator: HeldKey,
    log_lines: list[logging.LogRecord],
    peer: str | None,
    forwarded_for: list[Any],
    logged: str | None,
    target: str,
) -> None:
    await ask(app, operator, peer, *forwarded_for, target=target)

    (request_scope,) = (line.access for line in log_lines if hasattr(line, "access"))
    assert request_scope["client"] == logged


# ---------------------------------------------------------------------- the order of the checks


@pytest.fixture
async def elsewhere(app: Starlette, held_keys: HeldKeys) -> dict[str, HeldKey]:
    """Return keys whose networks contain no caller of these tests."""

    async def hold(**more: Any) -> HeldKey:
        return await hold_key(app, allowed_networks=OFFICE, **more)

    return {
        "bearer": await hold(scopes=[]),
        "signed": await hold(scopes=[], mode="signed"),
        "revoked": await hold(status="revoked"),
        "revoked signed": await hold(status="revoked", mode="signed"),
        "blocked": await hold(email="blocked@example.com"),
    }


ORDER = [
    pytest.param("bearer", 403, "network_not_allowed", bearer, id="nothing else"),
    pytest.param("bearer", 401, "unauthenticated",
                 lambda key: bearer(key).adding(key.bearer), id="shape, address"),
    pytest.param("signed", 401, "unauthenticated", lambda key: signed(key, proof=mac("x", "y")), id="proof, address"),
    pytest.param("signed", 401, "unauthenticated",
                 lambda key: signed(key, timestamp=str(NOW + 3600)), id="clock window, address"),
    pytest.param("revoked", 401, "key_revoked", bearer, id="state of the key, address"),
    pytest.param("revoked signed", 401, "key_revoked", signed, id="state of the key that signs, address"),
    pytest.param("blocked", 401, "owner_inactive", bearer, id="owner, address"),
    pytest.param("signed", 403, "network_not_allowed",
                 lambda key: signed(key, "DELETE", "/v1/users/1"), id="address, coverage"),
    pytest.param("signed", 403, "network_not_allowed", lambda key: signed(key, "GET", "/v1/users"),
                 id="address, scope"),
    pytest.param("signed", 403, "network_not_allowed",
                 lambda key: signed(key, "DELETE", "/v1/users/1", behind="&method=DELETE&path=%2Fv1%2Fusers%2F1"),
                 id="address, nonce"),
    pytest.param("signed", 403, "network_not_allowed", lambda key: signed(key, behind="&x=1"), id="address, query"),
]  # fmt: skip


@pytest.mark.parametrize("name, status, code, make_attempt", ORDER)
async def test_the_earlier_of_two_faults_is_answered(
    app: Starlette,
    elsewhere: dict[str, HeldKey],
    name: str,
    status: int,
    code: str,
    make_attempt: Callable[..., Any],
) -> None:
    before = await stored(app.state.db.reader)

    answer = await make_attempt(elsewhere[name]).send(app)

    assert_problem(answer, status, code)
    assert await stored(app.state.db.reader) == before


async def test_an_expired_key_is_expired_wherever_it_is_used(app: Starlette) -> None:
    key = await hold_key(app, allowed_networks=OFFICE, expires_at=datetime(2020, 1, 1, tzinfo=UTC))

    assert_problem(await ask(app, key, "203.0.113.9"), 401, "key_expired")


# ---------------------------------------------------------------------- the setting


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("10.0.0.1/8", "block 1: it has host bits set; the block around it is 10.0.0.0/8."),
        ("10.0.0.0/8,0.0.0.0/0", "block 2: it contains every address; an empty list means anywhere."),
        ("*", "block 1: it is not a block of addresses, such as 192.0.2.0/24 or 2001:db8::/32."),
        ("10.0.0.0/8,", "block 2: it is not a block of addresses, such as 192.0.2.0/24 or 2001:db8::/32."),
        ("::1,::1", "block 2: the block is given twice."),
    ],
)
def test_proxies_that_are_no_blocks_stop_the_start(loggers: None, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        create_app(Settings(keyring=KEYRING, trusted_proxies=text))

    assert str(refused.value) == f"LATCHKEY_TRUSTED_PROXIES: {sentence}"
