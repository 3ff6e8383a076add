"""Sign calls in both forms of Latchkey: in the query, or in headers as RFC 9421 describes it."""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Literal, get_args
from urllib.parse import SplitResult, quote, urlsplit

Form = Literal["query", "message"]
"""The place of the signature: the query, or headers."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
DEFAULT_PORTS = {"http": 80, "https": 443}
CLOCK_TOLERANCE_S = 5


class Signer:
    """A signing key, with the difference between the clock of this machine and that of the server.

    Args:
        access_key: the access key, `lka_…`.
        secret: the whole secret, `lks_…`.
        form: `"query"` puts the signature into the query and the header `secret`, `"message"` into headers.
        clock: returns the Unix time in seconds.
    """

    def __init__(
        self, access_key: str, secret: str, *, form: Form = "query", clock: Callable[[], float] = time.time
    ) -> None:
        if form not in get_args(Form):
            raise ValueError(f"The form must be one of {', '.join(get_args(Form))}.")
        self.access_key = access_key
        self.form = form
        self._secret = secret.encode()
        self._clock = clock
        self._ahead_s = 0.0  # how far the server's clock is ahead of ours

    def sign(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, nonce: str | None = None
    ) -> tuple[str, dict[str, str]]:
        """Return the URL and the additional headers of a signed call; send it once, and exactly like this.

        Args:
            method: in upper case.
            url: absolute and percent-encoded.
            headers: what is sent with the call. `host`, `content-type` and `idempotency-key` are signed in a message.
            body: what is sent; `b""` for none.
            nonce: 16 to 64 of `[A-Za-z0-9_-]`, never used before; None makes a new one.
        """
        created = int(self._clock() + self._ahead_s)
        nonce = nonce or secrets.token_urlsafe(16)
        parts = urlsplit(url)
        if self.form == "query":
            return self._sign_query(method, parts, body, created=created, nonce=nonce)
        sent = {name.lower(): value for name, value in headers.items()}
        return self._sign_message(method, parts, sent, body, created=created, nonce=nonce)

    def _sign_query(
        self, method: str, parts: SplitResult, body: bytes, *, created: int, nonce: str
    ) -> tuple[str, dict[str, str]]:
        path = parts.path or "/"
        signed = {
            "key": self.access_key,
            "timestamp": str(created),
            "nonce": nonce,
            "method": method,
            "path": path,
        }
        if body or method not in SAFE_METHODS:
            signed["content_sha256"] = hashlib.sha256(body).hexdigest()
        own = "&".join(f"{name}={quote(value, safe='')}" for name, value in signed.items())
        query = f"{own}&{parts.query}" if parts.query else own
        return f"{parts.scheme}://{parts.netloc}{path}?{query}", {"secret": self.mac(query)}

    def _sign_message(
        self,
        method: str,
        parts: SplitResult,
        sent: Mapping[str, str],
        body: bytes,
        *,
        created: int,
        nonce: str,
    ) -> tuple[str, dict[str, str]]:
        path = parts.path or "/"
        added: dict[str, str] = {}
        components = {
            "@method": method,
            "@authority": sent.get("host", host_of(parts)).lower(),
            "@path": path,
            "@query": f"?{parts.query}",
        }
        if "content-type" in sent:
            components["content-type"] = sent["content-type"]
        if body:
            digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
            added["content-digest"] = components["content-digest"] = f"sha-256=:{digest}:"
        if "idempotency-key" in sent:
            components["idempotency-key"] = sent["idempotency-key"]
        covered = " ".join(f'"{name}"' for name in components)
        parameters = (
            f'({covered});created={created};keyid="{self.access_key}";nonce="{nonce}";tag="latchkey-v1"'
        )
        lines = [f'"{name}": {value}' for name, value in components.items()]
        base = "\n".join([*lines, f'"@signature-params": {parameters}'])
        added["signature-input"] = f"sig1={parameters}"
        added["signature"] = f"sig1=:{self.mac(base)}:"
        query = f"?{parts.query}" if parts.query else ""
        return f"{parts.scheme}://{parts.netloc}{path}{query}", added

    def mac(self, text: str) -> str:
        """Return the HMAC-SHA256 of a text in base64."""
        return base64.b64encode(hmac.digest(self._secret, text.encode(), "sha256")).decode()

    def correct_clock(self, date: str | None) -> bool:
        """Use the time of the server, as its header `Date` states it, and return whether the clocks were different.

        Over `http` anybody on the way can write this header: use `https`.
        """
        try:
            ahead_s = parsedate_to_datetime(date or "").timestamp() - self._clock()
        except ValueError:
            return False
        if abs(ahead_s - self._ahead_s) <= CLOCK_TOLERANCE_S:
            return False
        self._ahead_s = ahead_s
        return True


def host_of(parts: SplitResult) -> str:
    """Return the `Host` of a URL: without the default port of its scheme."""
    host = parts.netloc.rpartition("@")[2]
    default = parts.port in {None, DEFAULT_PORTS.get(parts.scheme)}
    return host.removesuffix(f":{parts.port}").removesuffix(":") if default else host
