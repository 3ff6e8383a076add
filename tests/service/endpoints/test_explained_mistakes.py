"""The mistakes of partners that only an explanation of their own key can name.

`tests/service/authentication/test_partner_mistakes.py` has those that the 401 itself names.
"""

import base64
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette

from latchkey.service.authentication.wire.credentials import new_secret
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.explanation import variants
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.requests import Answer

HOST = "api.example.com:8443"
BODY = '{"name": "Ü"}'
EXPLAIN = "/v1/me/signatures/explain"
NONCE = "n0nce-0123456789abcdef"

Sent = dict[str, Any]
Change = Callable[[str], str]


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    """Return the signing key of a partner."""
    return await hold_key(app, email="partner@example.com", scopes=["me.keys:read"], mode="signed")


@pytest.fixture
async def console(app: Starlette, partner: HeldKey) -> HeldKey:
    """Return the bearer key with which the same partner asks."""
    return await hold_key(app, email="partner@example.com", scopes=["me.keys:read"])


def mac(secret: str | bytes, text: str | bytes, digest: str = "sha256") -> str:
    """Return a MAC as it is sent."""
    key = secret.encode() if isinstance(secret, str) else secret
    return base64.b64encode(
        hmac.digest(key, text.encode() if isinstance(text, str) else text, digest)
    ).decode()


def same(text: str) -> str:
    return text


def sort(query: str) -> str:
    return "&".join(sorted(query.split("&")))


def query_call(
    app: Starlette,
    key: HeldKey,
    *,
    signed: Change = same,
    secret: Change = same,
    more: str = "zone=1&a=x%20y&path=%2Fv1%2Forders",
    late_s: int = 0,
    sent: Change = same,
    path: str = "/v1/orders",
) -> Sent:
    """Return a GET whose client signed `signed(query)` with `secret(secret)` and sent `sent(query)`."""
    now = int(app.state.latchkey.verifier.clock()) - late_s
    query = f"key={key.access_key}&timestamp={now}&{more}".rstrip("&")
    proof = mac(secret(key.secret), signed(query))
    return {"method": "GET", "url": f"https://{HOST}{path}?{sent(query)}", "headers": {"secret": proof}}


def message_call(
    app: Starlette,
    key: HeldKey,
    *,
    signed: Change = same,
    secret: Change = same,
    query: str = "",
    host: str = HOST,
    path: str = "/v1/orders",
    late_s: int = 0,
    **call: Any,
) -> Sent:
    """Return a POST whose client signed `signed(signature base)`."""
    headers = sign_message(
        key.secret, key.access_key, app.state.latchkey.verifier.clock() - late_s,
        **{"method": "POST", "scheme": "https", "authority": HOST, "raw_path": path, "query_string": query, "nonce": NONCE,
           "body": BODY.encode(), "content_type": "application/json; charset=utf-8", **call},
    )  # fmt: skip
    params = headers["signature-input"].partition("=")[2]
    values = {"@method": "POST", "@authority": HOST, "@path": path, "@query": f"?{query}", **headers}
    names = params.partition(")")[0].strip("(").replace('"', "").split(" ")
    base = "\n".join([*(f'"{name}": {values[name]}' for name in names), f'"@signature-params": {params}'])
    headers["signature"] = f"sig1=:{mac(secret(key.secret), signed(base))}:"
    url = f"https://{host}{path}" + (f"?{query}" if query else "")
    return {"method": "POST", "url": url, "headers": headers, "body": BODY}


def replacing(old: str, new: str) -> Change:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


SECRETS: dict[str, tuple[Change, str]] = {
    "newline": (lambda s: f"{s}\n", "newline at its end"),
    "carriage return and newline": (lambda s: f"{s}\r\n", "carriage return and a newline"),
    "space": (lambda s: f"{s} ", "space at its end"),
    "quotes": (lambda s: f'"{s}"', "quotes"),
    "without lks_": (lambda s: s[4:], "without its lks_"),
    "without the checksum": (lambda s: s[:-6], "without its checksum"),
    "lower case": (str.lower, "lower case"),
    "empty": (lambda _: "", "empty"),
    "another secret": (lambda _: new_secret("lk"), "different secret"),
}

