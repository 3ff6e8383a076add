"""Keys: `/v1/keys`."""

from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy.exc import IntegrityError
from starlette.requests import Request

from latchkey.models import ApiKey
from latchkey.models.limit import Credits, Quota, RateLimit
from latchkey.models.query import Query
from latchkey.service import shapes
from latchkey.service.authentication.principal import Principal
from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.endpoints.paging import page, utc_parameter
from latchkey.service.keys import values
from latchkey.service.keys.credits import add_credits, set_credits, shown
from latchkey.service.keys.listing import filtered
from latchkey.service.keys.metadata import checked_meta, external_id_taken
from latchkey.service.keys.rules import (
    KeyRules,
    lock_key,
    named,
    require_held,
    require_not_revoked,
    revoke,
)
from latchkey.service.keys.scopes import require_known, scopes_of_roles
from latchkey.service.limits.rules import distinct_limits
from latchkey.service.operation import Answer
from latchkey.service.parts import parts_of
from latchkey.service.problems import invalid_field, or_not_found

PATH = "/v1/keys"


async def create_key(request: Request, body: shapes.NewKey) -> Answer:
    """Create a key for an active user.

    The response contains the secret, which is shown only here.
    The calling key needs every scope that it gives to the new key.
    """
    caller = await hold_caller(request)
    with invalid_field("/limits"):
        limits = distinct_limits(body.limits)
    try:
        return await make_key(
            request,
            caller,
            body,
            path=PATH,
            owner_id=body.user_id,
            limits=limits,
            quota=body.quota,
            credits=body.credits,
            external_id=body.external_id,
            meta=checked_meta(body.meta),
        )
    except IntegrityError as error:
        raise external_id_taken(error) from error


async def list_keys(request: Request, query: shapes.KeyQuery) -> Answer:
    """List keys, oldest first.

    Without `status` the list includes revoked keys. `expires_before` excludes keys that never expire.
    `role` selects the keys that have the role, whatever scopes it has.
    """
    rows = ApiKey.filter()
    if query.user_id is not None:
        rows = rows.filter(user_id=query.user_id)
    if query.external_id is not None:
        rows = rows.filter(external_id=query.external_id)
    return await list_page(
        request, query, rows, path=PATH, user_id=query.user_id, external_id=query.external_id
    )


async def read_key(request: Request, access_key: str) -> shapes.Key:
    """Read a key, including a revoked one; its secret is never shown."""
    return await shown_one(request, or_not_found(await named(access_key).first()))


async def change_key(request: Request, access_key: str, body: shapes.KeyChange) -> shapes.Key:
    """Change a key.

    Absent fields stay unchanged; `expires_at` null means never. The calling key needs every scope that the key has or gets.
    """
    caller = await hold_caller(request)
    changes = await changes_of(request, body)
    key = or_not_found(await lock_key(access_key))
    return await change(request, caller, key, changes)


async def change_credits(request: Request, access_key: str, body: shapes.CreditChange) -> shapes.Key:
    """Add credits to a key, or take some away.

    Calls that spend credits at the same time are counted exactly. A retry with the same `Idempotency-Key` changes nothing
    more. The calling key needs every scope that the key has.
    """
    caller = await hold_caller(request)
    key = or_not_found(await lock_key(access_key))
    key_rules(request).require_environment(caller, key_rules(request).issuer.environment_of(key))
    require_held(caller, key.all_scopes)
    require_not_revoked(key)
    await add_credits(key, body.delta)
    return await shown_one(request, key)


async def rotate_key(request: Request, access_key: str, body: shapes.Rotation) -> Answer:
    """Replace the secret of a key.

    The response contains the new secret, which is shown only here. Calls with the old secret are accepted for `grace_s`
    more seconds, or until the key expires; their responses have the headers `Deprecation` and `Sunset`, and they are
    counted. Older secrets end at once. Pass `version` to make retries safe: the rotation fails if the secret has already
    changed. The calling key needs every scope that the key has.
    """
    caller = await hold_caller(request)
    key = or_not_found(await lock_key(access_key))
    return await rotate(request, caller, key, body)


async def revoke_key(request: Request, access_key: str) -> None:
    """Revoke a key; later calls with it are refused."""
    await hold_caller(request)
    await revoke(or_not_found(await lock_key(access_key)))


# ---------------------------------------------------------------------- shared with `/v1/me/keys`


