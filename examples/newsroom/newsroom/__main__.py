"""The program `newsroom`: Latchkey's commands for this application, and its own."""

import asyncio
from typing import BinaryIO

import click
import msgspec

from latchkey import User, command_line, open_session, or_not_found
from newsroom.app import create_app
from newsroom.articles import add_article
from newsroom.shapes import NewArticle


@click.command("import")
@click.argument("email")
@click.argument("file", type=click.File("rb"))
def import_(email: str, file: BinaryIO) -> None:
    """Publish the articles in FILE, a JSON list, as the author with this EMAIL."""
    try:
        articles = msgspec.json.decode(file.read(), type=list[NewArticle])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file.name}: {error}") from None
    asyncio.run(publish(email, articles))
    click.echo(len(articles))


async def publish(email: str, articles: list[NewArticle]) -> None:
    """Publish articles, all or none."""
    async with open_session(create_app()) as session:
        author = await User.filter(email_key=email.casefold()).first()
        author = or_not_found(author, f"There is no user {email}.")
        for article in articles:
            await add_article(author.id, article)
        await session.commit()


main = command_line("newsroom.app:create_app", name="newsroom", commands=[import_])

if __name__ == "__main__":
    main()
