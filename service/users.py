"""The rules for users, for endpoints and commands."""

from sqlalchemy.exc import IntegrityError

from latchkey.models import User


async def lock_user(id: int) -> User | None:
    """Return a user, locked against changes until this transaction ends."""
    return await User.filter_by(id=id).for_update().first()


async def lock_user_by_email(email: str) -> User | None:
    """Return the user with an email, in any letter case, locked as by `lock_user`."""
    return await User.filter_by(email_key=email.casefold()).for_update().first()


def is_email_taken(error: IntegrityError) -> bool:
    """Return whether a row could not be written because another user has its email."""
    return "email_key" in str(error.orig)
