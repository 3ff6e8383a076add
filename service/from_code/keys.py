"""Keys from Python: `issue_key`, `rotate_key` and `revoke_key`, in endpoints, commands and scripts.

In an endpoint that a key calls, the rules of the endpoints for keys apply. A key with `keys:write` may issue keys to any
owner, with scopes that it holds itself, as under `/v1/keys`. Any other key may only manage the keys of its own owner,
within its own bounds, as under `/v1/me/keys`. In a public endpoint, a command or a script no calling key sets bounds.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal, TypeGuard

import msgspec
from msgspec import UNSET

from latchkey.models import ApiKey, User
from latchkey.models.limit import Credits, Quota, RateLimit
from latchkey.service import shapes
from latchkey.service.authentication.current_call import caller_of, current_call
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.scopes import holds
from latchkey.service.database import SQLAlchemy
from latchkey.service.keys import rules
from latchkey.service.keys.rules import KeyRules
from latchkey.service.keys.values import canonical_networks
from latchkey.service.limits.rules import distinct_limits
from latchkey.service.parts import find_parts
from latchkey.service.problems import Problem, field_problem, invalid_field, or_not_found

OPERATOR = "keys:write"


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key with its secret, which is not stored in plain text: show it to its owner once."""

    key: ApiKey
    secret: str
    old_secret_expires_at: datetime | None = None
    """The end of the secret that a rotation replaced; None when it has ended already, or when there was none."""

    def __repr__(self) -> str:
        return f"IssuedKey(key={self.key!r})"


async def issue_key(
    user: User | int,
    *,
    name: str,
    scopes: Iterable[str],
    roles: Iterable[str] = (),
    mode: Literal["bearer", "signed"] = "bearer",
    environment: str | None = None,
    expires_at: datetime | None = None,
    allowed_networks: Iterable[str] = (),
    limits: Iterable[RateLimit] | None = None,
    quota: Quota | None = None,
    credits: Credits | None = None,
    as_operator: bool = False,
) -> IssuedKey:
    """Create a key of a user and flush it; the code that opened the session commits.

    Args:
        user: the owner, or the owner's id.
        name: of the key, 1 to 200 characters.
        scopes: the scopes of the key: those that routes declare, or `create_app(scopes=...)`.
        roles: the roles of the key, whose scopes it has, too.
        mode: `bearer`, whose secret is sent, or `signed`, whose secret only signs.
        environment: one of `LATCHKEY_ENVIRONMENTS`; None is that of the calling key, or the first.
        expires_at: a time in the future with its offset; None means never.
        allowed_networks: the networks from which the key may be used, as `192.0.2.0/24`; none means anywhere.
        limits: the rate limits of the key; None means no limits, or those of a calling key without `keys:write`.
        quota: the quota of the key for a day or a month; None as for `limits`.
        credits: the credits that its calls spend; None means none, or 0 credits for a key that a calling key with credits
            and without `keys:write` creates.
        as_operator: ignore the calling key, because the code itself decides which key may be issued.

    Raises:
        Problem: 403 `scope_not_held` or `key_wider`, 409 `user_not_active` or `too_many_keys`, 422 `invalid_body`
            for an argument that no key can have; 401 when the calling key has been revoked meanwhile.
        RuntimeError: no application was built, which would know the scopes and the key ring.
    """
    key_rules, caller = await authority(as_operator=as_operator)
    owner_id = user if isinstance(user, int) else user.id
    with invalid_field("/allowed_networks"):
        networks = canonical_networks(checked(shapes.Networks, list(allowed_networks), "/allowed_networks"))
    asked = None if limits is None else [msgspec.structs.asdict(one) for one in limits]
    with invalid_field("/limits"):
        own_limits = None if asked is None else distinct_limits(checked(shapes.RateLimits, asked, "/limits"))
    bounds: dict[str, Any] = {
        "expires_at": checked(shapes.Moment | None, expires_at, "/expires_at"),
        "allowed_networks": networks,
        "limits": own_limits,
        "quota": None if quota is None else checked(Quota, msgspec.structs.asdict(quota), "/quota"),
    }
    own_credits = None if credits is None else checked(Credits, msgspec.to_builtins(credits), "/credits")
    if is_bounded(caller):
        require_own(caller, owner_id)
        bounds["limits"] = caller.key.limits if bounds["limits"] is None else bounds["limits"]
        bounds["quota"] = bounds["quota"] or caller.key.quota
        rules.require_no_wider(caller, bounds)
        if own_credits is not None:
            raise Problem("key_wider", "Only a key with keys:write gives credits.")
        own_credits = Credits(remaining=0) if caller.key.has_credits else None
    key, secret = await key_rules.create(
        owner_id,
        caller,
        name=checked(shapes.Name, name, "/name"),
        mode=checked(shapes.Mode, mode, "/mode"),
        environment=environment,
        scopes=checked(shapes.Scopes, list(scopes), "/scopes"),
        roles=checked(shapes.Roles, list(roles), "/roles"),
        expires_at=bounds["expires_at"],
        allowed_networks=networks,
        limits=bounds["limits"] or (),
        quota=bounds["quota"],
        credits=own_credits,
    )
    return IssuedKey(key=key, secret=secret)


