"""Articles: partners publish them, and everybody reads them."""

import re
from collections.abc import Sequence

from starlette.requests import Request

from latchkey import Answer, PageQuery, Principal, Problem, Q, Query, given, or_not_found, paginate
from newsroom.models import Article, Favourite, Tag
from newsroom.shapes import ArticleChange, ArticleQuery, Entry, FullArticle, NewArticle

NO_ARTICLE = "There is no article at this address."


async def publish_article(request: Request, caller: Principal, body: NewArticle) -> Answer:
    """Publish an article."""
    most = request.app.state.newsroom.tags_per_article
    if len(set(body.tags)) > most:
        raise Problem("too_many_tags", f"At most {most} different tags are allowed.")
    article = await add_article(caller.user.id, body)
    where = f"/v1/articles/{article.slug}"
    return Answer(content=await read_article(article.slug, caller), headers={"location": where})


async def list_articles(request: Request, caller: Principal | None, query: ArticleQuery) -> Answer:
    """List the newest articles."""
    found = Article.filter()
    if query.author is not None:
        found = found.filter(author_id=query.author)
    if query.tag is not None:
        found = found.filter(tags__name=query.tag)
    if query.text is not None:
        like = f"%{query.text}%"
        found = found.filter(Q(title__like=like) | Q(summary__like=like))
    return await entries(request, found, query, caller)


async def entries(
    request: Request, found: Query[Article], query: PageQuery, caller: Principal | None
) -> Answer:
    """Return a page of articles, newest first."""
    answer = await paginate(request, found.into(Entry), query, order_by="-id")
    await mark(answer.content.data, caller)
    return answer


async def read_article(slug: str, caller: Principal | None) -> FullArticle:
    """Read an article."""
    found = or_not_found(await Article.filter(slug=slug).into(FullArticle).first(), NO_ARTICLE)
    await mark([found], caller)
    return found


async def change_article(caller: Principal, slug: str, body: ArticleChange) -> FullArticle:
    """Change an article of the caller; its address stays."""
    article = await find(slug, lock=True)
    if article.author_id != caller.user.id:
        raise Problem("not_the_author")
    await article.update(**given(body))
    return await read_article(slug, caller)


async def delete_article(caller: Principal, slug: str) -> None:
    """Delete an article with its comments, as its author or as a moderator."""
    article = await find(slug, lock=True)
    if article.author_id != caller.user.id:
        caller.require_scope("articles:moderate")
    await article.remove()


async def find(slug: str, *, lock: bool = False) -> Article:
    """Return an article, or raise a problem; `lock` holds it until the end of the request."""
    query = Article.filter(slug=slug)
    return or_not_found(await (query.for_update() if lock else query).first(), NO_ARTICLE)


async def add_article(author_id: int, new: NewArticle) -> Article:
    """Add an article. The unique address decides whether its title is taken, also between two calls at once."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", new.title).strip("-").lower()
    values = {name: getattr(new, name) for name in ("title", "summary", "body")}
    names = sorted(set(new.tags))
    known = {tag.name: tag for tag in await Tag.filter(name__in=names).all()}
    tags = [known.get(name) or (await Tag.get_or_create(name=name))[0] for name in names]
    defaults = {"author_id": author_id, "tags": tags, **values}
    article, is_new = await Article.get_or_create(slug=slug, defaults=defaults)
    if not is_new:
        raise Problem("title_taken", f"The address {slug} is taken.")
    return article


async def mark(articles: Sequence[Entry], caller: Principal | None) -> None:
    """Set which articles are favourites of the caller, with one query for all of them."""
    if caller is not None and articles:
        ids = [one.id for one in articles]
        marks = await Favourite.filter(user_id=caller.user.id, article_id__in=ids).all()
        marked = {one.article_id for one in marks}
        for article in articles:
            article.favourited = article.id in marked
