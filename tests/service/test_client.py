"""The client signs exactly the bytes that it sends, and reports clearly what it cannot send."""

import base64
import hashlib
import http.server
import re
import shlex
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import pytest

import latchkey
from latchkey.service.authentication.wire import message_signature, query_signature
from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from latchkey.service.client import CallError, Form, SignedCall, send, sign_call, split_url

KEY = AccessKey("lka_0000000000000000000000")
SECRET = Secret("lks_00000000000000000000000000000000000000000003GTfko")
NOW = 1700000000
NONCE = "n0nce-0123456789abcdef"


def signed(method: str, url: str, body: str | None = None, form: Form = "query") -> SignedCall:
    return sign_call(method, url, access_key=KEY, secret=SECRET, body=body, now=NOW, nonce=NONCE, form=form)


class TestSigning:
    @pytest.mark.parametrize(
        "method, url, body, path, digest",
        [
            pytest.param("GET", "http://h/v1/me", None, "/v1/me", None, id="safe"),
            pytest.param("GET", "http://h", None, "/", None, id="no path is the root"),
            pytest.param("GET", "http://h?a=1", None, "/", None, id="a query without a path"),
            pytest.param("GET", "http://h:8000/a%2Fb", None, "/a%2Fb", None, id="escapes stay"),
            pytest.param("GET", "https://h/a/../b", None, "/a/../b", None, id="dots stay"),
            pytest.param("GET", "http://h/v1/users?email=a%40b.c&limit=2", None, "/v1/users", None, id="query"),
            pytest.param("GET", "http://h/find", '{"a":1}', "/find", b'{"a":1}', id="a safe method with a body"),
            pytest.param("DELETE", "http://h/v1/users/1", None, "/v1/users/1", b"", id="unsafe, no body"),
            pytest.param("POST", "http://h/v1/users", '{"ü":1}', "/v1/users", '{"ü":1}'.encode(), id="body"),
        ],
    )  # fmt: skip
    def test_everything_that_is_sent_is_covered(
        self, method: str, url: str, body: str | None, path: str, digest: bytes | None
    ) -> None:
        call = signed(method, url, body)

        query = call.url.partition("?")[2]
        signature = query_signature.parse(query.encode(), call.headers["secret"].encode())
        assert query_signature.proves(signature, SECRET)
        assert query_signature.covers(signature, method, path.encode())
        assert (signature.access_key, signature.timestamp, signature.nonce) == (KEY, NOW, NONCE)
        expected = None if digest is None else hashlib.sha256(digest).hexdigest()
        assert signature.content_sha256 == expected
        assert query_signature.missing_coverage(signature, method, body is not None) == ()

    @pytest.mark.parametrize(
        "method, url, body, authority, path, query",
        [
            pytest.param("GET", "http://h/v1/me", None, "h", "/v1/me", "?", id="safe"),
            pytest.param("GET", "http://H:80", None, "h", "/", "?", id="the scheme's own port"),
            pytest.param("GET", "https://h:443/", None, "h", "/", "?", id="that of https"),
            pytest.param("GET", "https://h:80/", None, "h:80", "/", "?", id="that of another scheme"),
            pytest.param("GET", "http://h:/", None, "h", "/", "?", id="an empty port"),
            pytest.param("GET", "http://[::1]:8000/a%2Fb?", None, "[::1]:8000", "/a%2Fb", "?", id="an address"),
            pytest.param("GET", "http://[::1]/", None, "[::1]", "/", "?", id="an address without a port"),
            pytest.param("GET", "http://h/x?q=a%20b+c&&x", None, "h", "/x", "?q=a%20b+c&&x", id="a query"),
            pytest.param("DELETE", "http://h/v1/users/1", None, "h", "/v1/users/1", "?", id="unsafe, no body"),
            pytest.param("POST", "http://h/v1/users", '{"ü":1}', "h", "/v1/users", "?", id="a body"),
            pytest.param("POST", "http://h/v1/users", "", "h", "/v1/users", "?", id="an empty body"),
        ],
    )  # fmt: skip
    def test_a_message_covers_the_host_too(
        self, method: str, url: str, body: str | None, authority: str, path: str, query: str
    ) -> None:
        call = signed(method, url, body, form="message")

        parts = urlsplit(call.url)
        headers = [(name.encode(), value.encode()) for name, value in call.headers.items()]
        values = message_signature.component_values(
            method=method,
            scheme=parts.scheme,
            raw_path=parts.path.encode(),
            query_string=parts.query.encode(),
            headers=headers,
        )
        signature = message_signature.parse(headers, values)
        assert message_signature.proves(signature, SECRET)
        assert message_signature.missing_coverage(signature, values, body is not None) == ()
        assert (signature.access_key, signature.created, signature.nonce) == (KEY, NOW, NONCE)
        assert (values["@authority"], values["@path"], values["@query"]) == (authority, path, query)
        assert signature.content_sha256 == hashlib.sha256((body or "").encode()).digest()
        assert call.headers.get("content-type") == (None if body is None else "application/json")

    @pytest.mark.parametrize("form", ["query", "message"])
    def test_an_idempotency_key_is_sent_as_it_is_and_a_message_signs_it(
        self, form: Literal["query", "message"]
    ) -> None:
        call = sign_call(
            "POST", "http://h/x", access_key=KEY, secret=SECRET, body="{}", now=NOW, nonce=NONCE, form=form,
            idempotency_key='"order 7"',
        )  # fmt: skip

        assert call.headers["idempotency-key"] == '"order 7"'
        assert ("idempotency-key" in call.headers.get("signature-input", "")) is (form == "message")

    @pytest.mark.parametrize("form", ["query", "message"])
    @pytest.mark.parametrize("key", ["", " a", "a\r\nb: c", "é"])
    def test_an_idempotency_key_that_no_header_can_hold_is_refused(
        self, form: Literal["query", "message"], key: str
    ) -> None:
        with pytest.raises(ValueError, match="idempotency key"):
            sign_call(
                "POST", "http://h/x", access_key=KEY, secret=SECRET, now=NOW, nonce=NONCE, form=form,
                idempotency_key=key,
            )  # fmt: skip

    @pytest.mark.parametrize("form", ["query", "message"])
    def test_a_call_of_its_own_time_and_nonce_is_new_and_current(
        self, form: Literal["query", "message"]
    ) -> None:
        made = [
            latchkey.sign_call("GET", "http://h/x", access_key=KEY, secret=SECRET, form=form)
            for _ in range(2)
        ]

        assert made[0].headers != made[1].headers
        moment = re.search(r"(?:timestamp|created)=(\d+)", made[0].signed_text)
        assert moment is not None
        assert abs(int(moment[1]) - time.time()) < 60

    @pytest.mark.parametrize("form", ["query", "message"])
    def test_a_body_may_be_bytes_of_any_type(self, form: Literal["query", "message"]) -> None:
        body = b"\x00\xff"
        call = sign_call(
            "PUT", "http://h/x", access_key=KEY, secret=SECRET, body=body, content_type="image/png", form=form
        )

        assert (call.body, call.headers["content-type"]) == (body, "image/png")
        digest = hashlib.sha256(body)
        expected = digest.hexdigest() if form == "query" else base64.b64encode(digest.digest()).decode()
        assert expected in call.signed_text

    @pytest.mark.parametrize("form", ["query", "message"])
    @pytest.mark.parametrize(
        "wrong, sentence",
        [
            pytest.param({"method": "get"}, "method", id="a method in lower case"),
            pytest.param({"method": "GET /x"}, "method", id="a method with a space"),
            pytest.param({"access_key": ""}, "key", id="no key"),
            pytest.param({"access_key": "lka 1"}, "key", id="a key with a space"),
            pytest.param({"secret": ""}, "secret is empty", id="no secret"),
            pytest.param({"nonce": "short"}, "nonce", id="a short nonce"),
            pytest.param({"nonce": "ü" * 16}, "nonce", id="a nonce outside ASCII"),
            pytest.param({"now": -1}, "timestamp|created", id="a negative time"),
            pytest.param({"now": 1e15}, "timestamp|created", id="a time in microseconds"),
            pytest.param({"content_type": "a\nb"}, "content type", id="a type with a line break"),
            pytest.param({"form": "header"}, "query, message", id="another form"),
        ],
    )
    def test_what_every_server_refuses_is_not_signed(
        self, form: str, wrong: dict[str, Any], sentence: str
    ) -> None:
        given = {"method": "POST", "access_key": KEY, "secret": SECRET, "body": "{}", "form": form, **wrong}
        with pytest.raises(ValueError, match=sentence):
            sign_call(given.pop("method"), "http://h/x", **given)

    def test_a_message_has_no_second_credential(self) -> None:
        with pytest.raises(ValueError, match="second credential"):
            signed("GET", "http://h/?a=1&k%65y=lka_1", form="message")

    def test_the_query_is_kept_to_the_byte(self) -> None:
        call = signed("GET", "http://h/v1/users?q=a%20b+c&Q=%7e&&x")

        assert call.url.endswith("&q=a%20b+c&Q=%7e&&x")

    @pytest.mark.parametrize("form", ["query", "message"])
    def test_no_key_material_is_in_the_call(self, form: Literal["query", "message"]) -> None:
        call = signed("POST", "http://h/v1/users", "{}", form)

        assert SECRET not in call.curl()
        assert SECRET not in repr(call)

    @pytest.mark.parametrize(
        "url, sentence",
        [
            ("http://h/a b", "space"),
            ("http://h/ü", "outside ASCII"),
            ("http://h/a\nb", "control character"),
            ("", "space"),
            ("/v1/me", "http://"),
            ("ftp://h/", "http://"),
            ("http:///v1/me", "http://"),
            ("http://ann:pw@h/", "user name"),
            ("http://h/#me", "fragment"),
            ("http://h/v1/me#", "fragment"),
            ("http://h:99999/", "number from 1 to 65535"),
            ("http://h:0/", "number from 1 to 65535"),
            ("http://h:x/", "number from 1 to 65535"),
            ("http://[::1/", "IPv6"),
            ("http://h/?key=lka_1", "key"),
            ("http://h/?a=1&nonce=1", "nonce"),
        ],
    )
    def test_a_url_that_cannot_be_signed_is_refused(self, url: str, sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            signed("GET", url)

    def test_head_has_no_body(self) -> None:
        with pytest.raises(ValueError, match="HEAD"):
            signed("HEAD", "http://h/", "{}")

    def test_a_url_is_split_where_a_server_splits_it(self) -> None:
        assert split_url("http://[::1]:8000/a?b?c").query == "b?c"


class Recorder(http.server.BaseHTTPRequestHandler):
    """A handler that records the requests and answers as the path requests."""

    heard: list[tuple[str, dict[str, str], bytes]]
    status = 200

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.heard.append((self.requestline, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(302 if "/moved" in self.path else self.status)
        if "/moved" in self.path:
            self.send_header("location", "/elsewhere")
        content = b"" if self.command == "HEAD" else "wörld\n".encode()
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815 - the names that the server calls

    def log_message(self, *arguments: object) -> None:
        pass


class Partner:
    """A server that records requests."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        handler = type("Handler", (Recorder,), {"heard": self.heard})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        vars(self.server)["handle_error"] = lambda *_: None  # a handshake that the client ends
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def partner() -> Iterator[Partner]:
    with Partner() as running:
        yield running


@pytest.fixture
def tls_partner(certificate: Path) -> Iterator[Partner]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Partner(context) as running:
        yield running


CALLS = [
    pytest.param("GET", "/v1/users?email=a%40b&q={x}[1]", None, id="a query with brackets"),
    pytest.param("GET", "/a/../b/./c%2Fd", None, id="a path with dots and escapes"),
    pytest.param("HEAD", "/v1/me", None, id="head"),
    pytest.param("GET", "/x?q=\"<>|\\^`'$HOME", None, id="what a shell would take amiss"),
    pytest.param("POST", "/v1/users", '{"name": "O\'Brien\n$HOME ü"}', id="a body"),
    pytest.param("POST", "/v1/users", "", id="an empty body"),
    pytest.param("PATCH", "/v1/users/1", "@/etc/hostname", id="a body that begins with an at sign"),
    pytest.param("DELETE", "/v1/users/1", None, id="delete"),
]


class TestSending:
    @pytest.mark.parametrize("form", ["query", "message"])
    @pytest.mark.parametrize("method, target, body", CALLS)
    def test_the_bytes_that_arrive_are_those_that_were_signed(
        self, partner: Partner, method: str, target: str, body: str | None, form: Literal["query", "message"]
    ) -> None:
        call = signed(method, partner.url + target, body, form)

        answer = send(call)

        assert (answer.status, answer.status_line) == (200, "HTTP/1.0 200 OK")
        assert answer.body == (b"" if method == "HEAD" else "wörld\n".encode())
        assert_arrived(partner, call)

    @pytest.mark.parametrize("form", ["query", "message"])
    @pytest.mark.parametrize("method, target, body", CALLS)
    def test_the_curl_line_sends_the_same(
        self, partner: Partner, method: str, target: str, body: str | None, form: Literal["query", "message"]
    ) -> None:
        if not shutil.which("curl"):
            pytest.skip("curl not found")
        call = signed(method, partner.url + target, body, form)

        subprocess.run(["sh", "-c", call.curl()], check=True, capture_output=True, timeout=20)

        assert_arrived(partner, call)

    def test_a_redirection_is_not_followed(self, partner: Partner) -> None:
        answer = send(signed("GET", partner.url + "/moved"))

        assert answer.status == 302
        assert len(partner.heard) == 1

    def test_a_server_that_is_not_there_is_named(self, partner: Partner) -> None:
        with Partner() as gone:
            pass

        with pytest.raises(CallError, match=r"127\.0\.0\.1:\d+ does not answer: Connection refused"):
            send(signed("GET", gone.url))

    def test_something_that_is_no_http_is_named(self) -> None:
        with Partner() as strange:
            handler: Any = strange.server.RequestHandlerClass
            handler.send_response = lambda self, *_: self.wfile.write(b"hello\r\n")
            with pytest.raises(CallError, match="does not speak HTTP: BadStatusLine"):
                send(signed("GET", strange.url))

    def test_a_certificate_is_verified(self, tls_partner: Partner) -> None:
        with pytest.raises(CallError, match="certificate verify failed"):
            send(signed("GET", tls_partner.url))

        assert tls_partner.heard == []

    def test_a_certificate_that_is_trusted_is_enough(
        self, tls_partner: Partner, certificate: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        assert send(signed("GET", tls_partner.url)).status == 200


def assert_arrived(partner: Partner, call: SignedCall) -> None:
    ((line, headers, body),) = partner.heard
    assert line == f"{call.method} {call.url.removeprefix(partner.url)} HTTP/1.1"
    assert {name: headers[name] for name in call.headers} == call.headers
    assert headers["host"] == partner.url.removeprefix("http://")
    assert body == (call.body or b"")
    assert headers.get("content-type") == (None if call.body is None else "application/json")


def test_the_curl_line_is_one_command_of_plain_words() -> None:
    call = signed("GET", "http://h/v1/me")

    assert shlex.split(call.curl()) == [
        "curl", "-sS", "-X", "GET", "-H", f"secret: {call.headers['secret']}", call.url
    ]  # fmt: skip
