"""The parts of the OpenAPI description that do not depend on the routes: texts, credentials, headers, and the error."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from latchkey.service.idempotency.key import BARE_CHARACTER, LONGEST_KEY
from latchkey.service.problems import FieldError
from latchkey.service.shapes import END

JsonObject = dict[str, Any]

ABOUT = """\
Users, their API keys, and the calls that partners make with those keys.

- Every path with GET also supports HEAD, which returns the same headers without a body and is signed as HEAD.
- Every error is a problem (RFC 9457), and `GET /problems/{code}` explains each code.
- An unknown path returns `not_found`, an unsupported method `method_not_allowed`.
- A parameter that an operation does not have is refused, never ignored.
- Times are RFC 3339 in UTC.
- If a call uses a secret that a rotation has replaced, the response has `Deprecation` (RFC 9745), the time of the
  rotation, and `Sunset` (RFC 8594), the time at which the old secret expires.
- If the key or its owner has limits, every response to its calls has `RateLimit-Policy` and `RateLimit`
  (draft-ietf-httpapi-ratelimit-headers-10)."""

# Relative to the URL of this document, which the service itself serves.
SERVER = "The service that serves this document."

TAGS = {
    "service": "The service itself: its state, its problems and this document.",
    "me": "The calling key, its owner and the owner's other keys.",
    "users": "The owners of keys.",
    "keys": "The API keys of all users.",
    "gate": "Decisions about requests that a proxy received, for services that do not handle keys themselves, and their rules.",
    "roles": "Names for several scopes, which keys can have.",
    "scopes": "The scopes of other services that keys can have.",
    "signatures": "Explanations of signatures that were refused.",
}
"""What the operations of a tag have in common; a tag of another name is one of a team."""

INFO = {"title": "Latchkey", "description": ABOUT, "license": {"name": "MIT", "identifier": "MIT"}}

BEARER = "The whole secret of a key of the mode `bearer`."
SIGNED_KEY = """\
The access key of a key of the mode `signed`, in a query whose signature is in the header `secret`.

The query also contains `timestamp`, in unix seconds, at most a minute off unless the operator configures otherwise.
Four more parameters bind the parts outside the query: `method`, as sent, in upper case; `path`, as sent, with its
percent escapes encoded once more; `content_sha256`, the SHA-256 of the body in 64 lower-case hex digits; `nonce`, 16
to 64 of `[A-Za-z0-9_-]`. Methods other than GET and HEAD need `method`, `path` and, with a body, `content_sha256`. Each
parameter may appear only once, and no operation has its own parameters with these names."""
SIGNATURE = """\
The signature of a query with the parameter `key`: the base64 of the HMAC-SHA256 of the query string as sent, without
the question mark, with the UTF-8 of the key's whole secret as the HMAC key. The secret itself is never sent."""

MESSAGE = """\
A signature of the message (RFC 9421) with the algorithm `hmac-sha256`: `keyid` is the access key of a key of the mode
`signed`, whose whole secret is the HMAC key. The parameters `created`, `keyid`, `nonce` and `tag="latchkey-v1"` are
required. The signature must cover `@method`; `@authority`, `@path` and `@query`, or `@target-uri` in their place; and
each of `content-type`, `content-digest` and `idempotency-key` that is sent. A request with a body needs a `Content-Digest` (RFC 9530)."""
MESSAGE_INPUT = "The components and parameters of the signature (RFC 9421, section 4.1)."

SECURITY_SCHEMES: JsonObject = {
    "bearer": {"type": "http", "scheme": "bearer", "description": BEARER},
    "signed_query_key": {"type": "apiKey", "in": "query", "name": "key", "description": SIGNED_KEY},
    "signed_query_signature": {"type": "apiKey", "in": "header", "name": "secret", "description": SIGNATURE},
    "message_signature": {"type": "apiKey", "in": "header", "name": "Signature", "description": MESSAGE},
    "message_signature_input": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature-Input",
        "description": MESSAGE_INPUT,
    },
}
CREDENTIALS = (
    ("bearer",),
    ("signed_query_key", "signed_query_signature"),
    ("message_signature", "message_signature_input"),
)
"""The ways to authenticate, each with the schemes that it takes together."""

IDEMPOTENCY_KEY: JsonObject = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "With this header the call takes effect once, however often it is sent within 24 hours "
    "(draft-ietf-httpapi-idempotency-key-header-07). The value is a string in quotes, or the same text without them.",
    "schema": {
        "type": "string",
        "pattern": (
            rf'^(?:"(?:[ !#-\[\]-~]|\\["\\]){{1,{LONGEST_KEY}}}"|{BARE_CHARACTER}{{1,{LONGEST_KEY}}}){END}'
        ),
    },
}


def header(description: str, **schema: Any) -> JsonObject:
    """Return the description of a header, which is a text unless the schema says otherwise."""
    return {"description": description, "schema": {"type": "string", **schema}}


HEADERS: JsonObject = {
    "X-Request-ID": {
        "description": "The id of this request: the client's if it has this form, otherwise a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Location": header("The URL of the new row."),
    "Link": header('The next page, if any, as `rel="next"` (RFC 8288).'),
    "Idempotent-Replayed": header(
        "`true` if the call took effect before: this is the stored response.", enum=["true"]
    ),
    "RateLimit-Policy": header(
        "For a key with limits: its rules, with allowance `q` and window `w` in seconds."
    ),
    "RateLimit": header(
        "For a key with limits: the units `r` that are left of each rule, and the seconds `t` until more are available."
    ),
    "X-Latchkey-Owner": header(
        "The id of the owner of the key; empty, as the other headers, if anybody may make the request."
    ),
    "X-Latchkey-Key": header("The access key."),
    "X-Latchkey-External-Id": header("The external id of the key."),
    "X-Latchkey-Owner-External-Id": header("The external id of the owner."),
    "X-Latchkey-Scopes": header("The scopes of the key and of its roles, with spaces between them."),
    "X-Latchkey-Environment": header(
        "The environment of the key, such as live or test; empty on a public path."
    ),
    "X-Latchkey-Content-SHA256": header(
        "The SHA-256 that the body must have, in hex digits; empty if the credential does not cover it."
    ),
    "WWW-Authenticate": header("The schemes of credentials, or the scope that is missing (RFC 6750)."),
    "Accept-Signature": header(
        "The message signature that this request needs, with an unused nonce (RFC 9421, section 5)."
    ),
    "Retry-After": header("The number of seconds to wait before the request is sent again.", type="integer"),
}

# OpenAPI names the schema Problem, as RFC 9457 does; here that is the name of the exception.
ProblemDocument = msgspec.defstruct(
    "Problem",
    [
        ("type", Annotated[str, Meta(extra_json_schema={"format": "uri-reference"})]),
        ("title", str),
        ("status", int),
        ("detail", str),
        ("code", str),
        ("request_id", str),
        ("errors", list[FieldError] | UnsetType, UNSET),
    ],
    kw_only=True,
    module=__name__,
    namespace={
        "__doc__": "An error (RFC 9457). `code` is for programs, `detail` for people; `errors` points to faults in the body."
    },
)