async def rotate_key(
    key: ApiKey | str,
    *,
    grace: timedelta = timedelta(0),
    version: int | None = None,
    as_operator: bool = False,
) -> IssuedKey:
    """Replace the secret of a key and flush it; the code that opened the session commits.

    Args:
        key: the key, or its access key, `lka_…`.
        grace: how long the old secret still works, at most 30 days.
        version: the version of the secret to replace; the rotation fails if it has already been replaced.
        as_operator: as for `issue_key`.

    Raises:
        Problem: 404 `not_found`, 403 `scope_not_held` or `key_wider`, 409 `key_not_active` or `version_changed`, 422
            `invalid_body`; 401 when the calling key has been revoked meanwhile.
        RuntimeError: as `issue_key`.
    """
    key_rules, caller = await authority(as_operator=as_operator)
    grace_s = checked(shapes.Grace, round(grace.total_seconds()), "/grace_s")
    row = await lock(key, caller)
    if is_bounded(caller):
        rules.require_no_wider(caller, rules.bounds_of(row))
    rotated = await key_rules.rotate(
        row, caller, grace_s=grace_s, version=UNSET if version is None else version
    )
    return IssuedKey(key=row, secret=rotated.secret, old_secret_expires_at=rotated.ends_at)


async def revoke_key(key: ApiKey | str, *, as_operator: bool = False) -> ApiKey:
    """Revoke a key and flush it: after COMMIT no call with it is accepted. A revoked key stays unchanged.

    Args:
        key: the key, or its access key, `lka_…`.
        as_operator: as for `issue_key`.

    Raises:
        Problem: 404 `not_found`; 401 when the calling key has been revoked meanwhile.
        RuntimeError: as `issue_key`.
    """
    _, caller = await authority(as_operator=as_operator)
    row = await lock(key, caller)
    await rules.revoke(row)
    return row


async def authority(*, as_operator: bool) -> tuple[KeyRules, Principal | None]:
    """Return the rules, and the calling key, locked, in its current state; None when no calling key sets bounds."""
    call = current_call()
    app = SQLAlchemy().app if call is None else call["app"]
    parts = find_parts(app)
    if parts is None:
        raise RuntimeError(
            "keys are made and changed in an application of `latchkey.create_app`, and none is built here: "
            "a script uses `async with open_session(create_app())`."
        )
    if call is None or as_operator or caller_of(call) is None:
        return parts.key_rules, None
    return parts.key_rules, await parts.verifier.hold(call)


async def lock(key: ApiKey | str, caller: Principal | None) -> ApiKey:
    """Lock a key that the caller may manage."""
    access_key = key if isinstance(key, str) else key.access_key
    return or_not_found(await rules.lock_key(access_key, caller.user.id if is_bounded(caller) else None))


def is_bounded(caller: Principal | None) -> TypeGuard[Principal]:
    """Return whether a caller may manage only the keys of its own owner."""
    return caller is not None and not holds(caller.scopes, OPERATOR)


def require_own(caller: Principal, owner_id: int) -> None:
    """Raise a problem for a key of another owner."""
    if owner_id != caller.user.id:
        raise Problem(
            "scope_not_held", f"The calling key lacks {OPERATOR}, which it needs for keys of other owners."
        )


def checked(kind: Any, value: Any, pointer: str) -> Any:
    """Return a value of this type, or raise the problem that the endpoints return for a body."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise field_problem(pointer, str(error).partition(" - at ")[0]) from None
