"""The caller: `/v1/me`, and the keys of its owner: `/v1/me/keys`.

A key may manage only keys that are within its own bounds: its scopes, its expiry, its allowed networks, its limits,
its quota, and whether it spends credits.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request

from latchkey.models import ApiKey
from latchkey.models.limit import Credits
from latchkey.service import shapes
from latchkey.service.authentication.principal import Principal
from latchkey.service.endpoints import keys
from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.keys.credits import with_credits
from latchkey.service.keys.rules import (
    bounds_of,
    lock_key,
    named,
    require_no_wider,
    revoke,
    wider,
)
from latchkey.service.keys.values import canonical_networks
from latchkey.service.operation import Answer
from latchkey.service.parts import parts_of
from latchkey.service.problems import Problem, invalid_field, or_not_found

PATH = "/v1/me/keys"


async def read_me(request: Request, caller: Principal) -> shapes.Me:
    """Read the calling user and key, with the credits that this call has left."""
    return shapes.Me(
        user=msgspec.convert(caller.user, shapes.User, from_attributes=True),
        key=with_credits(
            msgspec.convert(caller.key, shapes.StoredKey, from_attributes=True),
            keys.key_rules(request).issuer.environment_of(caller.key),
            await parts_of(request.app).limits.credits(request.scope),
        ),
    )


async def create_my_key(request: Request, body: shapes.NewMyKey) -> Answer:
    """Create a key of the caller's owner.

    The response contains the secret, which is shown only here.
    A new key's scopes, expiry and networks must be within those of the calling key.
    It gets the limits and the quota of the calling key, with its own counters; if that key has credits, it gets 0 credits.
    """
    caller = await hold_caller(request)
    with invalid_field("/allowed_networks"):
        networks = canonical_networks(body.allowed_networks)
    require_narrower(caller, {"expires_at": body.expires_at, "allowed_networks": networks})
    return await keys.make_key(
        request,
        caller,
        body,
        path=PATH,
        owner_id=caller.user.id,
        limits=caller.key.limits,
        quota=caller.key.quota,
        credits=Credits(remaining=0) if caller.key.has_credits else None,
    )


async def list_my_keys(request: Request, caller: Principal, query: shapes.MyKeyQuery) -> Answer:
    """List the keys of the caller's owner, oldest first.

    Without `status` the list includes revoked keys. `expires_before` excludes keys that never expire.
    """
    mine = ApiKey.filter_by(user_id=caller.user.id)
    return await keys.list_page(request, query, mine, path=PATH)


async def read_my_key(request: Request, caller: Principal, access_key: str) -> shapes.Key:
    """Read a key of the caller's owner, including a revoked one; its secret is never shown."""
    return await keys.shown_one(request, or_not_found(await named(access_key, caller.user.id).first()))


async def change_my_key(request: Request, access_key: str, body: shapes.MyKeyChange) -> shapes.Key:
    """Change a key of the caller's owner.

    Absent fields stay unchanged; `expires_at` null means never.
    The calling key needs every scope that the key has or gets, and the key must not outlive it, before or after the change.
    Only the operator can change limits, quota and credits.
    """
    caller = await hold_caller(request)
    changes = await keys.changes_of(request, body)
    require_narrower(caller, changes)
    return await keys.change(request, caller, await lock_my_key(caller, access_key), changes)


async def rotate_my_key(request: Request, access_key: str, body: shapes.Rotation) -> Answer:
    """Replace the secret of a key of the caller's owner; a key may rotate itself.

    The rules of `POST /v1/keys/{access_key}/rotate` apply.
    The calling key needs every scope that the key has, and the key must not outlive it.
    """
    caller = await hold_caller(request)
    return await keys.rotate(request, caller, await lock_my_key(caller, access_key), body)


async def revoke_my_key(request: Request, access_key: str) -> None:
    """Revoke a key of the caller's owner; later calls with it are refused."""
    caller = await hold_caller(request)
    await revoke(or_not_found(await lock_key(access_key, caller.user.id)))


async def lock_my_key(caller: Principal, access_key: str) -> ApiKey:
    """Lock a key of the caller's owner that is within the bounds of the calling key."""
    key = or_not_found(await lock_key(access_key, caller.user.id))
    require_no_wider(caller, bounds_of(key))
    return key


def require_narrower(caller: Principal, bounds: Mapping[str, Any]) -> None:
    """Raise a problem for bounds that are wider than those of the calling key."""
    if faults := wider(caller, bounds):
        pointer, detail = faults[0].pointer, faults[0].detail
        raise Problem("invalid_body", f"The body is wrong at {pointer!r}: {detail}.", errors=faults)
