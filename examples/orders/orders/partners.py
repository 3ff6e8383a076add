"""Partners, and the terms for their orders."""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request

from latchkey import Principal, User, issue_key, route
from orders.orders import Order


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


async def read_terms(request: Request, caller: Principal | None) -> Terms:
    """Read the terms; a partner also sees the number of open orders."""
    settings = request.app.state.orders
    count = None
    if caller is not None:
        count = await Order.filter(owner_id=caller.user.id, status="open").count()
    return Terms(carrier=settings.carrier, largest_order=settings.largest_order, open_orders=count)


async def create_partner(body: NewPartner) -> Partner:
    """Create a partner with a first key, which may place and read orders."""
    user = await User.create(email=body.email, name=body.name)
    issued = await issue_key(user, name="first", scopes=["orders:read", "orders:write"], as_operator=True)
    return Partner(user_id=user.id, secret=issued.secret)


ROUTES = [
    route("GET", "/v1/terms", read_terms, optional_key=True),
    route("POST", "/v1/partners", create_partner, scope="partners:write", status=201,
          example={"email": "ann@example.com", "name": "Ann"}, idempotent=True),
]  # fmt: skip
