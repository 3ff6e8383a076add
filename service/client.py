"""The other side of the wire: signing a call, showing it as a curl line, sending it.

Nothing here knows the database or the settings; it is what a partner does.
"""

import http.client
import re
import shlex
import ssl
from collections.abc import Mapping
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import msgspec
from starlette.datastructures import QueryParams

from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.authentication.wire.query_signature import sign_query

Form = Literal["query", "message"]
"""Where the signature travels: in the query, or in headers (RFC 9421)."""

TIMEOUT_S = 30.0

HEADER_TEXT = re.compile(r"[!-~](?:[ -~]*[!-~])?")
PRINTABLE = re.compile(r"[!-~]+")


class CallError(Exception):
    """The call got no answer; the text says why."""


class SignedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that is ready to be sent, once: its signature is of this method, path, query and body."""

    method: str
    url: str
    """With the signature in its query, if that is its form."""
    headers: Mapping[str, str]
    body: bytes | None

    def curl(self) -> str:
        """Write the call as a command for a shell, which sends exactly what was signed."""
        words = ["curl", "-sS", *(["--head"] if self.method == "HEAD" else ["-X", self.method])]
        if set("[]{}").intersection(self.url):
            words.append("--globoff")  # else curl takes the brackets for a pattern
        if "/." in urlsplit(self.url).path:
            words.append("--path-as-is")  # else curl resolves the dots
        for name, value in self.headers.items():
            words += ["-H", f"{name}: {value}"]
        if self.body is not None:
            words += ["--data-raw", self.body.decode()]
        return shlex.join([*words, self.url])


class ClientResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status_line: str
    status: int
    body: bytes


def sign_call(
    method: str,
    url: str,
    *,
    access_key: AccessKey,
    secret: Secret,
    body: str | None = None,
    now: float,
    nonce: str,
    form: Form = "query",
    idempotency_key: str | None = None,
) -> SignedCall:
    """Sign method, path, query, nonce and the body; as a message also the host.

    As a query, a safe method without a body says nothing of one.

    Args:
        method: in upper case.
        url: absolute and percent-encoded; it is sent to the byte. A signature in the query goes in front of it.
        access_key: the public id.
        secret: the whole secret.
        body: JSON; None sends none.
        now: unix seconds.
        nonce: 16 to 64 of `[A-Za-z0-9_-]`, never used before.
        form: where the signature goes.
        idempotency_key: the header of this name, the same for a call and its retries; a message signs it.

    Raises:
        ValueError: the URL or the key cannot be signed or sent as it is, or the method takes no body.
    """
    if method == "HEAD" and body is not None:
        raise ValueError("A HEAD call has no body.")
    if idempotency_key is not None and not HEADER_TEXT.fullmatch(idempotency_key):
        raise ValueError("The idempotency key is empty, or has a character that no header has.")
    parts = split_url(url)
    path = parts.path or "/"
    content = None if body is None else body.encode()
    content_type = None if body is None else "application/json"
    if form == "query":
        query, mac = sign_query(
            secret, parts.query, access_key, now, method=method, path=path, body=content, nonce=nonce
        )
        headers = {"secret": mac}
        if content_type is not None:
            headers["content-type"] = content_type
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
    else:
        query = parts.query
        if "key" in QueryParams(query):
            raise ValueError("The query has the parameter key, which would be a second credential.")
        authority = host_header(parts)
        headers = sign_message(
            secret,
            access_key,
            now,
            method=method,
            scheme=parts.scheme,
            authority=authority,
            raw_path=path,
            query_string=query,
            nonce=nonce,
            body=content,
            content_type=content_type,
            idempotency_key=idempotency_key,
        )
        # Else the sender writes the host in a way of its own: curl makes 127.0.0.1 of 127.1.
        headers["host"] = authority
    return SignedCall(
        method=method,
        url=f"{parts.scheme}://{parts.netloc}{path}" + (f"?{query}" if query else ""),
        headers=headers,
        body=content,
    )


def host_header(parts: SplitResult) -> str:
    """Write the `Host` of a URL: without the port that its scheme has anyway (RFC 9110, section 7.2)."""
    host = parts.netloc.lower()
    without_port = host[: host.rindex(":")] if parts.port is not None or host.endswith(":") else host
    usual = {"http": http.client.HTTP_PORT, "https": http.client.HTTPS_PORT}[parts.scheme]
    return without_port if parts.port in {None, usual} else f"{without_port}:{parts.port}"


def split_url(url: str) -> SplitResult:
    """Split an absolute URL, or say with a ValueError what is wrong with it."""
    if not PRINTABLE.fullmatch(url):
        raise ValueError(
            "The URL has a space, a control character or a letter outside ASCII: percent-encode it."
        )
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("The URL starts with http:// or https:// and a host.")
    if "@" in parts.netloc:
        raise ValueError("The URL carries a user name, which would be a second credential.")
    if "#" in url:
        raise ValueError("The URL has a fragment, which is never sent: percent-encode the # or leave it out.")
    if parts.port == 0:
        raise ValueError("Port out of range 1-65535")
    return parts


def send(call: SignedCall) -> ClientResponse:
    """Send a call, byte for byte as it was signed; certificates are verified, redirections not followed.

    Raises:
        CallError: no answer came.
    """
    parts = urlsplit(call.url)
    assert parts.hostname is not None  # noqa: S101 - `sign_call` saw to it
    connection = (
        http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=TIMEOUT_S, context=ssl.create_default_context()
        )
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    )
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(call.method, target, call.body, dict(call.headers))
        answer = connection.getresponse()
        body = answer.read()
    except OSError as error:
        raise CallError(f"{parts.netloc} does not answer: {error.strerror or error}.") from error
    except http.client.HTTPException as error:
        raise CallError(f"{parts.netloc} does not speak HTTP: {type(error).__name__}.") from error
    finally:
        connection.close()
    version = "1.0" if answer.version == 10 else "1.1"  # noqa: PLR2004 - as http.client counts
    return ClientResponse(
        status_line=f"HTTP/{version} {answer.status} {answer.reason}".rstrip(),
        status=answer.status,
        body=body,
    )
