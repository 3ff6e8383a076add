"""Signed requests of every kind: each part is a text with one character for each byte."""

import base64
import hmac
import json
import random
import string
from collections.abc import Callable, Mapping
from urllib.parse import unquote

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.authentication.wire.query_signature import sign_query
from tests.api import HeldKey
from tests.requests import Answer, request

NOW = 1_700_000_000
HOST = "api.example.com"

NONCE_ALPHABET = string.ascii_letters + string.digits + "-_"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
SAFE_METHODS = frozenset({"GET", "HEAD"})

Headers = tuple[tuple[str, str], ...]


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A request on the wire."""

    method: str
    path: str
    query: str = ""
    headers: Headers = ()
    body: str = ""

    @classmethod
    def made(cls, method: str, path: str, query: str, headers: Headers, body: str) -> "Sent":
        """Return a request as a server parses it: the query begins at the first `?`, and header names are case-insensitive."""
        target = f"{path}?{query}" if query else path
        path, _, query = target.partition("?")
        return cls(
            method=method,
            path=path,
            query=query,
            headers=tuple((name.lower(), value) for name, value in headers),
            body=body,
        )

    def but(self, **parts: str | Headers) -> "Sent":
        """Return the request with other parts."""
        return Sent.made(**{**msgspec.structs.asdict(self), **parts})

    def values(self, name: str) -> list[str]:
        """Return the values of every header of this name, without surrounding white space, which has no meaning."""
        return [value.strip(" \t") for one, value in self.headers if one == name]

    def header(self, name: str) -> str | None:
        """Return the value of the only header of this name."""
        found = self.values(name)
        return found[0] if found else None

    def replacing(self, name: str, value: str) -> "Sent":
        """Return the request with another value for every header of this name."""
        return self.but(headers=tuple((one, value if one == name else its) for one, its in self.headers))

    def adding(self, *headers: tuple[str, str]) -> "Sent":
        """Return the request with additional headers."""
        return self.but(headers=(*self.headers, *headers))

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Return the query, decoded as endpoints see it."""
        return QueryParams(self.query.encode("latin-1")).multi_items()

    @property
    def credentials(self) -> set[str]:
        """Return the kinds of credentials in the request."""
        names = {name for name, _ in self.headers}
        kinds = {
            "bearer": "authorization" in names,
            "query": "secret" in names or "key" in dict(self.parameters),
            "message": not names.isdisjoint({"signature", "signature-input"}),
        }
        return {kind for kind, seen in kinds.items() if seen}

    async def send(self, app: Starlette) -> Answer:
        """Send the request, in a new task."""
        body = self.body.encode("latin-1")
        length = (("content-length", str(len(body))),) if body else ()

        async def arrive(scope: Scope, receive: Receive, send: Send) -> None:
            scope = {
                **scope,
                "method": self.method,
                "path": unquote(self.path, "latin-1"),
                "raw_path": self.path.encode("latin-1"),
                "query_string": self.query.encode("latin-1"),
                "headers": [
                    (name.encode("latin-1"), value.encode("latin-1"))
                    for name, value in (*self.headers, *length)
                ],
            }
            await app(scope, receive, send)

        return await request(arrive, self.method, "/", body=body or None)


class Genuine(msgspec.Struct, frozen=True, kw_only=True):
    """A correctly signed request, and the parts that its signature covers."""

    sent: Sent
    form: str
    key: HeldKey
    covered: frozenset[str]
    """The covered parts among `method`, `path` and `body`; the query is always covered."""
    digest: bool
    """Whether the signature covers the body."""

    def signed(self, sent: Sent) -> object:
        """Return everything that the signature covers: two requests with the same value are the same signed request."""
        return (
            sent.method if "method" in self.covered else sent.method in SAFE_METHODS,
            sent.path if "path" in self.covered else None,
            sent.body if "body" in self.covered else None,
            sent.credentials,
            [sent.values(name) for name in ("authorization", "secret", "signature", "signature-input")],
            *(self._of_query(sent) if self.form == "query" else self._of_message(sent)),
        )

    @staticmethod
    def _of_query(sent: Sent) -> tuple[object, ...]:
        return (sent.parameters,)

    @staticmethod
    def _of_message(sent: Sent) -> tuple[object, ...]:
        hosts = [one.lower().removesuffix(":80").removesuffix(":") for one in sent.values("host")]
        fields = [sent.values(name) for name in ("content-type", "content-digest", "idempotency-key")]
        return sent.query, hosts, fields