QUERIES: dict[str, tuple[dict[str, Any], str]] = {
    "sorted": ({"signed": sort}, "sorted"),
    "sent sorted": ({"sent": sort}, "another order"),
    "reversed": ({"signed": lambda q: "&".join(reversed(q.split("&")))}, "another order"),
    "%20 signed, + sent": ({"sent": replacing("%20", "+")}, "signed as `%20` and sent as `+`"),
    "+ signed, %20 sent": ({"signed": replacing("x%20y", "x+y"), "more": "a=x%20y&b=%7Eu"}, "signed as `+` and sent as `%20`"),
    "escapes in lower case": ({"signed": replacing("%2F", "%2f")}, "lower case"),
    "escapes in upper case": ({"sent": replacing("%2F", "%2f")}, "upper case"),
    "decoded": ({"signed": lambda q: q.replace("%20", " ").replace("%2F", "/")}, "decoded"),
    "slashes as they are": ({"signed": replacing("%2F", "/")}, "signed as it is, and sent as `%2F`"),
    "encoded once more": ({"signed": lambda q: quote(q, safe="")}, "once more"),
    "newline": ({"signed": lambda q: f"{q}\n"}, "newline was signed at the end of the query"),
    "carriage return": ({"signed": lambda q: f"{q}\r\n"}, "newline was signed at the end of the query"),
    "question mark": ({"signed": lambda q: f"?{q}"}, "`?` was signed in front"),
    "path and query": ({"signed": lambda q: f"/v1/orders?{q}"}, "Path and query were signed"),
    "URL": ({"signed": lambda q: f"https://{HOST}/v1/orders?{q}"}, "whole URL"),
    "method, path and query": ({"signed": lambda q: f"GET\n/v1/orders\n{q}"}, "Method, path and query"),
    "path alone": ({"signed": lambda _: "/v1/orders"}, "The path was signed"),
    "nothing": ({"signed": lambda _: ""}, "An empty text was signed"),
    "a parameter added": ({"signed": lambda q: q.replace("&zone=1", "")}, "`zone` was added after signing"),
    "only the beginning": ({"signed": lambda q: "&".join(q.split("&")[:2])}, "Only some of the parameters"),
    "HTML": ({"signed": replacing("&", "&amp;")}, "&amp;"),
    "newline in both": ({"signed": lambda q: f"{q}\n", "secret": lambda s: f"{s}\n"}, "newline at its end"),
}  # fmt: skip

MESSAGES: dict[str, tuple[dict[str, Any], str]] = {
    "newline": ({"signed": lambda b: f"{b}\n"}, "newline was signed at the end of the signature base"),
    "CR LF": ({"signed": replacing("\n", "\r\n")}, "CR LF"),
    "host without port": ({"signed": replacing(f": {HOST}", ": api.example.com")}, "without the port"),
    "another host": ({"signed": replacing(f": {HOST}", ": localhost")}, "another host"),
    "the host of the asking call": ({"signed": replacing(f": {HOST}", ": testserver")}, "another host"),
    "host in upper case": ({"signed": replacing(f": {HOST}", f": {HOST.upper()}")}, "upper case"),
    "host with the default port": ({"signed": replacing(f": {HOST}", ": api.example.com:443")}, "port 443"),
    "empty query": ({"signed": replacing('"@query": ?', '"@query": ')}, "signed empty: without a query it is `?`"),
    "query without ?": ({"query": "b=1&a=2", "signed": replacing('"@query": ?', '"@query": ')}, "without its `?`"),
    "query left out": ({"query": "b=1&a=2", "signed": replacing("?b=1&a=2", "?")}, "the request has a query"),
    "query sorted": ({"query": "b=1&a=2", "signed": replacing("b=1&a=2", "a=2&b=1")}, "sorted"),
    "query with +": ({"query": "a=1+2", "signed": replacing("1+2", "1%202")}, "`%20` and sent as `+`"),
    "method in lower case": ({"signed": replacing(": POST", ": post")}, "`@method` was signed in lower case"),
    "slash at the end": ({"signed": replacing(": /v1/orders", ": /v1/orders/")}, "slash at its end"),
    "slash left out": ({"path": "/v1/orders/", "signed": replacing(": /v1/orders/", ": /v1/orders")}, "without the slash"),
    "path with query": ({"query": "a=1", "signed": replacing(": /v1/orders", ": /v1/orders?a=1")}, "with the query"),
    "path decoded": ({"path": "/v1/a%20b", "signed": replacing("a%20b", "a b")}, "decoded"),
    "content type without charset": ({"signed": replacing("json; charset=utf-8", "json")}, "charset"),
    "content digest bare": ({"signed": replacing("sha-256=:", "sha-256=")}, "none of the usual mistakes"),
    "no parameters line": ({"signed": lambda b: b.rpartition("\n")[0]}, "`@signature-params` is missing"),
    "label in the parameters line": ({"signed": replacing('params": (', 'params": sig1=(')}, "label was signed"),
    "lines sorted": ({"signed": lambda b: "\n".join([*sorted(b.split("\n")[:-1]), b.split("\n")[-1]])}, "sorted"),
    "no space": ({"signed": replacing('": ', '":')}, "space is missing"),
    "body": ({"signed": lambda _: BODY}, "body was signed"),
    "host and query": ({"signed": lambda b: b.replace('"@query": ?', '"@query": ').replace(f": {HOST}", ": localhost")}, "`@query` was signed empty"),
}  # fmt: skip


async def explain(app: Starlette, key: HeldKey, sent: Sent, path: str = EXPLAIN) -> Answer:
    answer = await call(app, "POST", path, key=key, body=sent)
    assert answer.status == 200, answer.body
    return answer


def failed(answer: Answer) -> dict[str, str]:
    return {one["name"]: one["detail"] for one in answer.json["checks"] if one["result"] == "failed"}


