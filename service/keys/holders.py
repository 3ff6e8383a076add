"""Find the rows whose list of words contains a given word: the holders of a scope or a role."""

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
    more = f" and {count - len(found)} more" if count > len(found) else ""
    return f"{', '.join(found)}{more}"
