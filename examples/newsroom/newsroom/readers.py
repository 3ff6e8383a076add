"""What readers do: they mark articles, follow authors, and read their feed."""

from sqlalchemy import bindparam, case, delete, desc, func, select, update
from sqlalchemy.exc import IntegrityError
from starlette.requests import Request

from latchkey import Principal, Problem, User, prepared
from newsroom.articles import find, mark
from newsroom.models import Article, Favourite, Follow, Tag, article_tags
from newsroom.shapes import Entry, Id, Marked, PageQuery, Profile, TagCount

FEED = prepared(
    select(Article.id.label("article_id"))
    .join(Follow, Follow.author_id == Article.author_id)
    .where(Follow.reader_id == bindparam("reader"), Article.id < bindparam("before"))
    .order_by(Article.id.desc())
    .limit(bindparam("limit")),
    into=Marked,
)
FOLLOWS = case((Follow.reader_id == bindparam("reader"), 1), else_=0)
PROFILE = prepared(
    select(
        User.id,
        User.name,
        func.count(Follow.reader_id).label("followers"),
        func.max(FOLLOWS).label("following"),
    )
    .outerjoin(Follow, Follow.author_id == User.id)
    .where(User.id == bindparam("author"))
    .group_by(User.id, User.name),
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


async def read_feed(caller: Principal, query: PageQuery) -> list[Entry]:
    """List the newest articles of the authors that the caller follows."""
    chosen = await FEED.all(reader=caller.user.id, before=query.before, limit=query.limit)
    articles = Article.filter(id__in=[one.article_id for one in chosen]).order_by("-id")
    return await mark(await articles.into(Entry).all(), caller)


async def read_tags() -> list[TagCount]:
    """List the most used tags."""
    return await TAGS.all()


async def read_author(id: Id, caller: Principal | None) -> Profile:
    """Read an author."""
    found = await PROFILE.first(author=id, reader=caller.user.id if caller else 0)
    if found is None:
        raise Problem("not_found", f"There is no author {id}.")
    return found


async def follow(request: Request, caller: Principal, id: Id) -> Profile:
    """Follow an author; a second call changes nothing."""
    profile = await read_author(id, caller)
    if not profile.following:
        try:
            async with request.state.session.begin_nested():
                await Follow.create(reader_id=caller.user.id, author_id=id)
        except IntegrityError:
            pass  # another call at the same time did
    return await read_author(id, caller)


async def unfollow(request: Request, caller: Principal, id: Id) -> None:
    """Stop following an author."""
    await request.state.session.execute(
        delete(Follow).where(Follow.reader_id == caller.user.id, Follow.author_id == id)
    )


async def favour(request: Request, caller: Principal, slug: str) -> None:
    """Mark an article as a favourite; a second call changes nothing."""
    article = await find(slug)
    try:
        async with request.state.session.begin_nested():
            await Favourite.create(article_id=article.id, user_id=caller.user.id)
    except IntegrityError:
        return
    await count_favourites(request, article.id, 1)


async def unfavour(request: Request, caller: Principal, slug: str) -> None:
    """Unmark a favourite."""
    article = await find(slug)
    gone = await request.state.session.execute(
        delete(Favourite).where(Favourite.article_id == article.id, Favourite.user_id == caller.user.id)
    )
    if gone.rowcount:
        await count_favourites(request, article.id, -1)


async def count_favourites(request: Request, article_id: int, more: int) -> None:
    """Change the number of favourites in the database, so that no call at the same time is lost."""
    await request.state.session.execute(
        update(Article)
        .where(Article.id == article_id)
        .values(favourites=Article.favourites + more, updated_at=Article.updated_at)
    )
