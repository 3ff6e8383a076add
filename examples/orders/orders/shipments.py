"""Shipments: a table on a base of its own, and the endpoint that closes an order and ships it."""

from sqlalchemy import ForeignKey, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.requests import Request

from latchkey import BigId, Principal, Problem, User, convert, or_not_found, route
from orders.orders import Id, Order, OrderOut


class ShippingBase(DeclarativeBase):
    """A base that is independent of Latchkey, like that of existing models."""

    metadata = MetaData()


class Shipment(ShippingBase):
    """The shipment of an order."""

    __tablename__ = "shipments"
    __table_args__ = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}  # noqa: RUF012 - SQLAlchemy reads it

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), unique=True)
    signed_by: Mapped[int] = mapped_column(ForeignKey(User.id))
    carrier: Mapped[str] = mapped_column(String(50))


async def close_order(request: Request, caller: Principal, id: Id) -> OrderOut:
    """Close an order and ship it, both or neither."""
    query = Order.filter(id=id, owner_id=caller.user.id)
    order = or_not_found(await query.for_update().first())
    if order.status == "closed":
        raise Problem("order_closed", f"The order {id} is closed.")
    await order.update(status="closed")
    # A model of another base has no verbs; the session of the request writes and commits it with the rest.
    carrier = request.app.state.orders.carrier
    request.state.session.add(Shipment(order_id=order.id, signed_by=caller.user.id, carrier=carrier))
    return convert(order, OrderOut)


ROUTES = [
    route("POST", "/v1/orders/{id}/close", close_order, scope="orders:write",
          problems=("not_found", "order_closed"), path_example={"id": "1"}),
]  # fmt: skip
