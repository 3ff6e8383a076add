"""The owners of keys."""

import sys

import pytest
from sqlalchemy.exc import IntegrityError

from latchkey.models import User
from latchkey.models.user import EMAIL_KEY_BYTES, EMAIL_LENGTH
from latchkey.service.database import SQLAlchemy


def test_the_key_of_any_email_fits_its_column() -> None:
    longest = max(
        len(chr(point).casefold().encode())
        for point in range(sys.maxunicode + 1)
        if not 0xD800 <= point <= 0xDFFF  # surrogates are no characters
    )

    assert EMAIL_LENGTH * longest <= EMAIL_KEY_BYTES


async def test_the_longest_email_key_is_stored(db: SQLAlchemy) -> None:
    widest = "\N{GREEK SMALL LETTER IOTA WITH DIALYTIKA AND TONOS}" * EMAIL_LENGTH

    user = await User.create(email=widest, name="Ann", auto_commit=True)

    assert len(widest.casefold().encode()) == EMAIL_KEY_BYTES
    assert (await User.filter(email_key=widest.casefold()).one()).id == user.id
    assert (await User.filter(id=user.id).one()).email == widest


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ann@example.com", "ANN@example.com"),
        ("straße@example.com", "STRASSE@EXAMPLE.COM"),
        ("\N{KELVIN SIGN}@example.com", "k@example.com"),
    ],
)
async def test_an_email_is_taken_in_every_letter_case(db: SQLAlchemy, first: str, second: str) -> None:
    await User.create(email=first, name="Ann", auto_commit=True)

    with pytest.raises(IntegrityError, match="email_key"):
        await User.create(email=second, name="Ann", auto_commit=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ann@example.com", "\N{LATIN SMALL LETTER A WITH ACUTE}nn@example.com"),
        ("ann@example.com", "ann@example.com "),
    ],
    ids=["an accent", "a space at the end"],
)
async def test_emails_that_only_a_collation_takes_for_the_same_are_two(
    db: SQLAlchemy, first: str, second: str
) -> None:
    await User.create(email=first, name="Ann", auto_commit=True)
    await User.create(email=second, name="Ann", auto_commit=True)

    assert await User.filter().count() == 2


async def test_the_key_follows_the_email(db: SQLAlchemy, ann: User) -> None:
    await ann.update(email="Anna@Example.com", auto_commit=True)

    assert ann.email_key == "anna@example.com"
    assert await User.filter(email_key="anna@example.com", email="Anna@Example.com").count() == 1


async def test_users_without_metadata_share_no_object(db: SQLAlchemy) -> None:
    for name in ("ann", "bob"):
        await User.create(email=f"{name}@example.com", name=name, auto_commit=True)

    ann, bob = await User.filter().order_by("id").all()
    ann.meta["plan"] = "gold"

    assert bob.meta == {}
    assert (await User.filter(id=ann.id).one()).meta == {}
