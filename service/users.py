"""The rules for users, for endpoints and commands."""

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from latchkey.models import ApiKey, User


async def lock_user(id: int) -> User | None:
    """Return a user, locked against changes until this transaction ends."""
    return await User.filter_by(id=id).for_update().first()


async def lock_user_by_email(email: str) -> User | None:
    """Return the user with an email, in any letter case, locked as by `lock_user`."""
    return await User.filter_by(email_key=email.casefold()).for_update().first()


async def delete(user: User) -> None:
    """Delete a locked user and revoke its keys; the row stays, with the status `deleted`."""
    await user.update(status="deleted")
    async with User.resolve() as session:
        await session.execute(
            update(ApiKey)
            .where(ApiKey.user_id == user.id, ApiKey.status == "active")
            .values(status="revoked")
            .execution_options(synchronize_session=False)
        )


def is_email_taken(error: IntegrityError) -> bool:
    """Return whether a row could not be written because another user has its email."""
    return "email_key" in str(error.orig)