Make = Callable[[random.Random, HeldKey], Genuine]


def new_nonce(rng: random.Random) -> str:
    return "".join(rng.choices(NONCE_ALPHABET, k=rng.randint(16, 64)))


def new_path(rng: random.Random) -> str:
    return "/echo/" + rng.choice(["things", "a%2Fb/c", "caf%C3%A9", "a.b/~x", "7"]) + f"/{rng.randrange(100)}"


def new_query(rng: random.Random) -> str:
    asked = ["q=caf%C3%A9", "filter=a%2Fb%26c", "empty=", f"page={rng.randrange(1000)}", "tilde=~x"]
    return "&".join(rng.sample(asked, rng.randint(1, 4)))


def new_body(rng: random.Random) -> str:
    content = {"amount": rng.randrange(10**6), "to": "Zoë", "note": "x" * rng.randrange(40)}
    return json.dumps(content, ensure_ascii=False).encode().decode("latin-1")


def query_call(method: str, *, bound: bool = True, nonce: bool = True, body: bool = False) -> Make:
    """Sign the query; `bound` covers method, path and body too."""

    def make(rng: random.Random, key: HeldKey) -> Genuine:
        path, content = new_path(rng), new_body(rng) if body else ""
        query, mac = sign_query(
            key.secret,
            new_query(rng),
            key.access_key,
            NOW + rng.randint(-60, 60),
            method=method if bound else None,
            path=path if bound else None,
            body=content.encode("latin-1") if bound else None,
            nonce=new_nonce(rng) if nonce else None,
        )
        headers: Headers = (("host", HOST), ("secret", mac))
        if body:
            headers = (*headers, ("content-type", "application/json"))
        return Genuine(
            sent=Sent.made(method, path, query, headers, content),
            form="query",
            key=key,
            covered=frozenset({"method", "path", "body"} if bound else ()),
            digest=bound,
        )

    return make


def message_call(
    method: str, *, query: bool = False, body: bool = False, idempotency_key: bool = False
) -> Make:
    """Sign the message."""

    def make(rng: random.Random, key: HeldKey) -> Genuine:
        path, asked = new_path(rng), new_query(rng) if query else ""
        content = new_body(rng) if body else None
        headers = sign_message(
            key.secret,
            key.access_key,
            NOW + rng.randint(-60, 60),
            method=method,
            scheme="http",
            authority=HOST,
            raw_path=path,
            query_string=asked,
            nonce=new_nonce(rng),
            body=None if content is None else content.encode("latin-1"),
            content_type="application/json" if body else None,
            idempotency_key=f'"order {rng.randrange(10**6)}"' if idempotency_key else None,
        )
        return Genuine(
            sent=Sent.made(method, path, asked, (("host", HOST), *headers.items()), content or ""),
            form="message",
            key=key,
            covered=frozenset({"method", "path", "body"}),
            digest=body,
        )

    return make


KINDS: Mapping[str, Make] = {
    "query GET": query_call("GET", bound=False, nonce=False),
    "query GET with nonce": query_call("GET", bound=False),
    "query GET that covers all": query_call("GET"),
    "query POST": query_call("POST", body=True),
    "query PATCH without nonce": query_call("PATCH", body=True, nonce=False),
    "query DELETE": query_call("DELETE"),
    "message GET": message_call("GET"),
    "message GET with query": message_call("GET", query=True),
    "message POST": message_call("POST", body=True),
    "message POST with all": message_call("POST", query=True, body=True, idempotency_key=True),
}


def mac_of(secret: str, text: str, algorithm: str = "sha256") -> str:
    return base64.b64encode(hmac.digest(secret.encode(), text.encode("latin-1"), algorithm)).decode()
