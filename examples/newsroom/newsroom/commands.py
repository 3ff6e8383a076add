"""The commands of this package."""

import asyncio
from pathlib import Path

import click
import msgspec

from latchkey import User, open_session
from newsroom.app import create_app
from newsroom.articles import add_article
from newsroom.shapes import NewArticle


@click.command("import")
@click.argument("email")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_(email: str, file: Path) -> None:
    """Publish the articles in FILE, a JSON list, as the author with this EMAIL."""
    try:
        articles = msgspec.json.decode(file.read_bytes(), type=list[NewArticle])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: {error}") from None
    asyncio.run(publish(email, articles))
    click.echo(len(articles))


async def publish(email: str, articles: list[NewArticle]) -> None:
    """Publish articles, all or none."""
    async with open_session(create_app()) as session:
        author = await User.filter(email_key=email.casefold()).first()
        if author is None:
            raise click.ClickException(f"there is no user {email}.")
        for article in articles:
            await add_article(author.id, article)
        await session.commit()
