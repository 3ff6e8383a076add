"""Keys: `/v1/keys`."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from latchkey.models import ApiKey
from latchkey.models.limit import Quota, RateLimit
from latchkey.models.query import Query
from latchkey.service import shapes
from latchkey.service.authentication.principal import Principal
from latchkey.service.endpoints import answers
from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.endpoints.limits import distinct_limits
from latchkey.service.endpoints.paging import page
from latchkey.service.endpoints.users import lock_user
from latchkey.service.networks import NetworkError, parse_networks
from latchkey.service.operation import Answer
from latchkey.service.problems import Problem, field_problem

PATH = "/v1/keys"
OUT_OF_RANGE = "The parameter 'expires_before' is wrong: the moment is out of range in UTC."


async def create_key(request: Request, body: shapes.NewKey) -> Answer:
    """Create a key for an active user.

    The answer holds the secret, the only time that it is shown.
    A key that creates another needs every scope that it gives.
    """
    await hold_caller(request)
    limits = distinct_limits(body.limits)
    return await make_key(request, body, path=PATH, owner_id=body.user_id, limits=limits, quota=body.quota)


async def list_keys(request: Request, query: shapes.KeyQuery) -> Answer:
    """List keys in the order in which they were made.

    Without `status` revoked keys are listed too. `expires_before` leaves out those that never expire.
    """
    rows = ApiKey.filter()
    if query.user_id is not None:
        rows = rows.filter(user_id=query.user_id)
    return await list_page(request, query, rows, path=PATH, user_id=query.user_id)


async def read_key(access_key: str) -> ApiKey:
    """Read a key, a revoked one too; its secret is shown to nobody."""
    return found(await named(access_key).first())


async def change_key(request: Request, access_key: str, body: shapes.KeyChange) -> ApiKey:
    """Change a key.

    What is absent stays; `expires_at` null is never. The caller needs every scope that the key has or gets.
    """
    await hold_caller(request)
    changes = changes_of(request, body)
    key = found(await lock_key(access_key))
    return await change(request, key, changes)


async def rotate_key(request: Request, access_key: str, body: shapes.Rotation) -> Answer:
    """Give a key another secret.

    The answer holds it, the only time that it is shown. Calls with the old secret are good for `grace_s` more
    seconds, unless the key itself ends before; meanwhile they are answered with `Deprecation` and `Sunset`, and
    counted. A secret that is older still ends at once. With `version`, two rotations that are meant as one are one.
    The caller needs every scope that the key has.
    """
    await hold_caller(request)
    key = found(await lock_key(access_key))
    return await rotate(request, key, body)


async def revoke_key(request: Request, access_key: str) -> None:
    """Revoke a key: the next call with it is refused."""
    await hold_caller(request)
    await found(await lock_key(access_key)).update(status="revoked")


# ---------------------------------------------------------------------- what `/v1/me/keys` does too


async def make_key(
    request: Request,
    body: shapes.NewMyKey,
    *,
    path: str,
    owner_id: int,
    limits: tuple[RateLimit, ...],
    quota: Quota | None,
) -> Answer:
    """Create a key of an owner, who is locked meanwhile."""
    require_declared(body.scopes, request.app.state.scopes)
    networks = canonical_networks(body.allowed_networks)
    expires_at = future_utc(body.expires_at)
    require_held(request.user, body.scopes)
    owner = await lock_user(owner_id)
    if owner is None:
        raise field_problem("/user_id", "there is no such user")
    if owner.status != "active":
        raise Problem("user_not_active")
    if await ApiKey.filter_by(user_id=owner.id).count() >= request.app.state.keys_per_owner:
        raise Problem("too_many_keys")
    key, secret = await request.app.state.issuer.issue(
        owner,
        name=body.name,
        mode=body.mode,
        scopes=body.scopes,
        allowed_networks=networks,
        limits=limits,
        quota=quota,
        expires_at=expires_at,
    )
    await request.state.session.flush_and_refresh()
    return Answer(
        content=shapes.KeyWithSecret(**fields_of(key), secret=secret),
        headers={"location": f"{path}/{key.access_key}"},
    )


async def list_page(
    request: Request, query: shapes.MyKeyQuery, rows: Query[ApiKey], *, path: str, **filters: Any
) -> Answer:
    """List one page; `filters` are those that `rows` went through already."""
    if query.status is not None:
        rows = rows.filter(status=query.status)
    before = in_utc(query.expires_before, Problem("invalid_parameter", OUT_OF_RANGE))
    if before is not None:
        rows = rows.filter(expires_at__lt=before)
    return await page(
        rows,
        path=path,
        filters={**filters, "status": query.status, "expires_before": before and before.isoformat()},
        limit=query.limit,
        cursor=query.cursor,
        keyring=request.app.state.keyring,
    )


def changes_of(request: Request, body: shapes.MyKeyChange) -> dict[str, Any]:
    """Read what a key is to get, and refuse what no key can have."""
    changes = shapes.given(body)
    if "scopes" in changes:
        require_declared(changes["scopes"], request.app.state.scopes)
        changes["scopes"] = tuple(changes["scopes"])
    if "allowed_networks" in changes:
        changes["allowed_networks"] = canonical_networks(changes["allowed_networks"])
    if "limits" in changes:
        changes["limits"] = distinct_limits(changes["limits"])
    if changes.get("expires_at") is not None:
        changes["expires_at"] = future_utc(changes["expires_at"])
    return changes


async def change(request: Request, key: ApiKey, changes: dict[str, Any]) -> ApiKey:
    """Change a key that is locked."""
    require_held(request.user, [*key.scopes, *changes.get("scopes", ())])
    if key.status == "revoked":
        raise Problem("key_not_active")
    await key.update(**changes)
    return key


async def rotate(request: Request, key: ApiKey, body: shapes.Rotation) -> Answer:
    """Give a key that is locked another secret."""
    require_held(request.user, key.scopes)
    if key.status == "revoked":
        raise Problem("key_not_active")
    if body.version not in (UNSET, key.secret_version):
        raise Problem("version_changed", f"The secret has version {key.secret_version} now.")
    rotated = await request.app.state.issuer.rotate(key, grace_s=body.grace_s)
    await request.state.session.flush_and_refresh()
    return Answer(
        content=shapes.RotatedKey(
            **fields_of(key), secret=rotated.secret, old_secret_expires_at=rotated.ends_at
        ),
    )


def fields_of(key: ApiKey) -> dict[str, Any]:
    """Return what is answered of a key, by name."""
    return msgspec.structs.asdict(answers.convert(key, shapes.Key))


def named(access_key: str, owner_id: int | None = None) -> Query[ApiKey]:
    """Look for the key with this public id, of one owner or of anybody."""
    rows = ApiKey.filter_by(access_key=access_key)
    return rows if owner_id is None else rows.filter(user_id=owner_id)


async def lock_key(access_key: str, owner_id: int | None = None) -> ApiKey | None:
    """Read a key that nobody else changes until this transaction ends."""
    return await named(access_key, owner_id).for_update().first()


def found(key: ApiKey | None) -> ApiKey:
    """Refuse what names no key."""
    if key is None:
        raise Problem("not_found")
    return key


def require_declared(scopes: Sequence[str], declared: frozenset[str]) -> None:
    """Refuse scopes that are there twice or that no route declares."""
    for place, scope in enumerate(scopes):
        if scope in scopes[:place]:
            raise field_problem(f"/scopes/{place}", "the scope is there twice")
        if scope not in declared:
            raise field_problem(
                f"/scopes/{place}", f"there is no such scope; there are {', '.join(sorted(declared))}"
            )


def canonical_networks(texts: Sequence[str]) -> tuple[str, ...]:
    """Return blocks of addresses as they are stored, and refuse what is none."""
    try:
        return tuple(str(network) for network in parse_networks(texts))
    except NetworkError as error:
        raise field_problem(f"/allowed_networks/{error.place}", error.reason) from None


def require_held(caller: Principal, scopes: Iterable[str]) -> None:
    """Refuse to hand on what the caller does not hold."""
    if missing := sorted(set(scopes) - caller.scopes):
        raise Problem("scope_not_held", f"The key that asks lacks {', '.join(missing)}.")


def future_utc(moment: datetime | None) -> datetime | None:
    """Return a moment in UTC, and refuse one that has passed or that no clock will reach."""
    moment = in_utc(moment, field_problem("/expires_at", "the moment is out of range in UTC"))
    if moment is not None and moment <= datetime.now(UTC):
        raise field_problem("/expires_at", "the moment has passed")
    return moment


def in_utc(moment: datetime | None, otherwise: Problem) -> datetime | None:
    """Return a moment in UTC; `otherwise` is raised for one that is out of the calendar there."""
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise otherwise from None
