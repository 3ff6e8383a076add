"""Keys: `/v1/keys`."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from starlette.requests import Request

from models import ApiKey
from service import shapes
from service.authentication.principal import Principal
from service.endpoints.users import lock_user
from service.operation import Answer
from service.paging import page
from service.problems import FieldError, Problem


async def create_key(request: Request, body: shapes.NewKey) -> Answer:
    """Create a key for an active user.

    The answer holds the secret, the only time that it is shown.
    A key that creates another needs every scope that it gives.
    """
    require_declared(body.scopes, request.app.state.scopes)
    expires_at = future_utc(body.expires_at)
    require_held(request.user, body.scopes)
    owner = await lock_user(body.user_id)
    if owner is None:
        raise field_problem("/user_id", "there is no such user")
    if owner.status != "active":
        raise Problem("user_not_active")
    key, secret = await request.app.state.issuer.issue(
        owner, name=body.name, mode=body.mode, scopes=body.scopes, expires_at=expires_at
    )
    await request.state.session.write_out()
    shown = msgspec.convert(key, shapes.Key, from_attributes=True)
    return Answer(
        content=shapes.KeyWithSecret(**msgspec.structs.asdict(shown), secret=secret),
        headers={"location": f"/v1/keys/{key.access_key}", "cache-control": "no-store"},
    )


async def list_keys(request: Request, query: shapes.KeyQuery) -> Answer:
    """List keys in the order in which they were made.

    Without `status` revoked keys are listed too.
    """
    found = ApiKey.filter()
    if query.user_id is not None:
        found = found.filter(user_id=query.user_id)
    if query.status is not None:
        found = found.filter(status=query.status)
    return await page(
        found,
        path="/v1/keys",
        filters={"user_id": query.user_id, "status": query.status},
        limit=query.limit,
        cursor=query.cursor,
        keyring=request.app.state.keyring,
    )


async def read_key(access_key: str) -> ApiKey:
    """Read a key, a revoked one too; its secret is shown to nobody."""
    key = await ApiKey.filter_by(access_key=access_key).first()
    if key is None:
        raise Problem("not_found")
    return key


async def change_key(request: Request, access_key: str, body: shapes.KeyChange) -> ApiKey:
    """Change a key.

    What is absent stays; `expires_at` null is never. The caller needs every scope that the key has or gets.
    """
    changes = shapes.given(body)
    if "scopes" in changes:
        require_declared(changes["scopes"], request.app.state.scopes)
        changes["scopes"] = tuple(changes["scopes"])
    if changes.get("expires_at") is not None:
        changes["expires_at"] = future_utc(changes["expires_at"])
    key = await lock_key(access_key)
    if key is None:
        raise Problem("not_found")
    require_held(request.user, [*key.scopes, *changes.get("scopes", ())])
    if key.status == "revoked":
        raise Problem("key_not_active")
    await key.update(**changes)
    return key


async def revoke_key(access_key: str) -> None:
    """Revoke a key: the next call with it is refused."""
    key = await lock_key(access_key)
    if key is None:
        raise Problem("not_found")
    await key.update(status="revoked")


async def lock_key(access_key: str) -> ApiKey | None:
    """Read a key that nobody else changes until this transaction ends."""
    return await ApiKey.filter_by(access_key=access_key).for_update().first()


def require_declared(scopes: Sequence[str], declared: frozenset[str]) -> None:
    """Refuse scopes that are there twice or that no route declares."""
    for place, scope in enumerate(scopes):
        if scope in scopes[:place]:
            raise field_problem(f"/scopes/{place}", "the scope is there twice")
        if scope not in declared:
            raise field_problem(
                f"/scopes/{place}", f"there is no such scope; there are {', '.join(sorted(declared))}"
            )


def require_held(caller: Principal, scopes: Iterable[str]) -> None:
    """Refuse to hand on what the caller does not hold."""
    if missing := sorted(set(scopes) - caller.scopes):
        raise Problem("scope_not_held", f"The key that asks lacks {', '.join(missing)}.")


def future_utc(moment: datetime | None) -> datetime | None:
    """Return a moment in UTC, and refuse one that has passed or that no clock will reach."""
    if moment is None:
        return None
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise field_problem("/expires_at", "the moment is out of range in UTC") from None
    if moment <= datetime.now(UTC):
        raise field_problem("/expires_at", "the moment has passed")
    return moment


def field_problem(pointer: str, detail: str) -> Problem:
    """A fault of the body that its type could not tell."""
    return Problem(
        "invalid_body", f"The body is wrong at {pointer!r}: {detail}.", errors=[FieldError(pointer, detail)]
    )
