"""Find the rows whose list of words contains a given word: the holders of a scope or a role."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, func, literal, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute

from latchkey.models import ApiKey

MOST_NAMED = 10  # holders that a refusal names


def contains_word(column: InstrumentedAttribute[tuple[str, ...]], word: str) -> ColumnElement[bool]:
    """Return the condition that a column of words contains a word."""
    padded = literal(" ") + type_coerce(column, Text) + literal(" ")
    return padded.contains(f" {word} ", autoescape=True)


async def holders(
    name: InstrumentedAttribute[str], order: InstrumentedAttribute[Any], *conditions: ColumnElement[bool]
) -> str:
    """Return the names of the rows that meet the conditions, as words; an empty text when there are none."""
    async with ApiKey.resolve() as session:
        count = (
            await session.execute(select(func.count()).select_from(name.class_).where(*conditions))
        ).scalar_one()
        query = select(name).where(*conditions).order_by(order).limit(MOST_NAMED)
        found = (await session.execute(query)).scalars().all()
    return named(found, count)


def named(found: Sequence[str], count: int | None = None) -> str:
    """Return the first of some names as words; `count` is their number if `found` has only the first of them."""
    shown = found[:MOST_NAMED]
    left = (len(found) if count is None else count) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")
