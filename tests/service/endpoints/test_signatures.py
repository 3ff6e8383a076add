"""The explanation names a partner's mistake, and never helps to forge a signature."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette

from latchkey.service.authentication.nonces import NonceClaim
from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.authentication.wire.query_signature import sign_query
from tests.api import HeldKey, assert_problem, call, hold_key, rotate_held, stored
from tests.requests import Answer

HOST = "api.example.com"
PATH = "/v1/orders"
BODY = '{"name": "Ü"}'
NONCE = "n0nce-0123456789abcdef"
OTHER_SECRET = "lks_00000000000000000000000000000000000000000003GTfko"
NO_KEY = "lka_0000000000000000000000"

Sent = dict[str, Any]


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    """Return a signing key of another owner."""
    return await hold_key(app, email="partner@example.com", scopes=["users:read"], mode="signed")


@pytest.fixture(params=["query", "message"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param


def sign(
    app: Starlette,
    key: HeldKey,
    form: str,
    *,
    secret: str | None = None,
    access_key: str | None = None,
    late_s: int = 0,
    method: str = "POST",
    path: str = PATH,
) -> Sent:
    """Return a request as the partner would sign and describe it."""
    now = app.state.latchkey.verifier.clock() - late_s
    signer = (Secret(secret or key.secret), AccessKey(access_key or key.access_key))
    if form == "query":
        query, mac = sign_query(
            signer[0], "a=1", signer[1], now, method=method, path=path, body=BODY.encode(), nonce=NONCE
        )
        headers = {"Secret": mac, "content-type": "application/json"}
        return {"method": method, "url": f"https://{HOST}{path}?{query}", "headers": headers, "body": BODY}
    headers = sign_message(
        signer[0], signer[1], now,
        method=method, scheme="https", authority=HOST, raw_path=path, query_string="a=1", nonce=NONCE,
        body=BODY.encode(), content_type="application/json",
    )  # fmt: skip
    return {"method": method, "url": f"https://{HOST}{path}?a=1", "headers": headers, "body": BODY}


async def explained(app: Starlette, caller: HeldKey, sent: Sent) -> Answer:
    answer = await call(app, "POST", "/v1/signatures/explain", key=caller, body=sent)
    assert answer.status == 200, answer.body
    return answer


def failed(answer: Answer) -> list[str]:
    return [check["name"] for check in answer.json["checks"] if check["result"] == "failed"]


def detail(answer: Answer, name: str) -> str:
    return next(check["detail"] for check in answer.json["checks"] if check["name"] == name)


def right_macs(answer: Answer, key: HeldKey) -> list[bytes]:
    """Return the valid MACs for the texts of an answer."""
    texts = ["\n".join(text["lines"]) for text in answer.json["signed"]]
    return [hmac.digest(key.secret.encode(), text.encode(), "sha256") for text in texts]


def assert_helps_nobody(answer: Answer, key: HeldKey) -> None:
    """Assert that an answer contains neither the secret nor a valid signature, nor a hash of one."""
    told = answer.body.decode()
    assert answer.json["signed"]
    assert key.secret not in told
    for mac in right_macs(answer, key):
        for value in (mac, hashlib.sha256(mac).digest(), hashlib.sha256(mac.hex().encode()).digest()):
            for encoded in (
                base64.b64encode(value).decode().rstrip("="),
                base64.urlsafe_b64encode(value).decode().rstrip("="),
                base64.b32encode(value).decode().rstrip("="),
            ):
                assert encoded not in told
            assert value.hex() not in told.lower()


# ---------------------------------------------------------------------- valid signatures


async def test_a_right_call_passes_every_check(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str
) -> None:
    answer = await explained(app, operator, sign(app, partner, form))

    assert {check["result"] for check in answer.json["checks"]} == {"passed"}
    assert answer.json["form"] == form
    assert answer.json["key"] == {"access_key": partner.access_key, "status": "active"}
    clock = answer.json["clock"]
    assert abs(clock["offset_s"]) < 5
    assert clock["offset_s"] == pytest.approx(clock["created"] - clock["now"], abs=0.01)
    assert (clock["window_s"], clock["inside"]) == (60, True)
    assert_helps_nobody(answer, partner)


async def test_the_text_that_was_signed_is_shown_to_the_byte(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str
) -> None:
    sent = sign(app, partner, form)
    answer = await explained(app, operator, sent)

    if form == "query":
        received, reencoded = answer.json["signed"]
        assert received == {"what": "query_as_received", "lines": [sent["url"].partition("?")[2]]}
        assert reencoded["what"] == "query_reencoded"
        proof = base64.b64decode(sent["headers"]["Secret"])
    else:
        (base,) = answer.json["signed"]
        assert base["what"] == "signature_base"
        assert base["lines"][:4] == [
            '"@method": POST', f'"@authority": {HOST}', f'"@path": {PATH}', '"@query": ?a=1'
        ]  # fmt: skip
        proof = base64.b64decode(sent["headers"]["signature"].split(":")[1])
    assert right_macs(answer, partner)[0] == proof


async def test_the_checks_stand_in_the_order_of_the_authenticator(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str
) -> None:
    answer = await explained(app, operator, sign(app, partner, form))

    names = [check["name"] for check in answer.json["checks"]]
    assert names == {
        "query": ["credential", "shape", "public_id", "key", "proof", "target", "clock", "status", "networks",
                  "coverage", "body", "nonce"],
        "message": ["credential", "components", "shape", "coverage", "public_id", "key", "proof", "clock", "status",
                    "networks", "body", "nonce"],
    }[form]  # fmt: skip


async def test_explaining_writes_nothing(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str
) -> None:
    sent = sign(app, partner, form)
    before = await stored(app.state.db.engine)
    first = await explained(app, operator, sent)
    second = await explained(app, operator, sent)

    assert failed(first) == failed(second) == []
    assert (await stored(app.state.db.engine))["nonces"] == before["nonces"] == []


async def test_a_binary_body_is_given_in_base64(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str
) -> None:
    sent = sign(app, partner, form)
    sent["body_base64"] = base64.b64encode(sent.pop("body").encode()).decode()

    assert failed(await explained(app, operator, sent)) == []


async def test_an_old_secret_in_its_grace_is_named(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str
) -> None:
    await rotate_held(app, partner, grace_s=60)

    answer = await explained(app, operator, sign(app, partner, form))

    assert failed(answer) == []
    assert detail(answer, "proof") == "It was signed with version 1 of the key's secret, which was replaced."


# ---------------------------------------------------------------------- the mistakes


async def test_a_wrong_secret(app: Starlette, operator: HeldKey, partner: HeldKey, form: str) -> None:
    answer = await explained(app, operator, sign(app, partner, form, secret=OTHER_SECRET))

    assert failed(answer) == ["proof"]
    assert_helps_nobody(answer, partner)


@pytest.mark.parametrize(
    "change", [{"method": "PUT"}, {"path": "/v1/order"}], ids=["another method", "another path"]
)
async def test_another_target(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str, change: dict[str, Any]
) -> None:
    meant = sign(app, partner, form)
    sent = sign(app, partner, form, **change)
    sent["method"] = meant["method"]
    sent["url"] = sent["url"].replace("/v1/order?", f"{PATH}?")

    answer = await explained(app, operator, sent)

    # A message does not contain the intention of its sender.
    assert failed(answer) == (["target"] if form == "query" else ["proof"])
    assert_helps_nobody(answer, partner)


@pytest.mark.parametrize("late_s", [300, -300], ids=["slow", "fast"])
async def test_a_clock_that_is_off(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str, late_s: int
) -> None:
    answer = await explained(app, operator, sign(app, partner, form, late_s=late_s))

    assert failed(answer) == ["clock"]
    assert answer.json["clock"]["offset_s"] == pytest.approx(-late_s, abs=5)
    assert answer.json["clock"]["inside"] is False
    assert_helps_nobody(answer, partner)


async def test_another_body(app: Starlette, operator: HeldKey, partner: HeldKey, form: str) -> None:
    answer = await explained(app, operator, {**sign(app, partner, form), "body": "{}"})

    assert failed(answer) == ["body"]
    assert hashlib.sha256(b"{}").hexdigest() in detail(answer, "body")
    assert_helps_nobody(answer, partner)


async def test_no_body(app: Starlette, operator: HeldKey, partner: HeldKey, form: str) -> None:
    sent = sign(app, partner, form)
    del sent["body"]

    assert failed(await explained(app, operator, sent)) == ["body"]


async def test_a_component_that_is_not_covered(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    sent = sign(app, partner, "message")
    sent["headers"]["signature-input"] = sent["headers"]["signature-input"].replace(' "@query"', "")

    answer = await explained(app, operator, sent)

    assert failed(answer) == ["coverage", "proof"]
    assert detail(answer, "coverage") == "The signature does not cover @query."
    assert_helps_nobody(answer, partner)


async def test_a_parameter_that_is_not_there(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    query, mac = sign_query(partner.secret, "", partner.access_key, app.state.latchkey.verifier.clock())
    sent = {"method": "DELETE", "url": f"https://{HOST}/v1/users/1?{query}", "headers": {"secret": mac}}

    answer = await explained(app, operator, sent)

    assert failed(answer) == ["coverage"]
    assert detail(answer, "coverage") == "The query lacks method, path."


async def test_base64_that_is_not_canonical(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str
) -> None:
    sent = sign(app, partner, form)
    name = "Secret" if form == "query" else "signature"
    canonical = sent["headers"][name]
    place = canonical.rindex("=") - 1
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    # The last two bits of the last digit are unused.
    other = alphabet[alphabet.index(canonical[place]) + 1]
    sent["headers"][name] = canonical[:place] + other + canonical[place + 1 :]

    answer = await explained(app, operator, sent)

    assert failed(answer) == ["shape"]
    assert detail(answer, "proof") == "The signature cannot be parsed."
    assert answer.json["key"]["access_key"] == partner.access_key
    assert_helps_nobody(answer, partner)


async def test_an_unknown_key(app: Starlette, operator: HeldKey, partner: HeldKey, form: str) -> None:
    answer = await explained(app, operator, sign(app, partner, form, access_key=NO_KEY))

    assert failed(answer) == ["key"]
    assert detail(answer, "key") == "There is no such key: no key matches."
    assert answer.json["key"] is None
    assert_helps_nobody(answer, partner)


async def test_a_secret_in_the_place_of_the_public_id_is_cut(
    app: Starlette, operator: HeldKey, partner: HeldKey, form: str
) -> None:
    answer = await explained(app, operator, sign(app, partner, form, access_key=partner.secret))

    assert failed(answer) == ["public_id"]
    assert partner.secret not in answer.body.decode()
    assert "lks_…" in answer.body.decode()


@pytest.mark.parametrize(
    "state, code",
    [
        ({"status": "revoked"}, "key_revoked"),
        ({"expires_at": datetime.now(UTC) - timedelta(days=1)}, "key_expired"),
    ],
    ids=["revoked", "expired"],
)
async def test_a_key_that_has_ended(
    app: Starlette, operator: HeldKey, form: str, state: dict[str, Any], code: str
) -> None:
    ended = await hold_key(app, email="partner@example.com", mode="signed", **state)

    answer = await explained(app, operator, sign(app, ended, form))

    assert failed(answer) == ["status"]
    assert code in detail(answer, "status")
    assert answer.json["key"] == {"access_key": ended.access_key, "status": state.get("status", "active")}
    assert_helps_nobody(answer, ended)


async def test_a_bearer_key_does_not_sign(app: Starlette, operator: HeldKey, form: str) -> None:
    bearer = await hold_key(app, email="partner@example.com")

    answer = await explained(app, operator, sign(app, bearer, form))

    assert failed(answer) == ["key"]
    assert bearer.secret not in answer.body.decode()


async def test_a_key_with_networks_is_told_from_where(app: Starlette, operator: HeldKey, form: str) -> None:
    bound = await hold_key(app, email="p@example.com", mode="signed", allowed_networks=["192.0.2.0/24"])

    answer = await explained(app, operator, sign(app, bound, form))

    assert failed(answer) == []
    assert "192.0.2.0/24" in detail(answer, "networks")


async def test_a_nonce_that_was_used(app: Starlette, operator: HeldKey, partner: HeldKey, form: str) -> None:
    claim = NonceClaim.of_nonce(partner.access_key, NONCE, int(app.state.latchkey.verifier.clock()))
    assert await app.state.latchkey.replays.reserve(claim)

    answer = await explained(app, operator, sign(app, partner, form))

    assert failed(answer) == ["nonce"]
    assert_helps_nobody(answer, partner)


@pytest.mark.parametrize(
    "headers, reason",
    [
        ({}, "The request carries no signature."),
        (
            {"authorization": f"Bearer {OTHER_SECRET}"},
            "The request carries a bearer token, which is not a signature.",
        ),
        (
            {"authorization": f"Bearer {OTHER_SECRET}", "secret": "x"},
            "The request has credentials of the kinds bearer and query.",
        ),
        ({"secret": ["x", "y"]}, "The request has more than one secret header. Send it once."),
        (
            {"secret": "x"},
            (
                "The request has a secret header with no key parameter. A signed query has one parameter `key`, with the access "
                "key, and one header `secret`, with the signature of the query."
            ),
        ),
    ],
    ids=["none", "bearer", "two", "twice", "half"],
)
async def test_a_request_without_one_signature(
    app: Starlette, operator: HeldKey, headers: dict[str, Any], reason: str
) -> None:
    answer = await explained(app, operator, {"method": "GET", "url": "http://h/", "headers": headers})

    assert answer.json == {
        "form": None,
        "signed": [],
        "checks": [{"name": "credential", "result": "failed", "detail": reason}],
        "clock": None,
        "key": None,
    }


@pytest.mark.parametrize(
    "headers, check",
    [
        ({"signature": "sig1=:AA==:"}, "shape"),
        ({"signature-input": "sig1=()", "signature": "sig1"}, "shape"),
        ({"signature-input": "(", "signature": "sig1=:AA==:"}, "shape"),
        ({"signature": "x", "host": "a b"}, "components"),
    ],
    ids=["no input", "no signature", "no structured field", "no host"],
)
async def test_a_message_that_cannot_be_read(
    app: Starlette, operator: HeldKey, headers: dict[str, str], check: str
) -> None:
    answer = await explained(app, operator, {"method": "GET", "url": "http://h/", "headers": headers})

    assert (answer.json["form"], failed(answer)) == ("message", [check])
    assert (answer.json["signed"], answer.json["clock"], answer.json["key"]) == ([], None, None)


async def test_lines_that_a_proxy_added_are_one_field_with_the_partners(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    sent = sign(app, partner, "message")
    sent["headers"]["signature-input"] = ['proxy=("@method");created=1', sent["headers"]["signature-input"]]
    right, wrong = sent["headers"]["signature"], "sig1=:AA==:"

    taken = await explained(
        app, operator, {**sent, "headers": {**sent["headers"], "signature": [right, "proxy=:AA==:"]}}
    )
    refused = await explained(app, operator, {**sent, "headers": {**sent["headers"], "signature": [wrong]}})

    assert failed(taken) == []
    assert "shape" in failed(refused)
    assert refused.json["clock"]["inside"]


# ---------------------------------------------------------------------- callers and bodies


@pytest.mark.parametrize(
    "change, pointer",
    [
        ({"url": "/v1/me"}, "/url"),
        ({"url": "http://h/#x"}, "/url"),
        ({"url": "http://h:0/"}, "/url"),
        ({"method": "GET /"}, "/method"),
        ({"headers": {"a b": "x"}}, "/headers"),
        ({"headers": {"a": "x\r\ny: z"}}, "/headers/..."),
        ({"headers": {"a": "€"}}, "/headers/..."),
        ({"body": "", "body_base64": ""}, "/body_base64"),
        ({"body_base64": "AB=="}, "/body_base64"),
        ({"secret": OTHER_SECRET}, "/secret"),
    ],
)
async def test_bodies_that_describe_no_request_are_refused(
    app: Starlette, operator: HeldKey, change: dict[str, Any], pointer: str
) -> None:
    sent = {"method": "GET", "url": "http://h/", "headers": {}, **change}

    answer = await call(app, "POST", "/v1/signatures/explain", key=operator, body=sent)

    assert_problem(answer, 422, "invalid_body")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]


async def test_reading_ones_own_keys_is_not_enough(app: Starlette, partner: HeldKey) -> None:
    caller = await hold_key(app, email="partner@example.com", scopes=["users:read", "me.keys:read"])

    answer = await call(app, "POST", "/v1/signatures/explain", key=caller, body=sign(app, partner, "query"))

    assert_problem(answer, 403, "scope_missing")


async def test_a_key_may_explain_its_own_call_and_is_a_call_itself(
    app: Starlette, signer: HeldKey, form: str
) -> None:
    answer = await explained(app, signer, sign(app, signer, form))

    assert failed(answer) == []
    assert len((await stored(app.state.db.engine))["nonces"]) == 1  # the nonce of the call itself
