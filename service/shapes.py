"""What goes in and out over HTTP. Input is closed and bounded by its types; output is complete.

The bounds stand on the types, so that OpenAPI says the same as the decoder does.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from models.user import EMAIL_LENGTH, NAME_LENGTH

LARGEST_ID = 2**63 - 1
CONTROL = r"\x00-\x1f\x7f-\x9f"
END = r"$(?![\s\S])"  # a plain $ would also match before a newline at the end
SPACE = r"\s\ufeff"  # U+FEFF is white space to ECMA-262, which clients check with, and not to Python

Id = Annotated[int, Meta(ge=1, le=LARGEST_ID, extra_json_schema={"format": "int64"})]
PathId = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,18}" + END)]
Email = Annotated[
    str, Meta(max_length=EMAIL_LENGTH, pattern=rf"^[^@{SPACE}{CONTROL}]+@[^@{SPACE}{CONTROL}]+{END}")
]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH, pattern=rf"^[^{CONTROL}]+{END}")]
Scopes = Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=100)]
Moment = Annotated[datetime, Meta(tz=True)]
Limit = Annotated[int, Meta(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[str, Meta(description="The `next_cursor` of the page before, with the same filters.")]

UserStatus = Literal["active", "blocked", "deleted"]
KeyStatus = Literal["active", "revoked"]
Mode = Literal["bearer", "signed"]


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends."""


class Output(msgspec.Struct, frozen=True):
    """What a client gets; no field has a default, so none is ever made up."""


# ---------------------------------------------------------------------- users


class User(Output, frozen=True, kw_only=True):
    """An owner of keys."""

    id: Id
    email: str
    name: str
    status: UserStatus
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


class UserChange(Input, frozen=True, kw_only=True):
    """The body of `PATCH /v1/users/{id}`; what is absent stays."""

    email: Email | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    status: Literal["active", "blocked"] | UnsetType = UNSET


class UserQuery(Input, frozen=True, kw_only=True):
    """The query of `GET /v1/users`."""

    limit: Limit = 50
    cursor: Cursor | None = None
    email: str | None = None
    status: UserStatus | None = None


# ---------------------------------------------------------------------- keys


class Key(Output, frozen=True, kw_only=True):
    """A key, without its secret."""

    access_key: str
    user_id: Id
    name: str
    mode: Mode
    scopes: tuple[str, ...]
    status: KeyStatus
    expires_at: Moment | None
    last_used_at: Moment | None
    created_at: Moment
    updated_at: Moment


class KeyWithSecret(Key, frozen=True, kw_only=True):
    """A new key; this is the only time that its secret is shown."""

    secret: str


class KeyPage(Output, frozen=True, kw_only=True):
    """One page of keys."""

    data: list[Key]
    next_cursor: str | None


class NewKey(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/keys`; without `expires_at` the key never expires."""

    user_id: Id
    name: Name
    mode: Mode
    scopes: Scopes
    expires_at: Moment | None = None


class KeyChange(Input, frozen=True, kw_only=True):
    """The body of `PATCH /v1/keys/{access_key}`; what is absent stays, `expires_at` null is never."""

    name: Name | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET


class KeyQuery(Input, frozen=True, kw_only=True):
    """The query of `GET /v1/keys`."""

    limit: Limit = 50
    cursor: Cursor | None = None
    user_id: Id | None = None
    status: KeyStatus | None = None


# ---------------------------------------------------------------------- the rest


class Me(Output, frozen=True, kw_only=True):
    """Who calls, and with what."""

    user: User
    key: Key


class Home(Output, frozen=True, kw_only=True):
    """What this is and where to go."""

    name: str
    version: str
    links: dict[str, str]


class Health(Output, frozen=True, kw_only=True):
    """All is well."""

    status: Literal["ok"]


class Explanation(Output, frozen=True, kw_only=True):
    """What an error code means."""

    code: str
    status: int
    title: str
    explanation: str


def given(change: Input) -> dict[str, Any]:
    """Return the fields that a client sent."""
    fields = ((name, getattr(change, name)) for name in change.__struct_fields__)
    return {name: value for name, value in fields if value is not UNSET}
