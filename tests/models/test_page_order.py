"""The types of columns that can order a page of a list."""

from datetime import date, time, timedelta
from decimal import Decimal
from enum import StrEnum

import pytest
from sqlalchemy import Enum
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from latchkey.models.paging import decoded, encoded, order_of


class State(StrEnum):
    """A value that a server can order by its position."""

    HIGH = "high"
    LOW = "low"


class Reading(DeclarativeBase):
    """The base of a model with columns of many types."""


class Sensor(Reading):
    """A row with columns of many types."""

    __tablename__ = "paging_sensors"

    id: Mapped[int] = mapped_column(primary_key=True)
    is_new: Mapped[bool]
    at: Mapped[time]
    state: Mapped[State]
    word: Mapped[str] = mapped_column(Enum("b", "a"))
    degrees: Mapped[float]
    wait: Mapped[timedelta]
    blob: Mapped[bytes]


@pytest.mark.parametrize("order_by", ["is_new", "-at", "id"])
def test_values_of_these_types_order_a_list(order_by: str) -> None:
    assert order_of(Sensor, order_by).names[0] == order_by.removeprefix("-")


@pytest.mark.parametrize("order_by", ["state", "-word", "degrees", "wait", "blob"])
def test_other_types_are_refused_while_the_list_is_short(order_by: str) -> None:
    """Otherwise the first list that is longer than a page fails, when nobody tests it any more."""
    says = rf"Sensor\.{order_by.removeprefix('-')} is \w+, and a list cannot be paged by its values; it can by bool, int"
    with pytest.raises(TypeError, match=says):
        order_of(Sensor, order_by)


@pytest.mark.parametrize("value", [True, time(1, 2, 3, 4), 2**70, "é", date(2026, 1, 2), Decimal("1.50")])
def test_a_value_in_a_cursor_keeps_its_type(value: object) -> None:
    (found,) = decoded(encoded([value]))

    assert (type(found), found) == (type(value), value)
