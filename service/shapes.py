"""The types of request and response bodies. Input is closed and bounded by its types; output is complete.

The bounds are part of the types, so that OpenAPI states what the decoder checks.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from latchkey.models.api_key import ENVIRONMENT_BYTES, ENVIRONMENT_PATTERN
from latchkey.models.limit import LIMIT_NAME_PATTERN, MOST_CREDITS, Credits, Quota, RateLimit
from latchkey.models.scope import DESCRIPTION_LENGTH
from latchkey.models.user import EMAIL_LENGTH, EXTERNAL_ID_BYTES, NAME_LENGTH
from latchkey.service.networks import LARGEST_LIST

LARGEST_ID = 2**63 - 1
CONTROL = r"\x00-\x1f\x7f-\x9f"
END = r"$(?![\s\S])"  # a plain $ would also match before a newline at the end
SPACE = r"\s\ufeff"  # clients check with ECMA-262, to which U+FEFF is white space; to Python it is not

Id = Annotated[int, Meta(ge=1, le=LARGEST_ID, extra_json_schema={"format": "int64"})]
EMAIL_PATTERN = rf"^[^@{SPACE}{CONTROL}]+@[^@{SPACE}{CONTROL}]+{END}"
NAME_PATTERN = rf"^[^{CONTROL}]+{END}"

WORDS_FOR_PATTERNS = {
    EMAIL_PATTERN: "an email address, with one @ and no space or control character",
    NAME_PATTERN: "text without control characters",
    LIMIT_NAME_PATTERN: "a lower-case letter and at most 31 more letters, digits, `_` or `-`",
}
"""The words for a pattern in messages to clients."""


def in_words(text: str) -> str:
    """Return a message of msgspec with words in place of patterns."""
    for pattern, words in WORDS_FOR_PATTERNS.items():
        text = text.replace(f"Expected `str` matching regex {pattern!r}", f"Expected {words}")
    return text


PathId = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,18}" + END)]
Email = Annotated[str, Meta(max_length=EMAIL_LENGTH, pattern=EMAIL_PATTERN)]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH, pattern=NAME_PATTERN)]
MOST_SCOPES = 100
Scopes = Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=MOST_SCOPES)]
ROLE_PATTERN = r"^[a-z][a-z0-9_.-]{0,39}" + END
RoleName = Annotated[str, Meta(max_length=40, pattern=ROLE_PATTERN)]
EnvironmentName = Annotated[str, Meta(max_length=ENVIRONMENT_BYTES, pattern=rf"^{ENVIRONMENT_PATTERN}{END}")]
MOST_ROLES = 20
Roles = Annotated[list[Annotated[str, Meta(max_length=40)]], Meta(max_length=MOST_ROLES)]
Networks = Annotated[
    list[Annotated[str, Meta(max_length=50)]],
    Meta(
        max_length=LARGEST_LIST,
        description="The networks from which the key may be used, such as 192.0.2.0/24; empty means anywhere.",
    ),
]
MOST_LIMITS = 5
RateLimits = Annotated[
    list[RateLimit],
    Meta(
        max_length=MOST_LIMITS,
        description="A call is charged to all limits or to none; empty means no limits.",
    ),
]
ExternalId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=EXTERNAL_ID_BYTES,
        pattern=r"^[!-~]+" + END,
        description="The id in another system, which no other row of the kind has.",
    ),
]
Metadata = Annotated[
    dict[str, Any], Meta(description="A JSON object of at most 4 KiB, which the service stores and returns.")
]
Moment = Annotated[datetime, Meta(tz=True)]
GRACE_LIMIT_S = 30 * 24 * 60 * 60  # 30 days
Grace = Annotated[int, Meta(ge=0, le=GRACE_LIMIT_S)]
SecretVersion = Annotated[int, Meta(ge=1)]
Limit = Annotated[int, Meta(ge=1, le=200, description="The maximum number of rows.")]
ExpiresBefore = Annotated[
    datetime, Meta(tz=True, description="Only keys that expire before this time; send its `+` as `%2B`.")
]
Cursor = Annotated[str, Meta(description="The `next_cursor` of the previous page, with the same filters.")]

# Not bool, which would also accept `1` and `TRUE`: the value must be intentional.
Force = Annotated[
    Literal["true", "false"],
    Meta(
        description="Delete or block the user even if it owns the key of this call, which then stops working."
    ),
]

UserStatus = Literal["active", "blocked", "deleted"]
KeyStatus = Literal["active", "revoked"]
Mode = Literal["bearer", "signed"]


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body or query of a request."""


