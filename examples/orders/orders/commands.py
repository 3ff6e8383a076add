"""The commands of this package."""

import asyncio

import click

from latchkey import User, open_session
from orders.app import create_app
from orders.orders import Order


@click.command("import")
@click.argument("email")
@click.argument("items", nargs=-1, required=True)
def import_(email: str, items: tuple[str, ...]) -> None:
    """Place an order of one piece for each of ITEMS, for the user with this EMAIL."""
    click.echo(asyncio.run(place(email, items)))


async def place(email: str, items: tuple[str, ...]) -> int:
    """Place the orders, all or none, and return their number."""
    async with open_session(create_app()) as session:
        user = await User.filter(email_key=email.casefold()).first()
        if user is None:
            raise click.ClickException(f"there is no user {email}.")
        for item in items:
            await Order.create(owner_id=user.id, item=item, pieces=1)
        await session.commit()
    return len(items)