async def make_key(
    request: Request,
    caller: Principal,
    body: shapes.NewMyKey,
    *,
    path: str,
    owner_id: int,
    limits: tuple[RateLimit, ...],
    quota: Quota | None,
    credits: Credits | None,
    external_id: str | None = None,
    meta: dict[str, Any] | None = None,
) -> Answer:
    """Create a key of an owner, whose row is locked meanwhile."""
    with invalid_field("/allowed_networks"):
        networks = values.canonical_networks(body.allowed_networks)
    key, secret = await key_rules(request).create(
        owner_id,
        caller,
        name=body.name,
        mode=body.mode,
        environment=body.environment,
        scopes=body.scopes,
        roles=body.roles,
        allowed_networks=networks,
        limits=limits,
        quota=quota,
        credits=credits,
        external_id=external_id,
        meta=meta,
        expires_at=body.expires_at,
    )
    await request.state.session.flush_and_refresh()
    return Answer(
        content=shapes.KeyWithSecret(**await fields_of(request, key), secret=secret),
        headers={"location": f"{path}/{key.access_key}"},
    )


async def list_page(
    request: Request, query: shapes.MyKeyQuery, rows: Query[ApiKey], *, path: str, **filters: Any
) -> Answer:
    """Return one page; `filters` are those that were already applied to `rows`."""
    environments = key_rules(request).issuer.environments
    given = {"status": query.status, "role": query.role, "environment": query.environment}
    rows = filtered(rows, **given, environments=environments)
    before = utc_parameter(query.expires_before, "expires_before")
    if before is not None:
        rows = rows.filter(expires_at__lt=before)
    found = await page(
        rows,
        path=path,
        filters={**filters, **given, "expires_before": before and before.isoformat()},
        limit=query.limit,
        cursor=query.cursor,
        keyring=parts_of(request.app).keyring,
    )
    content = shapes.KeyPage(
        data=await shown(found.content.data, environments),
        next_cursor=found.content.next_cursor,
    )
    return Answer(content=content, headers=found.headers)


async def changes_of(request: Request, body: shapes.MyKeyChange) -> dict[str, Any]:
    """Return the requested changes of a key, or raise a problem for values that no key can have."""
    changes = shapes.given(body)
    if "scopes" in changes:
        with invalid_field("/scopes"):
            await require_known(changes["scopes"], key_rules(request).scopes)
        changes["scopes"] = tuple(changes["scopes"])
    if "roles" in changes:
        with invalid_field("/roles"):
            changes["role_scopes"] = await scopes_of_roles(changes["roles"])
        changes["roles"] = tuple(changes["roles"])
    if "allowed_networks" in changes:
        with invalid_field("/allowed_networks"):
            changes["allowed_networks"] = values.canonical_networks(changes["allowed_networks"])
    if "limits" in changes:
        with invalid_field("/limits"):
            changes["limits"] = distinct_limits(changes["limits"])
    if "meta" in changes:
        changes["meta"] = checked_meta(changes["meta"])
    if changes.get("expires_at") is not None:
        with invalid_field("/expires_at"):
            changes["expires_at"] = values.future_utc(changes["expires_at"])
    return changes


async def change(request: Request, caller: Principal, key: ApiKey, changes: dict[str, Any]) -> shapes.Key:
    """Change a locked key."""
    key_rules(request).require_environment(caller, key_rules(request).issuer.environment_of(key))
    require_held(caller, [*key.all_scopes, *changes.get("scopes", ()), *changes.get("role_scopes", ())])
    require_not_revoked(key)
    new_credits = changes.pop("credits", UNSET)
    try:
        await key.update(**changes)
    except IntegrityError as error:
        raise external_id_taken(error) from error
    if new_credits is not UNSET:
        await set_credits(key, new_credits)
    await request.state.session.flush_and_refresh()
    return await shown_one(request, key)


async def rotate(request: Request, caller: Principal, key: ApiKey, body: shapes.Rotation) -> Answer:
    """Replace the secret of a locked key."""
    rotated = await key_rules(request).rotate(key, caller, grace_s=body.grace_s, version=body.version)
    await request.state.session.flush_and_refresh()
    return Answer(
        content=shapes.RotatedKey(
            **await fields_of(request, key), secret=rotated.secret, old_secret_expires_at=rotated.ends_at
        ),
    )


def key_rules(request: Request) -> KeyRules:
    """Return the key rules of the application."""
    return parts_of(request.app).key_rules


async def shown_one(request: Request, key: ApiKey) -> shapes.Key:
    """Return a key in the form of the response."""
    return (await shown([key], key_rules(request).issuer.environments))[0]


async def fields_of(request: Request, key: ApiKey) -> dict[str, Any]:
    """Return the response's fields of a key, by name."""
    return msgspec.structs.asdict(await shown_one(request, key))