class Output(msgspec.Struct, frozen=True):
    """The body of a response; no field has a default, so every value is set explicitly.

    `one_time` names the fields that are shown only once and not stored: they are null in the replay of an idempotent call.
    """

    one_time: ClassVar[frozenset[str]] = frozenset()


# ---------------------------------------------------------------------- users


class User(Output, frozen=True, kw_only=True):
    """An owner of keys."""

    id: Id
    email: str
    name: str
    status: UserStatus
    limits: tuple[RateLimit, ...]
    quota: Quota | None
    external_id: str | None
    meta: dict[str, Any]
    created_at: Moment
    updated_at: Moment


class UserPage(Output, frozen=True, kw_only=True):
    """One page of users."""

    data: list[User]
    next_cursor: str | None


class NewUser(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/users`."""

    email: Email
    name: Name
    external_id: ExternalId | None = None
    meta: Metadata = {}


class UserChange(Input, frozen=True, kw_only=True):
    """The body of `PATCH /v1/users/{id}`; absent fields stay unchanged, `quota` null removes the quota.

    `limits` and `quota` apply to all keys of the user together.
    """

    email: Email | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    status: Literal["active", "blocked"] | UnsetType = UNSET
    limits: RateLimits | UnsetType = UNSET
    quota: Quota | UnsetType | None = UNSET
    external_id: ExternalId | UnsetType | None = UNSET
    meta: Metadata | UnsetType = UNSET


class UserQuery(Input, frozen=True, kw_only=True):
    """The query of `GET /v1/users`."""

    limit: Limit = 50
    cursor: Cursor | None = None
    email: str | None = None
    status: UserStatus | None = None
    external_id: ExternalId | None = None


class UserForce(Input, frozen=True, kw_only=True):
    """The query of a call that may delete or block the owner of its own key."""

    force: Force = "false"


# ---------------------------------------------------------------------- keys


class StoredKey(Output, frozen=True, kw_only=True):
    """The fields of a key that are columns of its row."""

    access_key: str
    user_id: Id
    name: str
    mode: Mode
    scopes: tuple[str, ...]
    roles: tuple[str, ...]
    role_scopes: tuple[str, ...]
    allowed_networks: tuple[str, ...]
    limits: tuple[RateLimit, ...]
    quota: Quota | None
    external_id: str | None
    meta: dict[str, Any]
    status: KeyStatus
    secret_version: int
    old_secret_calls: int
    old_secret_last_used_at: Moment | None
    expires_at: Moment | None
    last_used_at: Moment | None
    created_at: Moment
    updated_at: Moment


class Key(StoredKey, frozen=True, kw_only=True):
    """A key, without its secret.

    `secret_version` increases with each rotation. `old_secret_calls` and `old_secret_last_used_at` count the uses of the
    secret that the last rotation replaced. They are a few seconds late, and 0 and null if there were none.
    `role_scopes` are the scopes that its `roles` give it. `credits` are null for a key whose calls spend none.
    """

    environment: str
    credits: Credits | None


OneTimeSecret = Annotated[
    str | None,
    Meta(description="Shown only here; null in the replay of a call with an Idempotency-Key."),
]


class KeyWithSecret(Key, frozen=True, kw_only=True):
    """A new key with its secret, which is shown only here.

    The secret is not stored, so it is null in the replay of an idempotent call: rotate the key to get another one.
    """

    one_time: ClassVar[frozenset[str]] = frozenset({"secret"})

    secret: OneTimeSecret


class RotatedKey(KeyWithSecret, frozen=True, kw_only=True):
    """A key with its new secret, and the end of the old one, which is null if it has ended already."""

    old_secret_expires_at: Moment | None


class KeyPage(Output, frozen=True, kw_only=True):
    """One page of keys."""

    data: list[Key]
    next_cursor: str | None


class NewMyKey(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/me/keys`; without `expires_at` the key never expires.

    `environment` is that of the calling key, which is also the default.
    """

    name: Name
    mode: Mode
    environment: EnvironmentName | None = None
    scopes: Scopes
    roles: Roles = []
    allowed_networks: Networks = []
    expires_at: Moment | None = None


class NewKey(NewMyKey, frozen=True, kw_only=True):
    """The body of `POST /v1/keys`; without `expires_at` the key never expires.

    `environment` is that of the calling key, which is also the default.
    """

    user_id: Id
    limits: RateLimits = []
    quota: Quota | None = None
    credits: Credits | None = None
    external_id: ExternalId | None = None
    meta: Metadata = {}


class Rotation(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/keys/{access_key}/rotate`.

    The old secret works for `grace_s` more seconds. With `version`, only that version is replaced.
    """

    grace_s: Grace
    version: SecretVersion | UnsetType = UNSET


class MyKeyChange(Input, frozen=True, kw_only=True):
    """The body of `PATCH /v1/me/keys/{access_key}`; absent fields stay unchanged, `expires_at` null means never."""

    name: Name | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    roles: Roles | UnsetType = UNSET
    allowed_networks: Networks | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET


class KeyChange(MyKeyChange, frozen=True, kw_only=True):
    """The body of `PATCH /v1/keys/{access_key}`; absent fields stay unchanged.

    `expires_at` null means never, `quota` null removes the quota, `credits` null the credits. `credits` replaces those that
    the key has; to change their number while calls spend them, use `POST /v1/keys/{access_key}/credits`.
    """

    limits: RateLimits | UnsetType = UNSET
    quota: Quota | UnsetType | None = UNSET
    credits: Credits | UnsetType | None = UNSET
    external_id: ExternalId | UnsetType | None = UNSET
    meta: Metadata | UnsetType = UNSET


class CreditChange(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/keys/{access_key}/credits`: the number of credits to add, or to take if it is negative."""

    delta: Annotated[int, Meta(ge=-MOST_CREDITS, le=MOST_CREDITS)]


class MyKeyQuery(Input, frozen=True, kw_only=True):
    """The query of `GET /v1/me/keys`."""

    limit: Limit = 50
    cursor: Cursor | None = None
    status: KeyStatus | None = None
    role: RoleName | None = None
    environment: EnvironmentName | None = None
    expires_before: ExpiresBefore | None = None


class KeyQuery(MyKeyQuery, frozen=True, kw_only=True):
    """The query of `GET /v1/keys`."""

    user_id: Id | None = None
    external_id: ExternalId | None = None


# ---------------------------------------------------------------------- scopes

ScopeName = Annotated[
    str, Meta(max_length=81, pattern=r"^[a-z][a-z0-9_.-]{0,39}:[a-z][a-z0-9_-]{0,39}" + END)
]
Description = Annotated[str, Meta(max_length=DESCRIPTION_LENGTH, pattern=rf"^[^{CONTROL}]*{END}")]


class Scope(Output, frozen=True, kw_only=True):
    """A registered scope."""

    name: str
    description: str
    created_at: Moment


class ScopePage(Output, frozen=True, kw_only=True):
    """One page of registered scopes."""

    data: list[Scope]
    next_cursor: str | None


class NewScope(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/scopes`: a noun and a verb, as in `orders:read`."""

    name: ScopeName
    description: Description = ""


class ScopeQuery(Input, frozen=True, kw_only=True):
    """The query of `GET /v1/scopes`."""

    limit: Limit = 50
    cursor: Cursor | None = None


class Role(Output, frozen=True, kw_only=True):
    """A role: a key that has it has its scopes."""

    name: str
    scopes: tuple[str, ...]
    description: str
    created_at: Moment
    updated_at: Moment


class RolePage(Output, frozen=True, kw_only=True):
    """One page of roles."""

    data: list[Role]
    next_cursor: str | None


class NewRole(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/roles`."""

    name: RoleName
    scopes: Scopes
    description: Description = ""


class RoleChange(Input, frozen=True, kw_only=True):
    """The body of `PATCH /v1/roles/{name}`; absent fields stay unchanged."""

    scopes: Scopes | UnsetType = UNSET
    description: Description | UnsetType = UNSET


class RoleQuery(Input, frozen=True, kw_only=True):
    """The query of `GET /v1/roles`."""

    limit: Limit = 50
    cursor: Cursor | None = None


# ---------------------------------------------------------------------- signatures

TOKEN = r"^[!#$%&'+*.^_`|~0-9A-Za-z-]{1,100}" + END  # RFC 9110, section 5.6.2
HeaderValue = Annotated[str, Meta(pattern=r"^[\t -~\x80-\xff]*" + END)]


class ReceivedRequest(Input, frozen=True, kw_only=True):
    """A request as another service received it.

    The absolute `url` contains the query, with its percent escapes. Header names may have any letter case, and a repeated
    header has a list of values; only `host` and the headers of the credential and its signature are needed.
    `content_sha256` is the SHA-256 of the body that the service received, in hexadecimal; without it the body is empty.
    """

    method: Annotated[str, Meta(pattern=TOKEN)]
    url: Annotated[str, Meta(max_length=16_384)]
    headers: Annotated[
        dict[Annotated[str, Meta(pattern=TOKEN)], HeaderValue | list[HeaderValue]], Meta(max_length=100)
    ]
    content_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}" + END)] | UnsetType = UNSET


class Verify(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/keys/verify`: either `credential`, the secret of a bearer key, or `request`.

    `scopes` must all be held. `cost` is charged to all limits of the key and its owner, unless `charge` is false.
    `client` is the address of the client, which a key with allowed networks needs. `tags` go to the log.
    """

    credential: Annotated[str, Meta(max_length=512)] | UnsetType = UNSET
    request: ReceivedRequest | UnsetType = UNSET
    scopes: Scopes = []
    cost: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    charge: bool = True
    client: Annotated[str, Meta(max_length=45)] | UnsetType = UNSET
    tags: Annotated[
        list[Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/-]{1,64}" + END)]], Meta(max_length=10)
    ] = []


MOST_VERIFIED = 100


class VerifyBatch(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/keys/verify-batch`."""

    data: Annotated[list[Verify], Meta(min_length=1, max_length=MOST_VERIFIED)]


class VerifiedOwner(Output, frozen=True, kw_only=True):
    """The owner of a verified key."""

    id: Id
    name: str
    status: UserStatus
    external_id: str | None
    meta: dict[str, Any]


class LimitState(Output, frozen=True, kw_only=True):
    """What is left of a limit; the prefix `owner.` of a name marks a limit of the owner."""

    name: str
    limit: int
    window_s: int
    remaining: int
    resets_in_s: int | None


class Verified(Output, frozen=True, kw_only=True):
    """The result of a verification.

    `code` is `valid`, or the code of the problem that a call to this service would get; `detail` explains it.
    `limits` and `credits` are those after the charge, and empty if the call was refused before its charge.
    The key and its owner are null unless the secret or the signature was proved; they are shown for a key that was
    refused afterwards, for example because it is revoked.
    """

    valid: bool
    code: str
    detail: str | None
    retry_after_s: int | None
    access_key: str | None
    name: str | None
    owner: VerifiedOwner | None
    environment: str | None
    external_id: str | None
    meta: dict[str, Any]
    scopes: tuple[str, ...]
    """Those of its roles included."""
    roles: tuple[str, ...]
    expires_at: Moment | None
    limits: tuple[LimitState, ...]
    credits: Credits | None


class VerifiedBatch(Output, frozen=True, kw_only=True):
    """The results of a batch, in the order of the requests."""

    data: list[Verified]


# ---------------------------------------------------------------------- the rest


class Me(Output, frozen=True, kw_only=True):
    """The calling user and key."""

    user: User
    key: Key


class Home(Output, frozen=True, kw_only=True):
    """The service and links to its resources."""

    name: str
    version: str
    links: dict[str, str]


class Health(Output, frozen=True, kw_only=True):
    """The state of the service: `ok`, or `degraded` if it serves all calls without its replica."""

    status: Literal["ok", "degraded"]


class Explanation(Output, frozen=True, kw_only=True):
    """The meaning of an error code."""

    code: str
    status: int
    title: str
    explanation: str


def given(change: msgspec.Struct) -> dict[str, Any]:
    """Return the fields that a client sent, for a body whose fields are `UNSET` unless they are sent.

    `await article.update(**given(body))` changes these attributes only.
    """
    fields = ((name, getattr(change, name)) for name in change.__struct_fields__)
    return {name: value for name, value in fields if value is not UNSET}
