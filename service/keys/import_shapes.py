"""The types of the import of keys."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from latchkey.models.limit import Credits, Quota
from latchkey.service.shapes import (
    EnvironmentName,
    ExternalId,
    Id,
    Input,
    Metadata,
    Mode,
    Moment,
    Name,
    Networks,
    Output,
    RateLimits,
    Roles,
    Scopes,
)

MOST_IMPORTED = 500  # in one call or transaction

Sha256 = Annotated[
    str,
    Meta(
        max_length=64,
        description="The SHA-256 of the secret, in hexadecimal or base64.",
    ),
]


class ImportedKey(Input, frozen=True, kw_only=True):
    """A key of another system, with either its `secret` or the `sha256` of it.

    The owner is the user with `user_id`, or the one with the external id `user_external_id`. A key that signs needs its
    secret. `environment` is that of the calling key, which is also the default.
    """

    user_id: Id | UnsetType = UNSET
    user_external_id: ExternalId | UnsetType = UNSET
    name: Name
    mode: Mode = "bearer"
    secret: Annotated[str, Meta(min_length=1, max_length=512)] | UnsetType = UNSET
    sha256: Sha256 | UnsetType = UNSET
    environment: EnvironmentName | None = None
    scopes: Scopes = msgspec.field(default_factory=list)
    roles: Roles = msgspec.field(default_factory=list)
    allowed_networks: Networks = msgspec.field(default_factory=list)
    expires_at: Moment | None = None
    limits: RateLimits = msgspec.field(default_factory=list)
    quota: Quota | None = None
    credits: Credits | None = None
    external_id: ExternalId | None = None
    meta: Metadata = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ImportedKey(name={self.name!r})"


class KeyImport(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/keys/import`."""

    data: Annotated[list[ImportedKey], Meta(min_length=1, max_length=MOST_IMPORTED)]


class ImportResult(Output, frozen=True, kw_only=True):
    """The result for one key.

    `imported` means that there is a new key, `known` that a key with this secret existed before, and `refused` that there is
    none; `detail` is the reason. `access_key` is null for a refused key.
    """

    status: Literal["imported", "known", "refused"]
    access_key: str | None
    detail: str | None


class ImportResults(Output, frozen=True, kw_only=True):
    """The results, in the order of the keys."""

    data: list[ImportResult]


def refused(detail: str) -> ImportResult:
    """Return the result for a key that is refused."""
    return ImportResult(status="refused", access_key=None, detail=detail)