async def test_a_wrong_text_is_named(app: Starlette, partner: HeldKey, console: HeldKey) -> None:
    wrong = {}
    for form, table in ((query_call, QUERIES), (message_call, MESSAGES)):
        for name, (changes, words) in table.items():
            answer = await explain(app, console, form(app, partner, **changes))
            found = failed(answer)
            if set(found) != {"proof"} or words not in found["proof"]:
                wrong[form.__name__, name] = found
            assert partner.secret[4:] not in answer.body.decode()

    assert wrong == {}


async def test_a_wrong_secret_is_named(app: Starlette, partner: HeldKey, console: HeldKey) -> None:
    wrong = {}
    for form in (query_call, message_call):
        for name, (change, words) in SECRETS.items():
            found = failed(await explain(app, console, form(app, partner, secret=change)))
            if set(found) != {"proof"} or words not in found["proof"]:
                wrong[form.__name__, name] = found

    assert wrong == {}


@pytest.mark.parametrize("form", [query_call, message_call])
async def test_an_offset_of_the_clock_is_named_in_seconds(
    app: Starlette, partner: HeldKey, console: HeldKey, form: Callable[..., Sent]
) -> None:
    answer = await explain(app, console, form(app, partner, late_s=600))

    assert set(failed(answer)) == {"clock"}
    assert "600 s before the service's clock" in failed(answer)["clock"] or "601 s" in failed(answer)["clock"]
    assert "passed" in {one["result"] for one in answer.json["checks"]}


@pytest.mark.parametrize(
    "path, more, words",
    [
        ("/v1/orders", "path=%2Fv1%2Forders%2F", "Only the signed path has a slash at its end."),
        ("/v1/orders/", "path=%2Fv1%2Forders", "Only the path of the request has a slash at its end."),
        ("/v1/orders", "path=%2Fv1%2Forders%3Fa%3D1", "contains the query"),
        ("/v1/a%20b", "path=%2Fv1%2Fa%2520B", "upper-case letters"),
        ("/v1/a%2fb", "path=%2Fv1%2Fa%252Fb", "percent escapes"),
        ("/v1/orders", "path=%2Fv1%2Fusers", "differs from the path"),
        ("/v1/orders", "method=POST", "differs from the method"),
    ],
)
async def test_another_target_is_named(
    app: Starlette, partner: HeldKey, console: HeldKey, path: str, more: str, words: str
) -> None:
    answer = await explain(app, console, query_call(app, partner, more=more, path=path))

    assert set(failed(answer)) == {"target"}
    assert words in failed(answer)["target"]


@pytest.mark.parametrize("form", [query_call, message_call])
async def test_a_text_that_was_signed_is_compared(
    app: Starlette, partner: HeldKey, console: HeldKey, form: Callable[..., Sent]
) -> None:
    """It finds what no list of mistakes contains."""
    texts: list[str] = []

    def garble(text: str) -> str:
        texts.append(text.replace("orders", "oRDErs", 1))
        return texts[-1]

    sent = form(app, partner, signed=garble)

    known = failed(await explain(app, console, {**sent, "signed_text": texts[-1]}))["proof"]
    other = failed(await explain(app, console, {**sent, "signed_text": "x"}))["proof"]
    right = failed(
        await explain(app, console, {**sent, "signed_text": texts[-1].replace("oRDErs", "orders")})
    )

    assert "differs from the right text in line" in known
    assert ("`@path`" in known) is (form is message_call)
    assert "is not the text that was signed" in other
    assert "is the right text" in right["proof"]


async def test_a_key_of_another_owner_is_like_none(app: Starlette, console: HeldKey) -> None:
    foreign = await hold_key(app, email="other@example.com", mode="signed")
    answers = []
    for access_key in (foreign.access_key, "lka_0000000000000000000000"):
        key = HeldKey(id=0, user_id=0, access_key=access_key, secret=foreign.secret, mode="signed")  # type: ignore[arg-type]
        with wire.listening() as commands:
            answer = await explain(app, console, query_call(app, key, more="nonce=" + NONCE))
        answers.append(
            ([(one["name"], one["result"], one["detail"]) for one in answer.json["checks"]], len(commands))
        )

    (first, first_queries), (second, second_queries) = answers
    assert [one for one in first if one[0] != "clock"] == [one for one in second if one[0] != "clock"]
    assert first_queries == second_queries
    assert ("key", "failed", "The owner has no such key.") in first


async def test_explaining_needs_the_scope(app: Starlette, partner: HeldKey) -> None:
    without = await hold_key(app, email="partner@example.com", scopes=[])

    answer = await call(app, "POST", EXPLAIN, key=without, body=query_call(app, partner))

    assert_problem(answer, 403, "scope_missing")


async def test_the_tries_are_bounded(
    app: Starlette, partner: HeldKey, console: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = []
    digest = hmac.digest
    monkeypatch.setattr(
        hmac, "digest", lambda key, text, name: spent.append(len(text)) or digest(key, text, name)
    )
    sent = query_call(
        app, partner, secret=lambda _: "x", more="&".join(f"p{n}={'v' * 500}" for n in range(14))
    )
    spent.clear()

    await explain(app, console, sent)

    assert 0 < sum(spent) <= variants.MOST_BYTES + 200_000
