"""Members: authors, whose first key signs, and readers, whose first key is a bearer key that ends."""

import logging
from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from latchkey import ApiKey, Problem, User, issue_key, revoke_key, rotate_key
from newsroom.shapes import Id, Member, NewMember

log = logging.getLogger(__name__)


async def add_member(request: Request, body: NewMember) -> Member:
    """Add a member with a first key."""
    user = await User.create(email=body.email, name=body.name)
    writes = body.role == "author"
    days = timedelta(days=request.app.state.newsroom.reader_key_days)
    issued = await issue_key(
        user,
        name="first",
        mode="signed" if writes else "bearer",
        scopes=["articles:write", "comments:write"] if writes else ["comments:write"],
        expires_at=None if writes else datetime.now(UTC) + days,
        as_operator=True,  # the scope of the route allows it
    )
    return Member(id=user.id, access_key=issued.key.access_key, secret=issued.secret)


async def replace_secret(id: Id) -> Member:
    """Replace the secret of a member's first key; the old one still works for a day."""
    (key, *_) = await active_keys(id)
    rotated = await rotate_key(key, grace=timedelta(days=1), as_operator=True)
    return Member(id=id, access_key=rotated.key.access_key, secret=rotated.secret)


async def remove_member(id: Id) -> None:
    """Revoke all keys of a member; the articles stay."""
    for key in await active_keys(id):
        await revoke_key(key, as_operator=True)
    log.info("Removed the member %d.", id)


async def active_keys(id: Id) -> list[ApiKey]:
    """Return the active keys of a member, oldest first, or raise a problem."""
    found = await ApiKey.filter(user_id=id, status="active").order_by("id").all()
    if not found:
        raise Problem("not_found", f"There is no member {id} with a key.")
    return list(found)
