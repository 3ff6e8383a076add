"""Orders: the table, the bodies and responses, the endpoints, and their routes."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column
from starlette.requests import Request

from latchkey import (
    Answer,
    Base,
    BigId,
    Page,
    PageQuery,
    Principal,
    Problem,
    UtcDateTime,
    or_not_found,
    paginate,
    route,
    utc_now,
)

Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Order(Base):
    """An order of a partner."""

    __tablename__ = "orders"
    refresh_on_commit = True

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    item: Mapped[str] = mapped_column(String(100))
    pieces: Mapped[int]
    status: Mapped[str] = mapped_column(String(16), default="open")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())


class NewOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/orders`."""

    item: Annotated[str, Meta(min_length=1, max_length=100)]
    pieces: Annotated[int, Meta(ge=1, le=1_000_000)]


class OrderOut(msgspec.Struct, frozen=True):
    """An order in a response."""

    id: int
    item: str
    pieces: int
    status: str


async def place_order(request: Request, caller: Principal, body: NewOrder) -> Answer:
    """Place an order."""
    largest = request.app.state.orders.largest_order
    if body.pieces > largest:
        raise Problem(
            "order_too_large", f"The order has {body.pieces} pieces, and at most {largest} are allowed."
        )
    made = await Order.create(owner_id=caller.user.id, item=body.item, pieces=body.pieces)
    return Answer(content=made, headers={"location": f"/v1/orders/{made.id}"})


async def list_orders(request: Request, caller: Principal, query: PageQuery) -> Answer:
    """List the caller's orders, newest first."""
    found = Order.filter(owner_id=caller.user.id).into(OrderOut)
    return await paginate(request, found, query, order_by="-id")


async def read_order(caller: Principal, id: Id) -> OrderOut:
    """Read an order of the caller."""
    found = Order.filter(id=id, owner_id=caller.user.id).into(OrderOut)
    return or_not_found(await found.first())


ROUTES = [
    route("POST", "/v1/orders", place_order, scope="orders:write", status=201, answers=OrderOut,
          problems=("order_too_large",), example={"item": "paper", "pieces": 3}, idempotent=True),
    route("GET", "/v1/orders", list_orders, scope="orders:read", answers=Page[OrderOut]),
    route("GET", "/v1/orders/{id}", read_order, scope="orders:read"),
]  # fmt: skip
