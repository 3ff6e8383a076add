"""Units of work from SQLAlchemy's documentation, by chapter, for `tests.sessions.test_like_sqlalchemy`.

Each is a coroutine function of a session, which returns its observations. Its chapter is the page of the documentation
whose operations it uses.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import (
    inspect,
)
from sqlalchemy.ext.asyncio import AsyncSession

Run = Callable[[AsyncSession], Awaitable[Any]]


class Unit(msgspec.Struct, frozen=True):
    """One unit of work; `chapter` is its chapter in SQLAlchemy's documentation."""

    chapter: str
    name: str
    run: Run


UNITS: list[Unit] = []


def unit(chapter: str) -> Callable[[Run], Run]:
    """Add a coroutine function to the units."""

    def add(run: Run) -> Run:
        UNITS.append(Unit(chapter, run.__name__, run))
        return run

    return add


def family(chapter: str, name: str, run: Callable[..., Awaitable[Any]], *cases: tuple[str, Any]) -> None:
    """Add a unit for each case, which `run` gets as its second argument."""
    UNITS.extend(Unit(chapter, f"{name}: {label}", partial(with_case, run, case)) for label, case in cases)


async def with_case(run: Callable[..., Awaitable[Any]], given: Any, session: AsyncSession) -> Any:
    return await run(session, given)


async def then(asked: Awaitable[Any], use: Callable[[Any], Any]) -> Any:
    return use(await asked)


def loaded(instance: Any) -> dict[str, Any]:
    """Return the attributes of an instance that are loaded."""
    state = inspect(instance)
    return {name: value for name, value in state.dict.items() if name in state.mapper.attrs}
