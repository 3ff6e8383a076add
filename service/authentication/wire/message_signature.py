"""The message form of a signed request (RFC 9421 with RFC 9530): signing, and verifying in steps.

    POST /v1/orders?dry_run=true
    Host: api.example.com
    Content-Type: application/json
    Content-Digest: sha-256=:<base64>:
    Signature-Input: sig1=("@method" "@authority" "@path" "@query" "content-type" "content-digest");\
created=1700000000;keyid="lka_…";nonce="…";tag="latchkey-v1"
    Signature: sig1=:<base64 of the HMAC-SHA256 of the signature base>:

The steps are separate functions because their order is a security property: `component_values`, `parse` and
`missing_coverage` check the shape, then the key is looked up, then `proves` and `is_current` check the signature.
Up to that point every failure looks the same to the client.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

import msgspec

from latchkey.service.authentication.wire import advice
from latchkey.service.authentication.wire.credentials import AccessKey, Secret, same
from latchkey.service.authentication.wire.extraction import IllFormed
from latchkey.service.authentication.wire.query_signature import in_window
from latchkey.service.authentication.wire.structured_fields import InnerList, byte_sequences, inner_lists

TAG = "latchkey-v1"
EMPTY_SHA256 = hashlib.sha256(b"").digest()

# The limit that servers commonly set for a request line; a signed query has the same limit.
_VALUE_LIMIT_BYTES = 8 * 1024
# A signature of this service takes about 300 bytes. The rest allows for a few others, and bounds what is parsed
# before authentication.
_SIGNATURE_LIMIT_BYTES = 2 * 1024
_SHA256_BYTES = 32

# A dictionary may appear in several lines, which are joined with ", " (RFC 9651, section 4.2, and RFC 9421,
# section 2.1, for the text that is signed). A proxy that signs adds lines of its own.
_DICTIONARIES = frozenset({"signature-input", "signature", "content-digest"})

_WHEN_SENT = ("content-type", "content-digest", "idempotency-key")

# The signature base consists of lines in ASCII: no value may end a line (RFC 9421, section 2.5).
_DERIVED = {
    "@method": re.compile(r"[!-~]+"),
    "@authority": re.compile(r"[!-~]+"),
    "@path": re.compile(r"/[!-~]*"),
    "@query": re.compile(r"\?[!-~]*"),
}
TARGET = "@target-uri"
# The whole URL says what these say, so a signature that covers it may leave them out (RFC 9421, section 2.2.2).
_IN_TARGET = frozenset({"@authority", "@path", "@query"})
# Signers of the whole URL leave this field out by default. It may be left out with this value alone, so that nobody can
# change the value of another type.
_PLAIN_TYPE = "application/json"

_FIELD = re.compile(r"[\t -~]*")

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]*))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}

_INTEGER = re.compile(r"0|[1-9][0-9]{0,11}")
# The parameters as they are spelled, quotes included. None of these strings has a second spelling.
_SHAPES = {
    "created": _INTEGER,
    "expires": _INTEGER,
    # The rest of the format of an access key depends on the prefix, which is not known here.
    "keyid": re.compile(r'"[!#-\[\]-~]+"'),
    "nonce": re.compile(r'"[A-Za-z0-9_-]{16,64}"'),
    "tag": re.compile(f'"{TAG}"'),
    "alg": re.compile(r'"hmac-sha256"'),
}
_REQUIRED = frozenset({"created", "keyid", "nonce", "tag"})
# Component names without parameters: a parameter would change the meaning of the component.
_COMPONENTS = re.compile(r'"[a-z@-]+"(?: "[a-z@-]+")*')

RequestHeaders = Iterable[tuple[bytes, bytes]]
"""As in an ASGI scope, with names in lower case."""


class MessageSignature(msgspec.Struct, frozen=True, kw_only=True):
    """The parsed signature of a message; nothing of it is verified yet."""

    label: str
    access_key: str
    created: int
    """Unix seconds; so is `expires`."""
    expires: int | None
    nonce: str
    components: tuple[str, ...]
    parameters: str
    """The value of `@signature-params`, as received."""
    signed: str
    """The signature base: the text that the sender must have signed."""
    mac: bytes
    content_sha256: bytes
    """The SHA-256 that the body must have; that of an empty body when the message has no Content-Digest."""

    def __repr__(self) -> str:
        # A client may have sent its secret in place of its access key.
        return f"MessageSignature(created={self.created})"


def component_values(
    *,
    method: str,
    scheme: str,
    raw_path: bytes,
    query_string: bytes,
    headers: RequestHeaders,
    public_authority: str | None = None,
) -> dict[str, str]:
    """Return all values that a signature of this request must cover, by component name, or raise IllFormed.

    Args:
        method: as received.
        scheme: `http` or `https`; the authority does not contain the default port of the scheme.
        raw_path: as in an ASGI scope, the bytes as received, without the query.
        query_string: as in an ASGI scope, the bytes as received.
        headers: as in an ASGI scope.
        public_authority: the authority that clients use, when a proxy sends another name in `Host`.
    """
    sent = _fields(headers, ("host", *_WHEN_SENT), _VALUE_LIMIT_BYTES)
    host = sent.pop("host", "")
    values = {
        "@method": method,
        "@authority": _authority(host, scheme) if public_authority is None else public_authority.lower(),
        "@path": raw_path.decode("latin-1") or "/",
        "@query": "?" + query_string.decode("latin-1"),
        **sent,
    }
    for name, value in values.items():
        if len(value) > _VALUE_LIMIT_BYTES or not _DERIVED.get(name, _FIELD).fullmatch(value):
            raise IllFormed(
                f"a value of {name} that cannot be signed",
                f"It must be visible ASCII, percent-encoded where necessary, of at most {_VALUE_LIMIT_BYTES} bytes.",
            )
    return values


def target_uri(values: Mapping[str, str], scheme: str) -> str:
    """Return the absolute URL of a request, from its component values; a `?` without a query is not part of it."""
    query = values["@query"]
    return f"{scheme}://{values['@authority']}{values['@path']}{'' if query == '?' else query}"


def parse(
    headers: RequestHeaders, values: Mapping[str, str], *, target: str | None = None
) -> MessageSignature:
    """Parse the only signature that is tagged for this service, or raise IllFormed.

    Signatures with other tags, such as those of a proxy, may appear beside it, in the same header lines or in others.
    They are ignored.

    Args:
        headers: as in an ASGI scope.
        values: what `component_values` returned for the same request; a signature that covers anything else is
            refused.
        target: the value of `@target-uri`, which may be covered too; None refuses it.
    """
    inputs, macs = _dictionaries(headers)
    tags = [one.parameters["tag"] for one in inputs.values() if "tag" in one.parameters]
    ours = [label for label, one in inputs.items() if one.parameters.get("tag") == f'"{TAG}"']
    if len(ours) != 1:
        raise IllFormed(
            f"{'more than one' if ours else 'no'} signature with the tag of this service",
            advice.TAG.expected if ours else advice.TAG.advice(tags[0] if len(tags) == 1 else ""),
        )

    label = ours[0]
    given, mac = inputs[label], macs[label]
    if len(mac) != _SHA256_BYTES:
        raise IllFormed("a signature of another length", advice.MAC_OF_MESSAGE.advice(_base64(mac)))
    for name, text in given.parameters.items():
        if name not in _SHAPES:
            raise IllFormed(
                "a parameter that is not known",
                f"Only these are accepted in `Signature-Input`: {', '.join(_SHAPES)}.",
            )
        if not _SHAPES[name].fullmatch(text):
            raise IllFormed(f"an ill-formed {name} parameter", advice.MESSAGE[name].advice(text))
    if absent := sorted(_REQUIRED - given.parameters.keys()):
        raise IllFormed(
            f"a signature without {', '.join(absent)}",
            " ".join(advice.MESSAGE[name].expected for name in absent),
        )
    known = values if target is None else {**values, TARGET: target}
    components = _components(given.items, known)
    expires = given.parameters.get("expires")
    return MessageSignature(
        label=label,
        access_key=given.parameters["keyid"].strip('"'),
        created=int(given.parameters["created"]),
        expires=None if expires is None else int(expires),
        nonce=given.parameters["nonce"].strip('"'),
        components=components,
        parameters=given.text,
        signed=signature_base(components, known, given.text),
        mac=mac,
        content_sha256=_content_sha256(values),
    )


def requested(headers: RequestHeaders, *, has_body: bool, nonce: str) -> str:
    """Return the value of `Accept-Signature` for a request: the signature that it needs (RFC 9421, section 5)."""
    sent = {name.decode("latin-1") for name, _ in headers}
    if has_body:
        sent.add("content-digest")
    covered = " ".join(f'"{name}"' for name in (*_DERIVED, *(name for name in _WHEN_SENT if name in sent)))
    return f'sig1=({covered});created;nonce="{nonce}";alg="hmac-sha256";tag="{TAG}"'


def missing_coverage(
    signature: MessageSignature, values: Mapping[str, str], has_body: bool
) -> tuple[str, ...]:
    """Return the components that this request must be signed with, and is not.

    A body requires its digest, even if the request has no Content-Digest header. `@target-uri` stands for authority, path
    and query.
    """
    needed = dict.fromkeys((*values, "content-digest") if has_body else values)
    if TARGET in signature.components:
        optional = _IN_TARGET | ({"content-type"} if values.get("content-type") == _PLAIN_TYPE else set())
        needed = {name: None for name in needed if name not in optional}
    return tuple(name for name in needed if name not in signature.components)


def signature_base(components: Iterable[str], values: Mapping[str, str], parameters: str) -> str:
    """Return the text that is signed (RFC 9421, section 2.5): a line for each component, then the parameters."""
    lines = [f'"{name}": {values[name]}' for name in components]
    return "\n".join([*lines, f'"@signature-params": {parameters}'])


def proves(signature: MessageSignature, secret: Secret) -> bool:
    """Return whether the holder of the secret signed the message."""
    return same(_mac(secret.encode(), signature.signed), signature.mac)


def is_current(signature: MessageSignature, now: float, window_s: float) -> bool:
    """Return whether a signature was made at most `window_s` seconds before or after now, and has not expired."""
    return in_window(signature.created, now, window_s) and (
        signature.expires is None or now <= signature.expires
    )


def sign_message(
    secret: Secret,
    access_key: AccessKey,
    now: float,
    *,
    method: str,
    scheme: str,
    authority: str,
    raw_path: str,
    query_string: str = "",
    nonce: str,
    body: bytes | None = None,
    content_type: str | None = None,
    idempotency_key: str | None = None,
) -> dict[str, str]:
    """Sign a call, and return the headers to send with it, including those that the signature covers.

    Args:
        secret: the whole secret, including `lks_`.
        access_key: the access key.
        now: unix seconds; fractions of a second are dropped.
        method: as it will be sent, in upper case.
        scheme: `http` or `https`.
        authority: host and port as in the URL; the default port of the scheme may be omitted.
        raw_path: as it will be sent, with its percent escapes.
        query_string: as it will be sent, without the question mark.
        nonce: 16 to 64 of `[A-Za-z0-9_-]`, never used before.
        body: the bytes that will be sent. None sends none, and signs no digest.
        content_type: of the body.
        idempotency_key: the value of the header `idempotency-key`.

    Raises:
        ValueError: a part of the call, the access key or the nonce cannot be signed.
    """
    digest = None if body is None else f"sha-256=:{_base64(hashlib.sha256(body).digest())}:"
    sent = {"content-type": content_type, "content-digest": digest, "idempotency-key": idempotency_key}
    headers = {name: value for name, value in sent.items() if value is not None}
    try:
        values = component_values(
            method=method,
            scheme=scheme,
            raw_path=raw_path.encode(),
            query_string=query_string.encode(),
            headers=[
                (name.encode(), value.encode()) for name, value in {"host": authority, **headers}.items()
            ],
        )
    except IllFormed as refusal:
        raise ValueError(f"The call has {refusal.reason}.") from None
    parameters = {
        "created": str(int(now)),
        "keyid": f'"{access_key}"',
        "nonce": f'"{nonce}"',
        "tag": f'"{TAG}"',
    }
    for name, text in parameters.items():
        if not _SHAPES[name].fullmatch(text):
            raise ValueError(f"The call has an ill-formed {name}.")
    covered = " ".join(f'"{name}"' for name in values)
    params = f"({covered})" + "".join(f";{name}={text}" for name, text in parameters.items())
    mac = _mac(secret.encode(), signature_base(values, values, params))
    return {**headers, "signature-input": f"sig1={params}", "signature": f"sig1=:{_base64(mac)}:"}


def signed_text(
    *, method: str, scheme: str, raw_path: str, query_string: str, headers: Mapping[str, str]
) -> str:
    """Return the signature base of a call with the headers that `sign_message` returned, and `host`."""
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    values = component_values(
        method=method,
        scheme=scheme,
        raw_path=raw_path.encode(),
        query_string=query_string.encode(),
        headers=sent,
    )
    return parse(sent, values).signed


def _dictionaries(headers: RequestHeaders) -> tuple[dict[str, InnerList], dict[str, bytes]]:
    """Return the inputs and the signatures by their labels, which are the same, or raise IllFormed."""
    sent = _fields(headers, ("signature-input", "signature"), _SIGNATURE_LIMIT_BYTES)
    if len(sent) < 2:  # noqa: PLR2004 - both
        raise IllFormed(
            f"no header {'signature' if 'signature-input' in sent else 'signature-input'}",
            advice.SIGNED_MESSAGE.advice(str(sent)),
        )
    try:
        inputs = inner_lists(sent["signature-input"])
    except ValueError as error:
        raise IllFormed(
            f"an ill-formed header signature-input: {error}",
            advice.SIGNATURE_INPUT.advice(sent["signature-input"]),
        ) from None
    try:
        macs = byte_sequences(sent["signature"])
    except ValueError as error:
        raise IllFormed(
            f"an ill-formed header signature: {error}", advice.of_signature(sent["signature"])
        ) from None
    if inputs.keys() != macs.keys():
        raise IllFormed("signatures and inputs of different labels", advice.SIGNED_MESSAGE.expected)
    return inputs, macs


def _fields(headers: RequestHeaders, names: tuple[str, ...], limit_bytes: int) -> dict[str, str]:
    # Of two equal headers, Starlette reads the first, and the upstream of a gateway may read the last.
    wanted = {name.encode(): name for name in names}
    found: dict[str, str] = {}
    for field, value in headers:
        if field not in wanted:
            continue
        name = wanted[field]
        # White space around a value is not part of it (RFC 9110, section 5.5).
        text = value.strip(b" \t").decode("latin-1")
        if name in found:
            if name not in _DICTIONARIES:
                raise IllFormed(f"more than one {name} header", "Send it once.")
            text = f"{found[name]}, {text}"
        if len(value) > limit_bytes or len(text) > limit_bytes:
            raise IllFormed(f"a {name} header that is too long", f"At most {limit_bytes} bytes are accepted.")
        found[name] = text
    return found


def _authority(host: str, scheme: str) -> str:
    # RFC 9421, section 2.2.3
    match = _HOST.fullmatch(host)
    if match is None:
        raise IllFormed(
            "no host, or an ill-formed one",
            "`Host` must be the host of the URL and, unless it is usual, its port.",
        )
    port = match[2]
    return match[1].lower() + ("" if port in {None, "", _DEFAULT_PORTS.get(scheme)} else f":{port}")


def _components(items: str, values: Mapping[str, str]) -> tuple[str, ...]:
    if not _COMPONENTS.fullmatch(items):
        raise IllFormed("an ill-formed list of components", advice.COMPONENTS.advice(items))
    components = tuple(items.replace('"', "").split(" "))
    if len(set(components)) < len(components):
        raise IllFormed("a component more than once", "Cover each component once.")
    if surplus := set(components) - values.keys():
        raise IllFormed(
            "a component that the request has not, or that is not covered here",
            advice.of_components(surplus, tuple(values)),
        )
    return components


def _content_sha256(values: Mapping[str, str]) -> bytes:
    if "content-digest" not in values:
        return EMPTY_SHA256
    # Another digest beside this one would be signed but never checked.
    try:
        match byte_sequences(values["content-digest"]):
            case {"sha-256": digest, **others} if not others and len(digest) == _SHA256_BYTES:
                return digest
    except ValueError:
        pass
    raise IllFormed(
        "a content-digest header that is not one SHA-256",
        advice.CONTENT_DIGEST.advice(values["content-digest"]),
    )


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
