"""The rules for keys, for endpoints, commands and Python code that create or change them.

A calling key cannot give scopes that it lacks. A caller of `None` is the operator, to whom no such bounds apply.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from latchkey.models import ApiKey
from latchkey.models.limit import Credits, Quota, RateLimit
from latchkey.models.query import Query
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.scopes import lacking
from latchkey.service.authentication.wire.credentials import Secret
from latchkey.service.keys import values
from latchkey.service.keys.credits import set_credits
from latchkey.service.keys.issuing import Issuer, Rotated
from latchkey.service.keys.scopes import require_known, scopes_of_roles
from latchkey.service.limits.rules import holds_limits, holds_quota
from latchkey.service.networks import covered_by, read_networks
from latchkey.service.problems import FieldError, Problem, field_problem, invalid_field
from latchkey.service.users import lock_user


class KeyRules(msgspec.Struct, frozen=True):
    """The rules of one application, and the issuer of its secrets."""

    issuer: Issuer
    scopes: frozenset[str]
    """The declared scopes; a key can have these, and those that the operator registered."""
    keys_per_owner: int | None
    """The maximum number of keys of an owner; None means no limit."""

    async def create(
        self,
        owner_id: int,
        caller: Principal | None,
        *,
        name: str,
        mode: str,
        environment: str | None = None,
        scopes: Sequence[str],
        roles: Sequence[str] = (),
        expires_at: datetime | None,
        allowed_networks: tuple[str, ...] = (),
        limits: tuple[RateLimit, ...] = (),
        quota: Quota | None = None,
        credits: Credits | None = None,
        external_id: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> tuple[ApiKey, Secret]:
        """Create a key of an owner, whose row is locked meanwhile, and flush it.

        Raises:
            Problem: 403 `scope_not_held` or `other_environment`, 409 `user_not_active` or `too_many_keys`, 422 `invalid_body`.
        """
        environment = self.environment_for(environment, caller)
        with invalid_field("/scopes"):
            await require_known(scopes, self.scopes)
        with invalid_field("/roles"):
            role_scopes = await scopes_of_roles(roles)
        with invalid_field("/expires_at"):
            expires_at = None if expires_at is None else values.future_utc(expires_at)
        require_held(caller, (*scopes, *role_scopes))
        owner = await lock_user(owner_id)
        if owner is None:
            raise field_problem("/user_id", "there is no such user")
        if owner.status != "active":
            raise Problem("user_not_active")
        limit = self.keys_per_owner
        if limit is not None and await ApiKey.filter_by(user_id=owner.id).count() >= limit:
            raise Problem("too_many_keys")
        key, secret = await self.issuer.issue(
            owner,
            name=name,
            mode=mode,
            environment=environment,
            scopes=list(scopes),
            roles=tuple(roles),
            role_scopes=role_scopes,
            allowed_networks=allowed_networks,
            limits=limits,
            quota=quota,
            external_id=external_id,
            meta=meta,
            expires_at=expires_at,
        )
        if credits is not None:
            await set_credits(key, credits)
        return key, secret

    async def rotate(
        self, key: ApiKey, caller: Principal | None, *, grace_s: int, version: int | UnsetType = UNSET
    ) -> Rotated:
        """Replace the secret of a locked key.

        Raises:
            Problem: 403 `scope_not_held` or `other_environment`, 409 `key_not_active` or `version_changed`.
        """
        self.require_environment(caller, self.issuer.environment_of(key))
        require_held(caller, key.all_scopes)
        require_not_revoked(key)
        if version not in (UNSET, key.secret_version):
            raise Problem("version_changed", f"The secret has version {key.secret_version} now.")
        return await self.issuer.rotate(key, grace_s=grace_s)

    def environment_for(self, asked: str | None, caller: Principal | None) -> str:
        """Return the environment of a new key; without one, it is that of the caller, or the first."""
        names = self.issuer.environments
        if asked is None:
            return names[0] if caller is None else self.issuer.environment_of(caller.key)
        if asked not in names:
            raise field_problem("/environment", f"there is no such environment; there are {', '.join(names)}")
        self.require_environment(caller, asked)
        return asked

    def require_environment(self, caller: Principal | None, environment: str) -> None:
        """Raise a problem for a key of another environment than that of the caller."""
        own = environment if caller is None else self.issuer.environment_of(caller.key)
        if own != environment:
            raise Problem(
                "other_environment",
                f"The calling key belongs to the environment {own}, not to {environment}.",
            )


async def revoke(key: ApiKey) -> None:
    """Revoke a locked key; a revoked one stays unchanged."""
    await key.update(status="revoked")


# ---------------------------------------------------------------------- finding keys


def named(access_key: str, owner_id: int | None = None) -> Query[ApiKey]:
    """Return a query for the key with this access key, of one owner or of any owner."""
    rows = ApiKey.filter_by(access_key=access_key)
    return rows if owner_id is None else rows.filter(user_id=owner_id)


async def lock_key(access_key: str, owner_id: int | None = None) -> ApiKey | None:
    """Return a key, locked against changes until this transaction ends."""
    return await named(access_key, owner_id).for_update().first()


# ---------------------------------------------------------------------- what a caller may grant


def require_not_revoked(key: ApiKey) -> None:
    """Raise a problem for a key that is revoked, which cannot be undone."""
    if key.status == "revoked":
        raise Problem("key_not_active")


def require_held(caller: Principal | None, scopes: Iterable[str]) -> None:
    """Raise a problem for scopes that the caller does not hold."""
    if caller is not None and (missing := lacking(caller.scopes, scopes)):
        raise Problem("scope_not_held", f"The calling key lacks {', '.join(missing)}.")


def wider(caller: Principal, bounds: Mapping[str, Any]) -> list[FieldError]:
    """Return the bounds in which a key would exceed the calling key; absent bounds are not checked."""
    faults = []
    held = caller.key.expires_at
    if held is not None and "expires_at" in bounds:
        asked = bounds["expires_at"]
        if asked is None or asked > held:
            faults.append(FieldError("/expires_at", "a key cannot expire later than the calling key"))
    if "allowed_networks" in bounds:
        asked_networks = read_networks(tuple(bounds["allowed_networks"]))
        if not covered_by(asked_networks, read_networks(caller.key.allowed_networks)):
            detail = "the networks of a key must be a subset of those of the calling key"
            faults.append(FieldError("/allowed_networks", detail))
    if "limits" in bounds and not holds_limits(caller.key.limits, bounds["limits"]):
        faults.append(
            FieldError("/limits", "the limits of a key cannot be wider than those of the calling key")
        )
    if "has_credits" in bounds and caller.key.has_credits and not bounds["has_credits"]:
        detail = "a key must have credits if the calling key has some"
        faults.append(FieldError("/credits", detail))
    if "quota" in bounds and not holds_quota(caller.key.quota, bounds["quota"]):
        faults.append(
            FieldError("/quota", "the quota of a key cannot be larger than that of the calling key")
        )
    return faults


def require_no_wider(caller: Principal, bounds: Mapping[str, Any]) -> None:
    """Raise a problem for a key that exceeds the bounds of the calling key."""
    if faults := wider(caller, bounds):
        raise Problem("key_wider", f"The key has wider permissions than the calling key: {faults[0].detail}.")


BOUNDS = ("expires_at", "allowed_networks", "limits", "quota", "has_credits")


def bounds_of(key: ApiKey) -> dict[str, Any]:
    """Return the bounds of a key, by name."""
    return {name: getattr(key, name) for name in BOUNDS}
