"""The client side: sign a call (`latchkey.sign_call`), print it as a curl command, send it.

This module uses neither the database nor the settings; it does the work of a partner.
"""

import http.client
import re
import secrets
import shlex
import ssl
from collections.abc import Mapping
from typing import Literal, get_args
from urllib.parse import SplitResult, urlsplit

import msgspec
from starlette.datastructures import QueryParams

from latchkey.service.authentication.wire import query_signature
from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from latchkey.service.authentication.wire.extraction import IllFormed
from latchkey.service.authentication.wire.message_signature import sign_message, signed_text
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.clock import unix_s

Form = Literal["query", "message"]
"""The place of the signature: the query, or headers (RFC 9421)."""

TIMEOUT_S = 30.0

HEADER_TEXT = re.compile(r"[!-~](?:[ -~]*[!-~])?")
METHOD = re.compile(r"[A-Z-]{1,32}")
PRINTABLE = re.compile(r"[!-~]+")


class CallError(Exception):
    """The call got no response; the message explains why."""


class SignedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A signed call, to be sent once: its signature covers this method, path, query and body.

    `method`, `url`, `headers` and `body` are what to send. `signed_text` is the text that was signed, for a comparison.
    """

    method: str
    url: str
    """The URL, with the signature in its query if the form is `query`."""
    headers: Mapping[str, str]
    body: bytes | None
    signed_text: str
    """The text that was signed: the query, or the signature base."""

    def curl(self) -> str:
        """Return a shell command that sends exactly the signed call; its body must be text."""
        words = ["curl", "-sS", *(["--head"] if self.method == "HEAD" else ["-X", self.method])]
        if set("[]{}").intersection(self.url):
            words.append("--globoff")  # otherwise curl treats the brackets as a pattern
        if "/." in urlsplit(self.url).path:
            words.append("--path-as-is")  # otherwise curl resolves the dots
        for name, value in self.headers.items():
            words += ["-H", f"{name}: {value}"]
        if self.body is not None:
            words += ["--data-raw", self.body.decode()]
        return shlex.join([*words, self.url])


class ClientResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The response to a call."""

    status_line: str
    status: int
    body: bytes


def sign_call(
    method: str,
    url: str,
    *,
    access_key: str,
    secret: str,
    body: bytes | str | None = None,
    content_type: str = "application/json",
    form: Form = "query",
    idempotency_key: str | None = None,
    now: float | None = None,
    nonce: str | None = None,
) -> SignedCall:
    """Sign a call, as a partner does: method, path, query, nonce and body, in a message also the host.

    Send the result once, with any HTTP client, exactly as it is: `client.request(call.method, call.url,
    headers=call.headers, content=call.body)`. In a query, a safe method without a body signs no digest.

    Args:
        method: in upper case.
        url: absolute and percent-encoded; sent byte for byte. A signature in the query is put in front of it.
        access_key: the access key.
        secret: the whole secret.
        body: the bytes to send, or text, which is sent in UTF-8; None sends none.
        content_type: of the body; a message signs it.
        form: `"query"` puts the signature into the query and the header `secret`, `"message"` into headers (RFC 9421).
        idempotency_key: the header of this name, the same for a call and its retries; a message signs it.
        now: unix seconds; None means the current time. The signature is valid for about a minute.
        nonce: 16 to 64 of `[A-Za-z0-9_-]`, never used before; None makes a new one.

    Raises:
        ValueError: the URL, the key or another part cannot be signed or sent unchanged, or the method has no body.
    """
    if form not in get_args(Form):
        raise ValueError(f"The form must be one of {', '.join(get_args(Form))}.")
    require_method(method, has_body=body is not None)
    if not secret:
        raise ValueError("The secret is empty.")
    for name, text in (("idempotency key", idempotency_key), ("content type", content_type)):
        if text is not None and not HEADER_TEXT.fullmatch(text):
            raise ValueError(f"The {name} is empty, or has a character that is not allowed in a header.")
    now = unix_s() if now is None else now
    nonce = secrets.token_urlsafe(16) if nonce is None else nonce
    sealed, key = Secret(secret), AccessKey(access_key)
    parts = split_url(url)
    path = parts.path or "/"
    content = body.encode() if isinstance(body, str) else body
    type_of_body = None if body is None else content_type
    if form == "query":
        query, mac = sign_query(
            sealed, parts.query, key, now, method=method, path=path, body=content, nonce=nonce
        )
        require_well_formed(query, mac)
        headers = {"secret": mac}
        text = query
        if type_of_body is not None:
            headers["content-type"] = type_of_body
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
    else:
        query = parts.query
        if "key" in QueryParams(query):
            raise ValueError("The query has the parameter key, which would be a second credential.")
        authority = host_header(parts)
        headers = sign_message(
            sealed,
            key,
            now,
            method=method,
            scheme=parts.scheme,
            authority=authority,
            raw_path=path,
            query_string=query,
            nonce=nonce,
            body=content,
            content_type=type_of_body,
            idempotency_key=idempotency_key,
        )
        # Otherwise the sender may rewrite the host: curl turns 127.1 into 127.0.0.1.
        headers["host"] = authority
        text = signed_text(
            method=method, scheme=parts.scheme, raw_path=path, query_string=query, headers=headers
        )
    return SignedCall(
        method=method,
        url=f"{parts.scheme}://{parts.netloc}{path}" + (f"?{query}" if query else ""),
        headers=headers,
        body=content,
        signed_text=text,
    )


def require_method(method: str, *, has_body: bool) -> None:
    """Raise ValueError for a method that cannot be signed, or that has no body."""
    if not METHOD.fullmatch(method):
        raise ValueError("The method must be a word in upper case.")
    if has_body and method == "HEAD":
        raise ValueError("A HEAD call cannot have a body.")


def require_well_formed(query: str, mac: str) -> None:
    """Raise ValueError for a signed query that every server refuses, whatever the key."""
    try:
        query_signature.parse(query.encode(), mac.encode())
    except IllFormed as refusal:
        raise ValueError(f"The call has {refusal.reason}.") from None


def host_header(parts: SplitResult) -> str:
    """Return the `Host` of a URL, without the default port of its scheme (RFC 9110, section 7.2)."""
    host = parts.netloc.lower()
    without_port = host[: host.rindex(":")] if parts.port is not None or host.endswith(":") else host
    usual = {"http": http.client.HTTP_PORT, "https": http.client.HTTPS_PORT}[parts.scheme]
    return without_port if parts.port in {None, usual} else f"{without_port}:{parts.port}"


def split_url(url: str) -> SplitResult:
    """Split an absolute URL, or raise a ValueError that explains what is wrong with it."""
    if not PRINTABLE.fullmatch(url):
        raise ValueError(
            "The URL has a space, a control character or a letter outside ASCII: percent-encode it."
        )
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("The URL must start with http:// or https:// and a host.")
    if "@" in parts.netloc:
        raise ValueError("The URL contains a user name, which would be a second credential.")
    if "#" in url:
        raise ValueError("The URL has a fragment, which is never sent: percent-encode the # or remove it.")
    try:
        is_port = parts.port != 0
    except ValueError:
        is_port = False
    if not is_port:
        raise ValueError("The port of the URL must be a number from 1 to 65535.")
    return parts


def send(call: SignedCall) -> ClientResponse:
    """Send a call byte for byte as signed; certificates are verified, and redirects are not followed.

    Raises:
        CallError: there was no response.
    """
    parts = urlsplit(call.url)
    assert parts.hostname is not None  # noqa: S101 - checked by `sign_call`
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
