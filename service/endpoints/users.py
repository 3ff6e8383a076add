"""Users: `/v1/users`."""

from sqlalchemy.exc import IntegrityError
from starlette.requests import Request

from latchkey.models import User
from latchkey.service import shapes, users
from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.endpoints.paging import page
from latchkey.service.keys.metadata import checked_meta, external_id_taken
from latchkey.service.limits.rules import distinct_limits
from latchkey.service.operation import Answer
from latchkey.service.parts import parts_of
from latchkey.service.problems import Problem, invalid_field, or_not_found
from latchkey.service.users import is_email_taken, lock_user


async def create_user(body: shapes.NewUser) -> Answer:
    """Create a user.

    The email is stored as given and must be unique, regardless of letter case.
    """
    try:
        user = await User.create(
            email=body.email, name=body.name, external_id=body.external_id, meta=checked_meta(body.meta)
        )
    except IntegrityError as error:
        raise taken(error) from error
    return Answer(content=user, headers={"location": f"/v1/users/{user.id}"})


async def list_users(request: Request, query: shapes.UserQuery) -> Answer:
    """List users in the order of their ids.

    Without `status` the list includes blocked and deleted users. `email` is the whole address, in any letter case.
    """
    found = User.filter()
    if query.email is not None:
        found = found.filter(email_key=query.email.casefold())
    if query.status is not None:
        found = found.filter(status=query.status)
    if query.external_id is not None:
        found = found.filter(external_id=query.external_id)
    return await page(
        found,
        path="/v1/users",
        filters={"email": query.email, "status": query.status, "external_id": query.external_id},
        limit=query.limit,
        cursor=query.cursor,
        keyring=parts_of(request.app).keyring,
    )


async def read_user(id: shapes.PathId) -> User:
    """Read a user, including a deleted one."""
    return or_not_found(await User.get(parse_id(id)))


async def change_user(
    request: Request, id: shapes.PathId, body: shapes.UserChange, query: shapes.UserForce
) -> User:
    """Change a user.

    Absent fields stay unchanged; `{}` changes nothing. `status` blocks and unblocks the user; blocking the owner of the
    calling key requires `force=true`. `limits` and `quota` apply to all keys of the user together.
    """
    changes = shapes.given(body)
    if "limits" in changes:
        with invalid_field("/limits"):
            changes["limits"] = distinct_limits(changes["limits"])
    if "meta" in changes:
        changes["meta"] = checked_meta(changes["meta"])
    await hold_caller(request)
    user = or_not_found(await lock_user(parse_id(id)))
    if user.status == "deleted":
        raise Problem("user_deleted")
    if changes.get("status") == "blocked":
        require_forced(request, user, query)
    try:
        await user.update(**changes)
    except IntegrityError as error:
        raise taken(error) from error
    return user


async def delete_user(request: Request, id: shapes.PathId, query: shapes.UserForce) -> None:
    """Delete a user and revoke its keys, both or neither.

    The row stays, with the status `deleted`, and its email stays taken.
    Deleting the owner of the calling key requires `force=true`.
    """
    await hold_caller(request)
    user = or_not_found(await lock_user(parse_id(id)))
    if user.status == "deleted":
        return
    require_forced(request, user, query)
    await users.delete(user)


def require_forced(request: Request, user: User, query: shapes.UserForce) -> None:
    """Raise a problem for a change that ends the calling key together with its owner, unless it is forced."""
    if query.force != "true" and user.id == request.user.user.id:
        raise Problem("user_owns_caller")


def parse_id(text: str) -> int:
    """Return the id in a path as a number; an id that no column can hold does not exist."""
    number = int(text)
    if number > shapes.LARGEST_ID:
        raise Problem("not_found")
    return number


def taken(error: IntegrityError) -> Exception:
    """Return the problem for a taken external id or email, and any other integrity error unchanged."""
    found = external_id_taken(error)
    return Problem("email_taken") if found is error and is_email_taken(error) else found
