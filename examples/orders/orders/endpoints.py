"""The endpoints, and the table of their routes."""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request

from latchkey import Answer, Principal, Problem, User, issue_key, route
from orders.models import Order, Shipment

OrderId = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class NewOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/orders`."""

    item: Annotated[str, Meta(min_length=1, max_length=100)]
    pieces: Annotated[int, Meta(ge=1, le=1_000_000)]


class OrderOut(msgspec.Struct, frozen=True):
    """An order."""

    id: int
    item: str
    pieces: int
    status: str


class OrderList(msgspec.Struct, frozen=True):
    """The orders, newest first."""

    data: list[OrderOut]


class Terms(msgspec.Struct, frozen=True):
    """The terms for orders."""

    carrier: str
    largest_order: int
    open_orders: int | None


class NewPartner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/partners`."""

    email: Annotated[str, Meta(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]
    name: Annotated[str, Meta(min_length=1, max_length=200)]


class Partner(msgspec.Struct, frozen=True):
    """A new partner, with the secret of a first key, which is null in the replay of the call."""

    one_time = frozenset({"secret"})

    user_id: int
    secret: str | None


async def place_order(request: Request, caller: Principal, body: NewOrder) -> Answer:
    """Place an order."""
    largest = request.app.state.orders.largest_order
    if body.pieces > largest:
        raise Problem(
            "order_too_large", f"The order has {body.pieces} pieces, and at most {largest} are allowed."
        )
    order = await Order.create(user_id=caller.user.id, item=body.item, pieces=body.pieces)
    return Answer(content=order, headers={"location": f"/v1/orders/{order.id}"})


async def list_orders(caller: Principal) -> OrderList:
    """List the caller's newest orders."""
    rows = await Order.filter(user_id=caller.user.id).order_by("-id").limit(100).all()
    return OrderList(data=[as_shown(one) for one in rows])


async def close_order(request: Request, caller: Principal, id: OrderId) -> OrderOut:
    """Close an order and ship it, both or neither."""
    order = await Order.filter(id=id, user_id=caller.user.id).for_update().first()
    if order is None:
        raise Problem("not_found")
    if order.status == "closed":
        raise Problem("order_closed", f"The order {id} is closed.")
    await order.update(status="closed")
    # A model of another base has no verbs; the session of the request writes and commits it with the rest.
    carrier = request.app.state.orders.carrier
    request.state.session.add(Shipment(order_id=order.id, signed_by=caller.user.id, carrier=carrier))
    return as_shown(order)


async def read_terms(request: Request, caller: Principal | None) -> Terms:
    """Read the terms; a partner also sees the number of open orders."""
    settings = request.app.state.orders
    count = None
    if caller is not None:
        count = await Order.filter(user_id=caller.user.id, status="open").count()
    return Terms(carrier=settings.carrier, largest_order=settings.largest_order, open_orders=count)


async def create_partner(body: NewPartner) -> Partner:
    """Create a partner with a first key, which may place and read orders."""
    user = await User.create(email=body.email, name=body.name)
    issued = await issue_key(user, name="first", scopes=["orders:read", "orders:write"], as_operator=True)
    return Partner(user_id=user.id, secret=issued.secret)


def as_shown(order: Order) -> OrderOut:
    """Return an order in the form of the response."""
    return OrderOut(id=order.id, item=order.item, pieces=order.pieces, status=order.status)


ROUTES = [
    route("POST", "/v1/orders", place_order, scope="orders:write", status=201, answers=OrderOut,
          problems=("order_too_large",), example={"item": "paper", "pieces": 3}, idempotent=True),
    route("GET", "/v1/orders", list_orders, scope="orders:read"),
    route("POST", "/v1/orders/{id}/close", close_order, scope="orders:write",
          problems=("not_found", "order_closed"), path_example={"id": "1"}),
    route("GET", "/v1/terms", read_terms, optional_key=True),
    route("POST", "/v1/partners", create_partner, scope="partners:write", status=201,
          example={"email": "ann@example.com", "name": "Ann"}, idempotent=True),
]  # fmt: skip
