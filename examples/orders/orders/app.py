"""The application: Latchkey with the routes, problems and tables of this package."""

import os
from pathlib import Path

from starlette.applications import Starlette

from latchkey import Schema, read_settings
from latchkey import create_app as create_latchkey
from orders import orders, partners, shipments
from orders.problems import PROBLEMS
from orders.settings import OrderSettings

SCHEMA = Schema(
    "orders", migrations=Path(__file__).parent / "migrations", metadata=shipments.ShippingBase.metadata
)


def create_app() -> Starlette:
    """Build the application from the environment."""
    settings = read_settings(OrderSettings, os.environ, prefix="ORDERS_")
    routes = [*orders.ROUTES, *shipments.ROUTES, *partners.ROUTES]
    app = create_latchkey(routes=routes, problems=PROBLEMS, schemas=[SCHEMA], scopes=["orders:refund"])
    app.state.orders = settings
    return app
