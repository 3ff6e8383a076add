"""What readers do: they mark articles, follow authors, and read their feed."""

from sqlalchemy import bindparam, desc, exists, func, select
from starlette.requests import Request

from latchkey import Answer, PageQuery, Principal, User, or_not_found, prepared
from newsroom.articles import entries, find
from newsroom.models import Article, Favourite, Follow, Tag, article_tags
from newsroom.shapes import Id, Profile, TagCount

FOLLOWERS = select(func.count()).where(Follow.author_id == User.id).scalar_subquery()
FOLLOWING = exists().where(Follow.author_id == User.id, Follow.reader_id == bindparam("reader"))
PROFILE = prepared(
    select(User.id, User.name, FOLLOWERS.label("followers"), FOLLOWING.label("following")).where(
        User.id == bindparam("author")
    ),
    into=Profile,
)
TAGS = prepared(
    select(Tag.name, func.count().label("articles"))
    .join(article_tags, article_tags.c.tag_id == Tag.id)
    .group_by(Tag.id, Tag.name)
    .order_by(desc("articles"), Tag.name)
    .limit(100),
    into=TagCount,
)


async def read_feed(request: Request, caller: Principal, query: PageQuery) -> Answer:
    """List the newest articles of the authors that the caller follows."""
    followed = select(Follow.author_id).where(Follow.reader_id == caller.user.id)
    return await entries(request, Article.filter(Article.author_id.in_(followed)), query, caller)


async def read_tags() -> list[TagCount]:
    """List the most used tags."""
    return await TAGS.all()


async def read_author(id: Id, caller: Principal | None) -> Profile:
    """Read an author."""
    found = await PROFILE.first(author=id, reader=caller.user.id if caller else 0)
    return or_not_found(found, f"There is no author {id}.")


async def follow(caller: Principal, id: Id) -> Profile:
    """Follow an author; a second call changes nothing."""
    await read_author(id, caller)
    await Follow.get_or_create(reader_id=caller.user.id, author_id=id)
    return await read_author(id, caller)


async def unfollow(caller: Principal, id: Id) -> None:
    """Stop following an author."""
    await Follow.filter(reader_id=caller.user.id, author_id=id).delete()


async def favour(caller: Principal, slug: str) -> None:
    """Mark an article as a favourite; a second call changes nothing."""
    article = await find(slug, lock=True)
    _, is_new = await Favourite.get_or_create(article_id=article.id, user_id=caller.user.id)
    if is_new:
        await count_favourites(article.id, 1)


async def unfavour(caller: Principal, slug: str) -> None:
    """Unmark a favourite."""
    article = await find(slug, lock=True)
    if await Favourite.filter(article_id=article.id, user_id=caller.user.id).delete():
        await count_favourites(article.id, -1)


async def count_favourites(article_id: int, more: int) -> None:
    """Count in the database, so that no call at the same time is lost; the article is not updated by it."""
    article = Article.filter(id=article_id)
    await article.update(favourites=Article.favourites + more, updated_at=Article.updated_at)
